"""Every contestant's name, where it is made, and what it does not do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module

from benchmarks.contestants.contestant import Contestant, Terms
from benchmarks.payload import MARK

__all__ = ["CATALOGUE", "Entry", "build"]

NO_RESUME = "no resume after a disconnect, no bound on a slow reader's queue"


@dataclass(frozen=True)
class Entry:
    """A contestant as the report tells of it."""

    factory: str
    """``module:function`` below this package."""
    does: str
    lacks: str
    greeting: bytes = MARK
    """What its stream has sent when it is ready: the mark of an event, or the end of an opening frame."""


CATALOGUE: Mapping[str, Entry] = {
    "ours: channel": Entry(
        "ours:channel", "ChannelEndpoint over Broker, ids and replay, jittered pings, send timeout", "", b"\n\r\n"
    ),
    "ours: generator": Entry(
        "ours:generator", "SSEEndpoint, events() over an asyncio.Queue, jittered pings, send timeout", NO_RESUME
    ),
    "ours: response": Entry(
        "ours:response", "EventSourceResponse over a generator with an asyncio.Queue, pings", NO_RESUME
    ),
    "sse-starlette": Entry(
        "peers:sse_starlette", "EventSourceResponse over a generator with an asyncio.Queue, pings", NO_RESUME
    ),
    "starlette": Entry(
        "peers:streaming",
        "StreamingResponse over a generator with an asyncio.Queue that yields ready bytes",
        f"no pings, no encoding, no send timeout, no end at shutdown; {NO_RESUME}",
    ),
    "fastapi": Entry(
        "fastapi_events:events",
        "FastAPI's own EventSourceResponse over a generator with an asyncio.Queue, pings",
        NO_RESUME,
    ),
    "litestar": Entry(
        "litestar_channels:channels",
        "Litestar's ServerSentEvent over its ChannelsPlugin in memory",
        "no pings, no ids, no resume by id",
    ),
    "raw: direct": Entry(
        "raw:direct",
        "an ASGI app that encodes once and awaits each connection's send in turn",
        "no routing, no pings, no timeouts, no ids, no end at shutdown; one slow reader stops everybody",
    ),
    "raw: future": Entry(
        "raw:future",
        "an ASGI app in which each connection's own task waits on a future and sends what has come",
        "no routing, no pings, no timeouts, no ids, no notice of a client that leaves, no end at shutdown",
    ),
    "raw: queue": Entry(
        "raw:queue",
        "an ASGI app with an asyncio.Queue for each connection, encoded once",
        f"no routing, no pings, no timeouts, no notice of a client that leaves; {NO_RESUME}",
    ),
}


def build(name: str, terms: Terms) -> Contestant:
    """Make the contestant of that name; imports what it needs."""
    module, _, function = CATALOGUE[name].factory.partition(":")
    made: Contestant = getattr(import_module(f"benchmarks.contestants.{module}"), function)(terms)
    return made
