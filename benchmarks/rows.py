"""What is measured: a row for each kind of work, with who takes part and what is promised."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks import encoding, flat, generators, loads
from benchmarks.catalogue import running
from benchmarks.contestants import USUAL, Terms
from benchmarks.progress import Progress
from benchmarks.results import Metrics, Result, Run, Target
from benchmarks.servers import Server, ServerOptions

__all__ = ["ROWS", "Row", "Scale", "measure"]

UNITS = {
    "cpu": "CPU us",
    "wall": "wall us",
    "p50": "p50 ms",
    "p99": "p99 ms",
    "connect": "connect CPU us",
    "leave": "leave CPU us",
    "memory": "KiB/stream",
    "pings": "pings/stream",
    "idle": "CPU us/stream/s",
    "seconds": "seconds",
    "grown": "memory +MiB",
    "drained": "drained in s",
    "redis": "Redis's CPU us",
}


#: What a process has open besides its connections.
SPARE_FILES = 100


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    connections: int = 1000
    generators: int = 500
    rounds: int = 30
    bursts: int = 4
    visits: int = 1000
    idle: int = 2000
    idle_seconds: float = 3.0
    events: int = 20_000
    turns: int = 5
    missed: int = 200
    stalled: int = 20
    large: int = 100
    channels: int = 100_000
    subscribers: int = 10_000
    crowd: int = 19_900
    warm_up: int = 100
    few: int = 100
    many: int = 10_000
    many_rounds: int = 5

    @classmethod
    def quick(cls) -> Scale:
        """Return what is enough for a first impression."""
        return cls(
            connections=500, generators=300, rounds=15, bursts=3, visits=300, idle=500, idle_seconds=2.2, turns=2
        )

    @classmethod
    def tiny(cls) -> Scale:
        """Return just enough to see that everything works."""
        return cls(5, 5, 2, 1, 5, 5, 0.1, 50, 1, 3, 1, 2, 10, 10, 5, 5, 3, 10, 1)


@dataclass(frozen=True)
class Row:
    """One kind of work."""

    name: str
    title: str
    headline: str
    contestants: Sequence[str]
    targets: Sequence[Target] = ()
    load: Callable[[Server, Scale], Awaitable[Metrics]] | None = None
    """What is done to each contestant's server; None for work without a server."""
    in_process: Callable[[list[str], Scale], Run] | None = None
    terms: Terms = USUAL
    extra: bool = False
    """Whether it must be asked for by name."""
    more: Sequence[str] = ()
    """Contestants that ``--quick`` leaves out."""
    slow: bool = False
    """Whether ``--quick`` leaves out all of it, unless it is asked for by name."""
    connections: Callable[[Scale], int] = lambda scale: scale.connections
    """How many are open at once, at most."""
    units: dict[str, str] = field(default_factory=dict)

    def unit(self, metric: str) -> str:
        """Return what a metric's figures mean."""
        return self.units.get(metric) or UNITS.get(metric, f"{metric}, CPU us")

    def files(self, scale: Scale) -> int:
        """Return how many files a process has open for it, at most."""
        return 0 if self.load is None else self.connections(scale) + SPARE_FILES

    def run(self, contestants: list[str], scale: Scale, options: ServerOptions, progress: Progress) -> Run:
        """Measure every contestant once, one after the other."""
        if self.in_process is not None:
            progress.step(self.name)
            return self.in_process(contestants, scale)
        with asyncio.Runner(loop_factory=fast_loop()) as runner:
            return runner.run(self._run_servers(contestants, scale, options, progress))

    async def _run_servers(
        self, contestants: list[str], scale: Scale, options: ServerOptions, progress: Progress
    ) -> Run:
        assert self.load is not None
        taken: dict[str, Metrics] = {}
        for name in contestants:
            progress.step(f"{self.name}: {name}")
            async with running(name, options, self.terms) as server:
                taken[name] = await self.load(server, scale)
        return taken


