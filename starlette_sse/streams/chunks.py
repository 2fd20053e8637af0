"""Handing uvicorn's transport a chunk of the body, in place of a ``send`` that would do nothing else.

``send`` costs a coroutine, a message and some questions for each frame: about a tenth of what a delivery takes with
httptools, and a third with h11. That it does nothing else is not taken for granted, but tried, once for each
function; where it does, or where that cannot be told, frames go through ``send``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from types import MethodType, SimpleNamespace
from typing import Any, Protocol

from starlette_sse.streams.servers import Transport

__all__ = ["Exchange", "chunk", "passable_exchange"]


class Flow(Protocol):
    """Whether the client keeps up."""

    write_paused: bool


class Exchange(Protocol):
    """What uvicorn knows of one request and its response."""

    disconnected: bool
    response_complete: bool
    flow: Flow
    transport: Transport


def chunk(content: bytes) -> bytes:
    """Return what RFC 9112, section 7.1, makes of a part of a body; an empty one would end the body."""
    return b"".join((b"%x\r\n" % len(content), content, b"\r\n"))


def passable_exchange(send: MethodType) -> Exchange | None:
    """Return the exchange whose transport may be given a :func:`chunk` in place of a call of uvicorn's ``send``.

    Ask once the response has started. It may be passed by as long as the response is not complete, the client is there
    and keeps up, and for a part of the body that is not empty.
    """
    exchange: Any = send.__self__
    return exchange if in_chunks(exchange) and only_writes_chunks(send.__func__) else None


def in_chunks(exchange: Any) -> bool:
    """Tell whether the body of a response that has started is sent in chunks."""
    if exchange.scope["method"] == "HEAD":
        return False
    if hasattr(exchange, "conn"):
        # h11 makes what frames the body of a response, and tells nobody which it is.
        writer = type(getattr(exchange.conn, "_writer", None))
        own = type(exchange.conn) is getattr(sys.modules.get("h11"), "Connection", None)
        return own and writer.__name__ == "ChunkedWriter"
    return getattr(exchange, "chunked_encoding", None) is True


@cache
def only_writes_chunks(send: Callable[..., Any]) -> bool:
    """Tell whether an exchange's ``send`` does with a body what is done here in its place, and nothing else.

    It is tried with an exchange that has nothing but what decides about that.
    """
    written: list[bytes] = []
    parts = [b": a\r\n\r\n", b": another, of another length\r\n\r\n"]
    try:
        stand_in = SimpleNamespace(
            chunked_encoding=True,
            conn=h11_connection(),
            disconnected=False,
            flow=SimpleNamespace(write_paused=False),
            response_complete=False,
            response_started=True,
            scope={"method": "GET"},
            transport=SimpleNamespace(write=written.append),
        )
        before = repr(stand_in)
        for part in parts:
            finish(send(stand_in, {"type": "http.response.body", "body": part, "more_body": True}))
    except Exception:  # noqa: BLE001 - it needs something else
        return False
    return written == [chunk(part) for part in parts] and repr(stand_in) == before


def finish(sending: Any) -> None:
    """Run a coroutine to its end.

    :raises RuntimeError: it waits for something.
    """
    try:
        sending.send(None)
    except StopIteration:
        return
    sending.close()
    raise RuntimeError("it waits")


def h11_connection() -> Any:
    """Return a connection of h11's on which a response in chunks has started; None if nobody uses h11."""
    h11 = sys.modules.get("h11")
    if h11 is None:
        return None
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
    connection.next_event()
    connection.send(h11.Response(status_code=200, headers=[]))
    return connection
