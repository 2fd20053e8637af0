"""The rounds of the soak: a server is started, visited in waves, asked what it holds when it is idle, and stopped."""

from __future__ import annotations

import asyncio
import dataclasses
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.servers.client import get_json
from tests.servers.journal import entries
from tests.servers.kinds import APP, Kind
from tests.servers.processes import PATIENCE, ROOT, Program, eventually, heed_interrupts, running
from tests.soak.lifecycle.clients import Seen, pay
from tests.soak.lifecycle.ledger import DROPPING, crowds, judge, lives, tracebacks
from tests.soak.lifecycle.plans import CLEANUP_TIMEOUT, DRAIN_GRACE, Plan, Visit, Wave, plan

__all__ = ["soak"]

#: Seconds that a busy machine takes besides.
BUSY = 1.0

#: Seconds that a stream may take to end at a shutdown.
LONGEST_END = 2 * DRAIN_GRACE + 2 * CLEANUP_TIMEOUT + 1.0 + BUSY

#: Servers whose connections can be freed though their clients read nothing.
FREEING = ("uvicorn", "gunicorn")

#: Seconds between two looks: the connection of who asks lingers for a while, too, with a task and a file of its own.
BETWEEN_LOOKS = 0.4

#: What hypercorn has for each connection, and keeps for good of one that has sent another request behind that of its
#: stream: there it waits to be told to read on (``can_read`` in its ``H11Protocol``), and does not see the end.
OF_CONNECTIONS = frozenset(
    {"files", "task TCPServer._idle_timeout", "task _run_handler", "task worker_serve.<locals>._server_callback"}
)

Vitals = Mapping[str, int]


async def soak(seed: int, seconds: float, say: Callable[[str], None]) -> list[str]:
    """Run rounds for so many seconds, and return what broke a promise; it needs asyncio.

    :param say: called with a line for each round.
    """
    heed_interrupts()
    ends, number, visits, violations = time.monotonic() + seconds, 0, 0, list[str]()
    reasons: Counter[str] = Counter()
    while number == 0 or time.monotonic() < ends:
        planned = plan(seed, number)
        with tempfile.TemporaryDirectory() as directory:
            found = await Round(planned, Path(directory), reasons).run()
        violations += [f"seed {seed}, round {number}, {planned.kind}: {each}" for each in found]
        visits += sum(len(wave.visits) for wave in planned.waves)
        say(f"round {number}, {planned.kind}: {len(found)} violations; so far {visits} visits, {dict(reasons)}")
        number += 1
    return violations