def fast_loop() -> Any:
    """Return what makes the clients' event loop; they should never be what is waited for."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def measure(
    row: Row, contestants: list[str], runs: int, scale: Scale, options: ServerOptions, progress: Progress
) -> Result:
    """Measure a row: in each run every contestant once, and the next run begins with the next contestant."""
    taken: list[Run] = []
    for number in range(runs):
        turn = number % len(contestants)
        run = row.run(contestants[turn:] + contestants[:turn], scale, options, progress)
        taken.append({name: run[name] for name in contestants})
    return Result(taken)


def deliver_one(server: Server, scale: Scale) -> Awaitable[Metrics]:
    return loads.delivering(server, connections=scale.connections, batch=1, rounds=scale.rounds)


def deliver_to_few(server: Server, scale: Scale) -> Awaitable[Metrics]:
    return loads.delivering(server, connections=scale.few, batch=1, rounds=10 * scale.rounds)


def deliver_to_many(server: Server, scale: Scale) -> Awaitable[Metrics]:
    return loads.delivering(server, connections=scale.many, batch=1, rounds=scale.many_rounds, warm_up=1)


def deliver_burst(server: Server, scale: Scale) -> Awaitable[Metrics]:
    return loads.delivering(server, connections=scale.connections, batch=50, rounds=scale.bursts, warm_up=1)


def deliver_queued(server: Server, scale: Scale) -> Awaitable[Metrics]:
    return loads.delivering(server, connections=scale.generators, batch=1, rounds=2 * scale.rounds)


def connect(server: Server, scale: Scale) -> Awaitable[Metrics]:
    return loads.connecting(server, connections=scale.visits, warm_up=scale.warm_up)


def idle(server: Server, scale: Scale) -> Awaitable[Metrics]:
    return loads.idling(server, connections=scale.idle, seconds=scale.idle_seconds, warm_up=scale.warm_up)


def resume(server: Server, scale: Scale) -> Awaitable[Metrics]:
    return loads.resuming(server, connections=scale.connections, missed=scale.missed)


def stall(server: Server, scale: Scale) -> Awaitable[Metrics]:
    return loads.slowed(server, readers=5 * scale.stalled, stalled=scale.stalled, events=scale.large)


def crowd(server: Server, scale: Scale) -> Awaitable[Metrics]:
    return loads.crowding(server, connections=scale.crowd)


def keep_flat(contestants: list[str], scale: Scale) -> Run:
    return flat.compare(contestants, scale.channels, scale.subscribers)


ENCODINGS = {"small": "a small event", "made": "a small event, made and encoded", "lines": "13 KB of lines"}


def encode(contestants: list[str], scale: Scale) -> Run:
    """Give both sides in the same turns; theirs as a multiple of ours."""
    run: dict[str, dict[str, float]] = {"ours: event": {}, "sse-starlette": {}}
    for metric, work in ENCODINGS.items():
        mine, others = encoding.cpu(work, scale.turns)
        run["ours: event"][metric], run["sse-starlette"][metric] = mine * 1e6, others * 1e6
    return run


def generate(contestants: list[str], scale: Scale) -> Run:
    return generators.compare(contestants, scale.events, scale.turns)


PEERS = ("sse-starlette", "fastapi", "litestar")

#: Those that are no ASGI apps.
OTHERS = ("better-sse", "nchan")

ROWS: Sequence[Row] = (
    Row(
        "generator",
        "one generator, no network: CPU us per event",
        "made",
        ("ours: generator", "ours: response", "sse-starlette", "raw: loop"),
        (Target("made", "ours: generator", "sse-starlette", 1 / 4, 1 / 6),),
        in_process=generate,
        units={"made": "event made", "mapping": "mapping", "same": "same event"},
    ),
    Row(
        "encoding",
        "encoding one event: CPU us",
        "small",
        ("ours: event", "sse-starlette"),
        (
            Target("small", "ours: event", "sse-starlette", 1 / 4, 1 / 6),
            Target("lines", "ours: event", "sse-starlette", 1 / 6, 1 / 10),
        ),
        in_process=encode,
        units={"small": "small", "made": "made + small", "lines": "13 KB of lines"},
    ),
    Row(
        "queued",
        "a generator per connection fed by a queue: server CPU per delivery",
        "cpu",
        ("ours: generator", "ours: response", "sse-starlette"),
        (Target("cpu", "ours: generator", "sse-starlette", 1 / 1.4, 1 / 2),),
        load=deliver_queued,
        more=("starlette", "fastapi", "raw: queue"),
    ),
    Row(
        "connect",
        "clients that connect, read the first event and leave: server CPU per client",
        "cpu",
        ("ours: generator", "ours: channel", "starlette", "sse-starlette"),
        (
            Target("cpu", "ours: generator", "starlette", 1.2, 0.8),
            Target("cpu", "ours: channel", "starlette", 1.2, 0.8),
        ),
        load=connect,
        more=("ours: response", "fastapi", "litestar", "starlette: by hand", "raw: direct", *OTHERS),
    ),
    Row(
        "idle",
        "an idle stream with pings: resident memory",
        "memory",
        ("ours: channel", "ours: generator", "sse-starlette", "starlette"),
        (
            Target("memory", "ours: channel", None, 21, 13),
            Target("memory", "ours: generator", None, 27, 18),
        ),
        load=idle,
        terms=Terms(ping=1.0, silent=True),
        connections=lambda scale: scale.idle,
        more=("ours: response", "fastapi", "litestar", "starlette: by hand", "raw: direct", *OTHERS),
    ),
    Row(
        "fan-out",
        "one event to every connection: server CPU per delivery",
        "cpu",
        ("ours: channel", "sse-starlette", "raw: direct", "raw: future"),
        (
            Target("cpu", "ours: channel", "sse-starlette", 1 / 2.3, 1 / 3.5),
            Target("cpu", "ours: channel", "raw: direct", 1.8, 1.2),
        ),
        load=deliver_one,
        more=("raw: queue", "starlette", *PEERS[1:], *OTHERS),
    ),
    Row(
        "fan-out 100",
        "one event to each of 100 connections: server CPU per delivery",
        "cpu",
        ("ours: channel", "sse-starlette", "raw: direct", "raw: future"),
        load=deliver_to_few,
        more=OTHERS,
        slow=True,
    ),
    Row(
        "fan-out 10000",
        "one event to each of 10,000 connections: server CPU per delivery",
        "cpu",
        ("ours: channel", "sse-starlette", "raw: direct", "raw: future"),
        load=deliver_to_many,
        more=OTHERS,
        slow=True,
        connections=lambda scale: scale.many,
    ),
    Row(
        "workers",
        "one event through Redis to every connection of several processes: their CPU per delivery",
        "cpu",
        ("ours: 2 workers", "sse-starlette: 2 workers"),
        load=deliver_one,
        more=(
            "ours: 1 worker",
            "ours: 4 workers",
            "sse-starlette: 4 workers",
            "litestar: 2 workers",
            "litestar: 4 workers",
        ),
        slow=True,
    ),
    Row(
        "burst",
        "50 events at once to every connection: time per delivery",
        "wall",
        ("ours: channel", "sse-starlette", "raw: future"),
        (
            Target("wall", "ours: channel", "sse-starlette", 1 / 15, 1 / 30),
            Target("cpu", "ours: channel", "sse-starlette", 1 / 15, 1 / 30),
        ),
        load=deliver_burst,
        more=("fastapi", "litestar", "better-sse", "better-sse: batch", "nchan"),
    ),
    Row(
        "replay",
        "clients that come back at once, each having missed 200 events: server CPU per event, with the connecting",
        "cpu",
        ("ours: channel",),
        load=resume,
    ),
    Row(
        "slow readers",
        "events of 64 KiB to five readers for each that has stopped reading: server CPU per delivery",
        "cpu",
        ("ours: channel", "sse-starlette"),
        load=stall,
    ),
    Row(
        "flat",
        "publishing to one channel with one reader, while the broker holds others: CPU us per event",
        "publish",
        tuple(flat.SITUATIONS),
        in_process=keep_flat,
        units={"publish": "publish", "subscribe": "subscribe"},
    ),
    Row(
        "crowd",
        "as many connections as a process of 20,000 files holds: server CPU per delivery, and a drain",
        "cpu",
        ("ours: channel",),
        load=crowd,
        extra=True,
        connections=lambda scale: scale.crowd,
    ),
)
