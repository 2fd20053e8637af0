"""What happens in a round, drawn from its seed: which streams there are, what goes wrong in them, and who comes."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Self
from urllib.parse import quote

from tests.servers.kinds import KINDS, Kind

__all__ = [
    "CLEANUP_TIMEOUT",
    "DRAIN_GRACE",
    "ENDLESS",
    "MOST_OPEN",
    "PLANNED",
    "READERS",
    "SEND_TIMEOUT",
    "Plan",
    "Script",
    "Visit",
    "Wave",
    "plan",
]

#: The app's times, in seconds.
CLEANUP_TIMEOUT, DRAIN_GRACE, SEND_TIMEOUT = 1.0, 0.5, 1.0

#: How many streams of the crowded endpoint may be open.
MOST_OPEN = 3

#: What the messages of errors begin with that are raised on purpose.
PLANNED = "planned"

#: As many events as no stream comes to.
ENDLESS = 1_000_000

#: The app; "crowded" has limits, "cut" tells no error, and "given" comes by an EndpointResponse.
ENDPOINTS = ("told", "plain", "crowded", "given", "cut", "news", "response")

#: Clients that read to the end, so that all that they get can be held against what was sent.
READERS = ("whole", "reuse", "head", "post", "chunked")

LEAVERS = ("leave", "leave", "before", "inside", "half", "stall", "slow", "pipeline", "nonsense", "partial")

#: Where something is raised: in a hook, or "at first" in events(), "late" behind an await, or "after" all events.
MOMENTS = (
    *("client_key", "authorize", "on_connect", "at first", "late", "after", "finally", "ping_message", "reauthorize"),
    *("on_error", "on_drain", "on_disconnect"),
)

SLOW = ("authorize", "on_connect", "on_drain", "on_error", "on_disconnect", "reauthorize")

#: Bytes that a stream's events have at most, for servers that buffer without a bound.
MOST_BYTES = 24_000_000

#: What most people run has the first round, which is the only one of a short run.
FIRST = "uvicorn-httptools-asyncio"

#: Uvicorn's workers share the work of what is one server here, and the clients speak no TLS.
SERVERS = sorted((kind for kind in KINDS if kind.workers == 1 and not kind.tls), key=lambda kind: kind.name != FIRST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What a stream does.

    :param shape: what the generator holds while it yields, or how it behaves.
    :param pause: seconds between two events.
    :param raises: one of the moments.
    :param http: whether that is an ``HTTPException``.
    :param slow: the hook that takes its time.
    :param cleanup: seconds that the ``finally`` takes.
    """

    shape: str = "steady"
    events: int = 3
    size: int = 10
    pause: float = 0.02
    raises: str = ""
    http: bool = False
    slow: str = ""
    cleanup: float = 0.05
    lifetime: float | None = None
    policy: str = "close"

    @property
    def query(self) -> str:
        return quote(json.dumps(asdict(self)))

    @classmethod
    def parse(cls, text: str) -> Self:
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """What one client asks for, and how it goes.

    :param at: seconds after the wave's begin.
    :param hold: seconds that it stays, if it does not read to the end.
    :param size: how many bytes it reads, sends or takes at once, as its way has it.
    :param abrupt: whether it goes by a reset.
    """

    number: int
    endpoint: str
    script: Script
    way: str
    at: float
    hold: float
    size: int
    abrupt: bool

    @property
    def names(self) -> tuple[str, str]:
        """The names of the streams that it may open."""
        return f"{self.number}", f"{self.number}b"

    def target(self, name: str) -> str:
        return f"/{self.endpoint}/{name}?script={self.script.query}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wave:
    """Clients that are there together, and what is done to all of them at a time.

    :param upset: ``close``, ``close_everywhere``, ``drain`` or ``stop``; or nothing.
    """

    visits: Sequence[Visit]
    upset: str = ""
    at: float = 0.0
    published: Sequence[tuple[float, int, int]] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """One server, and its waves; the last one stops it."""

    kind: Kind
    waves: Sequence[Wave]


def plan(seed: int, number: int) -> Plan:
    """Draw the plan of a round; in a row of them every server has its turn."""
    chance = random.Random(f"{seed} {number // len(SERVERS)}")
    kind = [SERVERS[0], *chance.sample(SERVERS[1:], len(SERVERS) - 1)][number % len(SERVERS)]
    chance = random.Random(f"{seed} {number}")
    first = Wave(visits=[visit(chance, index, endpoint, "whole") for index, endpoint in enumerate(ENDPOINTS)])
    waves = [first]
    for upset in ("", chance.choice(("close", "close_everywhere")), chance.choice(("stop", "stop", "drain"))):
        waves.append(wave(chance, 100 * len(waves), upset))
    if not kind.lifespan:
        # Nobody follows the orders to close.
        waves[2] = replace(waves[2], upset="close")
    return Plan(kind, waves)


def wave(chance: random.Random, begin: int, upset: str) -> Wave:
    visits = []
    for index in range(begin, begin + chance.randint(25, 45)):
        way = chance.choice(READERS if chance.random() < 0.4 else LEAVERS)
        visits.append(visit(chance, index, chance.choice(ENDPOINTS), way, stays=upset in ("stop", "drain")))
    published = [(chance.uniform(0.0, 1.5), chance.randint(1, 30), chance.choice((10, 1000, 30_000))) for _ in range(6)]
    return Wave(visits=visits, upset=upset, at=chance.uniform(0.1, 1.2), published=sorted(published))


def visit(chance: random.Random, number: int, endpoint: str, way: str, *, stays: bool = False) -> Visit:
    return Visit(
        number=number,
        endpoint=endpoint,
        script=script(chance, endpoint, way, stays=stays),
        way=way,
        at=chance.uniform(0.0, 0.6),
        hold=chance.choice((0.3, 6.0 if stays else 3.0) if way == "stall" else (0.0, 0.01, 0.1, 0.5, 1.0)),
        size=chance.choice((1, 20, 100, 150, 200, 300, 1000, 5000, 100_000)),
        abrupt=chance.random() < 0.5,
    )


def script(chance: random.Random, endpoint: str, way: str, *, stays: bool) -> Script:
    shape = chance.choice(("steady", "steady", "group", "shield", "stubborn", "busy", "silent", "deaf"))
    drawn = Script(
        shape=shape,
        events=chance.choice((0, 1, 3, 10, 40)),
        size=chance.choice((1, 10, 10, 1000, 70_000)),
        pause=chance.choice((0.001, 0.01, 0.05, 0.15)),
        raises=chance.choice(MOMENTS) if chance.random() < 0.35 else "",
        http=chance.random() < 0.5,
        slow=chance.choice(SLOW) if chance.random() < 0.5 else "",
        cleanup=chance.choice((0.0, 0.0, 0.05, 0.2, 5.0)) if endpoint != "plain" else 0.05,
        lifetime=chance.choice((None, None, None, 0.2, 0.7)) if endpoint != "response" else None,
        policy=chance.choice(("close", "close", "finish")),
    )
    if way == "stall":
        # So much that no buffer takes it.
        return replace(drawn, shape="busy", events=MOST_BYTES // 64_000, size=64_000, raises="", lifetime=None)
    if way not in READERS or stays:
        # Those that never wait have an end all the same.
        return replace(drawn, events=drawn.events if shape == "busy" else ENDLESS, size=min(drawn.size, 1000))
    if endpoint in ("plain", "response") and shape == "silent":
        # Nothing would end it.
        return replace(drawn, shape="steady")
    return replace(drawn, lifetime=0.7) if endpoint == "news" or shape == "silent" else drawn
