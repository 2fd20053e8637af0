"""Every contestant's name, how it is run, what it does, and what it does not do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from benchmarks.contestants import USUAL, Terms
from benchmarks.launchers import Nginx, Node, Uvicorn
from benchmarks.payload import MARK
from benchmarks.servers import Launcher, MissingPartError, Server, ServerOptions

__all__ = ["CATALOGUE", "Entry", "missing", "running", "versions"]

NO_RESUME = "no resume after a disconnect, no bound on a slow reader's queue"
NODE_LACKS = "no routing, no send timeout, no replay of what was missed, no bound on what a slow reader leaves behind"
NODE_MEMORY = "Its memory is V8's, garbage included that is not collected yet."

#: The end of the frame that our channels begin with.
OPENING = b"\n\r\n"


@dataclass(frozen=True)
class Entry:
    """A contestant as the report tells of it."""

    launcher: Launcher
    does: str
    lacks: str = ""
    greeting: bytes = MARK
    """What its stream has sent when it is ready: the mark of an event, or the end of an opening frame."""
    note: str = ""
    """What else one should know who reads its figures."""


CATALOGUE: dict[str, Entry] = {
    "ours: channel": Entry(
        Uvicorn("ours:channel"),
        "ChannelEndpoint over Broker, ids and replay, jittered pings, send timeout",
        greeting=OPENING,
    ),
    "ours: generator": Entry(
        Uvicorn("ours:generator"),
        "SSEEndpoint, events() over an asyncio.Queue, jittered pings, send timeout",
        NO_RESUME,
    ),
    "ours: response": Entry(
        Uvicorn("ours:response"), "EventSourceResponse over a generator with an asyncio.Queue, pings", NO_RESUME
    ),
    "sse-starlette": Entry(
        Uvicorn("peers:sse_starlette"), "EventSourceResponse over a generator with an asyncio.Queue, pings", NO_RESUME
    ),
    "starlette": Entry(
        Uvicorn("peers:streaming"),
        "StreamingResponse over a generator with an asyncio.Queue that yields ready bytes",
        f"no pings, no encoding, no send timeout, no end at shutdown; {NO_RESUME}",
    ),
    "starlette: by hand": Entry(
        Uvicorn("peers:endpoint"),
        "an HTTPEndpoint in Starlette's routing that does what the cheapest ASGI app does",
        "no pings, no timeouts, no ids, no end at shutdown",
    ),
    "fastapi": Entry(
        Uvicorn("fastapi_events:events"),
        "FastAPI's own EventSourceResponse over a generator with an asyncio.Queue, pings",
        NO_RESUME,
    ),
    "litestar": Entry(
        Uvicorn("litestar_channels:channels"),
        "Litestar's ServerSentEvent over its ChannelsPlugin in memory",
        "no pings, no ids, no resume by id",
    ),
    "better-sse": Entry(
        Node("better_sse", "better-sse"),
        "sessions in a channel of better-sse on Node's own HTTP server, channel.broadcast for each event, ids, pings",
        NODE_LACKS,
        note=NODE_MEMORY,
    ),
    "better-sse: batch": Entry(
        Node("better_sse", "better-sse", batch=True),
        "the same, but what is published at once is encoded once and given to each session's batch()",
        NODE_LACKS,
        note=NODE_MEMORY,
    ),
    "nchan": Entry(
        Nginx(),
        "Nchan's EventSource subscribers on nginx with one worker process, 1000 events kept, ids and replay, pings",
        "no code of an app in it: its CPU includes taking each event as an HTTP request, pipelined on one connection",
        b": hi\n\n",
        "Its connection table is made at the start, so memory for each stream leaves out about 0.4 KiB.",
    ),
    "raw: direct": Entry(
        Uvicorn("raw:direct"),
        "an ASGI app that encodes once and awaits each connection's send in turn",
        "no routing, no pings, no timeouts, no ids, no end at shutdown; one slow reader stops everybody",
    ),
    "raw: future": Entry(
        Uvicorn("raw:future"),
        "an ASGI app in which each connection's own task waits on a future and sends what has come",
        "no routing, no pings, no timeouts, no ids, no notice of a client that leaves, no end at shutdown",
    ),
    "raw: queue": Entry(
        Uvicorn("raw:queue"),
        "an ASGI app with an asyncio.Queue for each connection, encoded once",
        f"no routing, no pings, no timeouts, no notice of a client that leaves; {NO_RESUME}",
    ),
}

#: Several processes of uvicorn on one port, over one Redis.
OVER_REDIS: Mapping[str, tuple[str, str, str, bytes]] = {
    "ours": ("ours:channel", 'ChannelEndpoint over Broker("redis://..."), ids and replay, pings', "", OPENING),
    "sse-starlette": (
        "peers:sse_starlette_redis",
        "EventSourceResponse over a generator with an asyncio.Queue, fed by the process's one redis.asyncio pub/sub",
        f"nothing of what came while Redis was away; {NO_RESUME}",
        MARK,
    ),
    "litestar": (
        "litestar_channels:channels",
        "Litestar's ServerSentEvent over its ChannelsPlugin with its Redis pub/sub backend",
        "no pings, no ids, no resume by id, nothing of what came while Redis was away",
        MARK,
    ),
}

CATALOGUE |= {
    f"{name}: {workers} worker{'s' * (workers > 1)}": Entry(
        Uvicorn(factory, workers=workers, redis=True), f"{does}; processes: {workers}", lacks, greeting
    )
    for name, (factory, does, lacks, greeting) in OVER_REDIS.items()
    for workers in (1, 2, 4)
    if workers > 1 or name == "ours"
}


def running(name: str, options: ServerOptions, terms: Terms = USUAL) -> AbstractAsyncContextManager[Server]:
    """Run the contestant of that name in processes of its own.

    :raises ServerError: it does not start.
    """
    return CATALOGUE[name].launcher.launch(name, options, terms)


def missing(names: Iterable[str]) -> dict[str, str]:
    """Tell which of these cannot run here and why; those that do not run in a server always can."""
    reasons: dict[str, str] = {}
    for name in names:
        if name in CATALOGUE:
            try:
                CATALOGUE[name].launcher.prepare()
            except MissingPartError as error:
                reasons[name] = str(error)
    return reasons


def versions(names: Iterable[str]) -> dict[str, str]:
    """Return the version of every part that these run on and that is none of Python's packages."""
    return {
        part: version
        for name in names
        if name in CATALOGUE
        for part, version in CATALOGUE[name].launcher.versions().items()
    }