class Round:
    """One server from its start to its end."""

    def __init__(self, planned: Plan, directory: Path, reasons: Counter[str]) -> None:
        self._kind, self._waves = planned.kind, planned.waves
        self._directory = directory
        self._journal = directory / "journal"
        self._reasons = reasons
        self._visits = {name: visit for wave in planned.waves for visit in wave.visits for name in visit.names}
        self._seen: dict[str, Seen] = {}
        self._violations: list[str] = []
        self._idle: Vitals | None = None
        self._stopped_at: float | None = None
        self._ended_at = 0.0

    async def run(self) -> list[str]:
        """Return what broke a promise."""
        self._journal.touch()
        environ = {"PYTHONPATH": str(ROOT), "SSE_TEST_JOURNAL": str(self._journal)}
        with running(serving(self._kind), self._directory, environ=environ) as program:
            for wave in self._waves:
                await self._ride(wave, program)
                if self._stopped_at is None:
                    await asyncio.to_thread(self._rest, program.port)
            if self._stopped_at is None:
                await self._stop(program)
            self._judge()
            self._violations += tracebacks(program.output, self._kind)
        return self._violations

    async def _ride(self, wave: Wave, program: Program) -> None:
        async with asyncio.TaskGroup() as tasks:
            paying = [tasks.create_task(pay(program.port, visit)) for visit in wave.visits]
            for at, count, size in wave.published:
                tasks.create_task(ask(program.port, at, f"/publish?count={count}&size={size}"))
            if wave.upset == "stop":
                tasks.create_task(self._stop(program, wave.at))
            elif wave.upset:
                tasks.create_task(ask(program.port, wave.at, f"/upset/{wave.upset}"))
        for task in paying:
            self._seen |= task.result()

    async def _stop(self, program: Program, at: float = 0.0) -> None:
        await asyncio.sleep(at)
        self._stopped_at = time.monotonic()
        try:
            took = await asyncio.to_thread(program.stop, self._kind.signal)
        except AssertionError as exc:
            # The threads of what is dropped keep the process.
            if self._kind.name != DROPPING:
                self._violations.append(f"the server does not stop: {exc}")
        else:
            self._ended_at = self._stopped_at + took
            if took > LONGEST_END + self._kind.longest_stop:
                self._violations.append(f"the server took {took:.1f} s to stop")

    def _rest(self, port: int) -> None:
        """Wait until nothing is left of the clients, who have all gone."""
        more: Vitals = {}
        unsteady = OF_CONNECTIONS if self._kind.name.startswith("hypercorn") else ()

        def settled() -> bool:
            nonlocal more
            held = {name: number for name, number in get_json(port, "/vitals").items() if name not in unsteady}
            idle = self._idle or dict.fromkeys(("places", "streams", "threads", "visitors"), 0)
            self._idle = self._idle or (None if any(held[name] for name in idle) else held)
            more = {name: number for name, number in held.items() if number != idle.get(name, 0)}
            return self._idle is not None and not any(
                number > self._idle.get(name, 0) or number < 0 for name, number in held.items()
            )

        try:
            if not eventually(settled, poll=BETWEEN_LOOKS):
                self._violations.append(f"{PATIENCE} s after all clients have gone there is left: {dict(more)}")
        except (OSError, AssertionError) as exc:
            self._violations.append(f"the server does not answer any more: {exc!r}")

    def _judge(self) -> None:
        written = entries(self._journal)
        upsets = upsets_of(written)
        if self._stopped_at is not None:
            upsets["stop"] = self._stopped_at
        for name, life in lives(self._visits, written).items():
            seen = self._seen.get(name)
            for wrong in judge(life, seen, self._kind, upsets):
                self._violations.append(f"{wrong}; stream {name}: {life}; {shown(life.visit)}; {told(seen)}")
            if life.reason:
                self._reasons[life.reason] += 1
        last = max([upsets.get("stop", 0.0), *(entry["at"] for entry in written if entry["what"] == "closed")])
        waited = self._ended_at - last
        if self._kind.name.startswith(FREEING) and waited > self._kind.longest_stop + BUSY:
            self._violations.append(f"the server took {waited:.1f} s to stop after its last stream had ended")
        self._violations += crowds(written, self._visits)
        if self._kind.lifespan and not any(entry["what"] == "stopped" for entry in written):
            self._violations.append("the app's lifespan did not end")


def serving(kind: Kind) -> Callable[[int], list[str]]:
    """Return what runs the soak's app in place of that of the servers' tests."""
    command = tuple("tests.soak.lifecycle.app:app" if part == APP else part for part in kind.command)
    return dataclasses.replace(kind, command=command).argv


def upsets_of(written: list[dict[str, Any]]) -> dict[str, float]:
    """Return when which upset came first."""
    found: dict[str, float] = {}
    for entry in written:
        if entry["what"] == "upset":
            found.setdefault(entry["to"].partition("_")[0], entry["at"])
    return found


async def ask(port: int, at: float, path: str) -> None:
    """Ask the app for something; a server that is stopping may not answer."""
    await asyncio.sleep(at)
    try:
        await asyncio.to_thread(get_json, port, path)
    except (OSError, AssertionError, ValueError):
        return


def shown(visit: Visit | None) -> str:
    """Return what was asked for, without what is as usual."""
    if visit is None:
        return "by nobody"
    usual, script = type(visit.script)(), dataclasses.asdict(visit.script)
    unusual = {name: value for name, value in script.items() if value != getattr(usual, name)}
    return f"{visit.way} of {visit.endpoint}, hold={visit.hold} size={visit.size} abrupt={visit.abrupt} {unusual}"


def told(seen: Seen | None) -> str:
    """Return what the client saw."""
    if seen is None:
        return "not read"
    end = bytes(seen.body[-80:])
    return f"status {seen.status}, whole={seen.whole}, hung={seen.hung}, {len(seen.body)} bytes ending with {end!r}"
