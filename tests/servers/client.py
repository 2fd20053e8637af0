"""A client on a plain socket: it sees what really arrives, and when, and leaves the way a test wants."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import struct
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from starlette_sse.decoding import EventDecoder, MessageEvent

__all__ = ["EventStream", "ended_whole", "get_json"]

PATIENCE = 10.0


class EventStream:
    """One open stream; every read has a deadline, and a body that was cut raises :exc:`http.client.IncompleteRead`.

    :param tls: what to speak TLS by.
    """

    def __init__(
        self,
        port: int,
        path: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._connection = connect(port, PATIENCE, tls)
        self._connection.request(method, path, body, {"Accept": "text/event-stream", **(headers or {})})
        assert isinstance(self._connection.sock, socket.socket)
        self._sock = self._connection.sock
        self._response = self._connection.getresponse()
        self._decoder = EventDecoder()
        self._events: list[MessageEvent] = []
        self.status = self._response.status
        self.headers = self._response.headers
        self.received = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.leave()

    @property
    def retry(self) -> int | None:
        return self._decoder.retry

    def next(self) -> MessageEvent:
        """Return the next event as soon as it is here."""
        while not self._events:
            if not self._read():
                raise EOFError("the stream ended")
        return self._events.pop(0)

    def rest(self) -> list[MessageEvent]:
        """Read to the end of the body and return the events that had not been taken."""
        while self._read():
            pass
        events, self._events = self._events, []
        return events

    def leave(self) -> None:
        """Close the connection as a browser's tab does."""
        self._response.close()
        self._connection.close()

    def reset(self) -> None:
        """Close the connection by a reset, as a crashing client does."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.leave()

    def _read(self) -> bytes:
        chunk = self._response.read1(65536)
        self.received += chunk
        self._events += self._decoder.feed(chunk)
        return chunk


def ended_whole(stream: EventStream) -> bool:
    """Read a stream to its end, where no event is left, and tell whether its body was complete."""
    try:
        assert stream.rest() == []
    except (http.client.IncompleteRead, ConnectionError):
        return False
    return True


def get_json(port: int, path: str, timeout: float = PATIENCE, tls: ssl.SSLContext | None = None) -> Any:
    """Return the JSON that a GET of ``path`` answers with."""
    connection = connect(port, timeout, tls)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        response = connection.getresponse()
        body = response.read()
        assert response.status == 200, (response.status, body)
        return json.loads(body)
    finally:
        connection.close()


def connect(port: int, timeout: float, tls: ssl.SSLContext | None) -> http.client.HTTPConnection:
    if tls is None:
        return http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    return http.client.HTTPSConnection("127.0.0.1", port, timeout=timeout, context=tls)
