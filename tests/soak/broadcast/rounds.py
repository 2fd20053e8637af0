"""Round after round: traffic, faults, and when they are over the judgement of all that was delivered."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import anyio

from tests.soak.broadcast.brokers import CHANNELS, PREFIX
from tests.soak.broadcast.faults import KINDS, Step, apply, plan
from tests.soak.broadcast.ledger import Ledger
from tests.soak.broadcast.scene import Scene, in_thread, running

__all__ = ["soak"]

#: After so many there is nothing more to learn from a run.
MOST_VIOLATIONS = 20

#: What a process may hold beside its streams: connections to Redis for commands, and to the one that asks.
FILES_KEPT = 24


async def soak(seed: int, seconds: float, say: Callable[[str], None]) -> list[str]:
    """Break what a broadcast over Redis stands on, again and again, and return where it did not keep its promise.

    The seed decides what happens, in which order and for how long; where it hits is up to the machine.

    :param seconds: how long; the round that is under way then is ended.
    :param say: told of the progress.
    """
    ledger = Ledger()
    before = len(asyncio.all_tasks())
    with tempfile.TemporaryDirectory(prefix="soak-") as directory:
        async with running(seed, Path(directory), ledger) as scene:
            await Soak(seed, scene, say).run(seconds)
    # What was cancelled last needs a turn to end.
    await anyio.wait_all_tasks_blocked()
    if (left := len(asyncio.all_tasks()) - before) > 0:
        ledger.accuse(f"{left} tasks are left: {asyncio.all_tasks()}")
    return [f"seed {seed}: {violation}" for violation in ledger.violations]


class Soak:
    def __init__(self, seed: int, scene: Scene, say: Callable[[str], None]) -> None:
        self._seed = seed
        self._scene = scene
        self._ledger = scene.ledger
        self._say = say
        self._faults: Counter[str] = Counter()

    async def run(self, seconds: float) -> None:
        scene, end = self._scene, time.monotonic() + seconds
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(scene.keep_looking)
            async with anyio.create_task_group() as opened:
                opened.start_soon(scene.opened.serve)
                async with anyio.create_task_group() as publishing:
                    for publisher in scene.publishers:
                        publishing.start_soon(publisher.run)
                    await scene.expect(scene.problem)
                    idle = [await worker.health() for worker in scene.workers]
                    async with anyio.create_task_group() as reading:
                        for reader in scene.readers:
                            reading.start_soon(reader.run)
                        await self._rounds(end)
                        reading.cancel_scope.cancel()
                    await self._nothing_left(idle)
                    publishing.cancel_scope.cancel()
                opened.cancel_scope.cancel()
            tasks.cancel_scope.cancel()
        await self._server_is_tidy()

    async def _rounds(self, end: float) -> None:
        steps_of_rounds = plan(self._seed)
        for number in itertools.count(1):
            steps = next(steps_of_rounds)
            before = len(self._ledger.violations)
            await self._round(steps)
            for place in range(before, len(self._ledger.violations)):
                kinds = ", ".join(step.kind for step in steps)
                self._ledger.violations[place] = f"round {number} ({kinds}): {self._ledger.violations[place]}"
            self._tell(number, steps)
            if time.monotonic() > end or len(self._ledger.violations) >= MOST_VIOLATIONS:
                return

    async def _round(self, steps: Sequence[Step]) -> None:
        scene = self._scene
        async with anyio.create_task_group() as tasks:
            for step in steps:
                tasks.start_soon(apply, step, scene)
        self._faults.update(step.kind for step in steps)
        for publisher in scene.publishers:
            publisher.error = "not asked since"
        await scene.expect(scene.problem)
        await self._traffic()
        await self._settle()
        self._ledger.judge(scene.received, sum(KINDS[step.kind].loses for step in steps))
        for reader in scene.readers:
            reader.move()
        self._calm(calm=False)

    async def _traffic(self) -> None:
        """Wait until all publishers publish."""
        before = {publisher: publisher.published for publisher in self._scene.publishers}

        async def problem() -> str | None:
            idle = [each.name for each, published in before.items() if each.published < published + 10]
            return f"the publishers {idle} publish nothing" if idle else None

        await self._scene.expect(problem)

    async def _settle(self) -> None:
        """Let publishers pause, and every reader have everything."""
        scene = self._scene
        self._calm(calm=True)

        async def under_way() -> str | None:
            busy = [each.name for each in scene.publishers if not each.paused]
            return f"the publishers {busy} do not pause" if busy else None

        await scene.expect(under_way)
        await scene.look()
        markers = await scene.publish_markers()

        async def behind() -> str | None:
            ends = {each: max(markers[channel] for channel in each.channels) for each in scene.received}
            late = [
                f"{each} is at {each.position}, and its end is {end}"
                for each, end in ends.items()
                if each.position is None or each.position.epoch != end.epoch or each.position.seq < end.seq
            ]
            return "; ".join(late) or None

        if len(markers) == len(CHANNELS):
            await scene.expect(behind)

    def _calm(self, *, calm: bool) -> None:
        for publisher in self._scene.publishers:
            publisher.tell("pause" if calm else "go")
        for reader in self._scene.readers:
            reader.calm = calm

    def _tell(self, number: int, steps: Sequence[Step]) -> None:
        delivered = sum(received.count for received in self._scene.received)
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in self._ledger.outcomes.items())
        lags = self._scene.opened.broker.health().lags
        connections = sum(reader.connections for reader in self._scene.readers)
        self._say(
            f"round {number} ({', '.join(step.kind for step in steps)}): {outcomes}; {delivered} delivered over "
            f"{connections} connections, {lags} lags here; {self._faults.total()} faults of {len(self._faults)} kinds; "
            f"{self._ledger.unjudged} stretches not judged; {len(self._ledger.violations)} violations"
        )

    # The end

    async def _nothing_left(self, idle: Sequence[dict[str, int]]) -> None:
        """Wait until nothing is left of the readers in any process."""

        async def problem() -> str | None:
            for place, (worker, before) in enumerate(zip(self._scene.workers, idle, strict=True)):
                now = await worker.health()
                if now.get("subscriptions") or now.get("tasks", 0) > before["tasks"]:
                    return f"worker {place} is at {now}, and was at {before} before the first reader"
                if now.get("files", 0) > before["files"] + FILES_KEPT:
                    return f"worker {place} has {now['files']} files open, and had {before['files']}"
            health = self._scene.opened.broker.health()
            return f"the broker here has subscriptions: {health}" if health.subscriptions else None

        await self._scene.expect(problem)

    async def _server_is_tidy(self) -> None:
        """Look for connections of those that have ended, and for keys that would stay for ever."""
        scene = self._scene
        for worker in scene.workers:
            await in_thread(worker.stop)

        async def problem() -> str | None:
            clients = (await scene.command("CLIENT", "LIST")).decode().splitlines()
            # But this question, and a replica.
            others = [each for each in clients if "cmd=client|list" not in each and "flags=S" not in each]
            return f"connections are left: {others}" if others else None

        await scene.expect(problem)
        for name in await in_thread(scene.server.names):
            lives = await scene.command("PTTL", name)
            if not name.startswith(f"{{{PREFIX}}}:") or lives == -1:
                self._ledger.accuse(f"the key {name} is left, for {lives} ms")
