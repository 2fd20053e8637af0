"""What is open: a registry of this worker's streams, and the means to break one."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Sequence
from typing import Any
from weakref import WeakValueDictionary

import anyio
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from starlette_sse import CloseReason, OpenStream, SSEEndpoint, open_streams
from starlette_sse.observers import Observer, StreamFacts, StructlogObserver

__all__ = ["REGISTRY", "Gate", "Inspected", "Registry"]

#: How many ends are told.
ENDS = 12


class Gate:
    """Stands before a stream's ``send`` and can hold it up, which is all that a stream sees of a client that stalls."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._released: anyio.Event | None = None

    @property
    def shut(self) -> bool:
        return self._released is not None

    async def __call__(self, message: Message) -> None:
        if self._released is not None:
            await self._released.wait()
        await self._send(message)

    def hold(self) -> None:
        self._released = self._released or anyio.Event()

    def release(self) -> None:
        released, self._released = self._released, None
        if released is not None:
            released.set()


class Registry(Observer):
    """Knows this worker's endpoints and the last ends, and turns what happens into lines for the page's log."""

    def __init__(self) -> None:
        self.endpoints: WeakValueDictionary[str, Inspected] = WeakValueDictionary()
        self._ends: deque[dict[str, Any]] = deque(maxlen=ENDS)
        self._lines: deque[dict[str, Any]] = deque(maxlen=500)
        self._news = anyio.Event()

    def opened(self, stream: StreamFacts) -> None:
        self._note("stream.opened", stream)

    def closed(self, stream: StreamFacts, reason: CloseReason, error: BaseException | None) -> None:
        end = {"endpoint": stream.identity.endpoint, "events": stream.events, "bytes": stream.bytes_sent}
        end |= {"age": round(stream.duration, 1), "reason": reason.value, "ended": round(time.time(), 3)}
        self._ends.append(end)
        self._note(
            "stream.closed", stream, reason=reason.value, duration=round(stream.duration, 3), events=stream.events
        )

    def failed(self, stream: StreamFacts, error: BaseException, *, during: str, propagates: bool) -> None:
        self._note("stream.failed", stream, during=during, error=repr(error))

    def rejected(self, endpoint: str, path: str, reason: str) -> None:
        self._line("stream.rejected", endpoint=endpoint, reason=reason)

    def lagged(self, channels: Sequence[str], policy: str) -> None:
        self._line("subscription.lagged", channels=len(channels), policy=policy)

    def reset(self, channels: Sequence[str], reason: str) -> None:
        self._line("subscription.reset", channels=len(channels), reason=reason)

    def backend_lost(self, error: BaseException) -> None:
        self._line("broker.lost", error=f"{type(error).__name__}: {error}")

    def backend_back(self, outage: float) -> None:
        self._line("broker.recovered", outage=round(outage, 3))

    def report(self) -> dict[str, Any]:
        """Return the open streams and the last ends."""
        return {"pid": os.getpid(), "open": [self._row(stream) for stream in open_streams()], "ends": [*self._ends]}

    async def line(self) -> dict[str, Any]:
        """Wait for the log's next line and return it; it stays the next until :meth:`done_with_line`."""
        while not self._lines:
            self._news = anyio.Event()
            await self._news.wait()
        return self._lines[0]

    def done_with_line(self) -> None:
        """Go on to the next line."""
        self._lines.popleft()

    def _row(self, stream: OpenStream) -> dict[str, Any]:
        endpoint = self.endpoints.get(stream.connection_id)
        return {
            "id": stream.connection_id,
            "endpoint": stream.endpoint,
            "age": round(time.time() - stream.since.timestamp(), 1),
            "events": stream.events,
            "bytes": stream.bytes_sent,
            "lag": round(stream.lag, 1),
            **({} if endpoint is None else endpoint.particulars()),
        }

    def _note(self, event: str, stream: StreamFacts, **facts: Any) -> None:
        self._line(event, endpoint=stream.identity.endpoint, connection_id=stream.identity.connection_id, **facts)

    def _line(self, event: str, **facts: Any) -> None:
        self._lines.append({"event": event, "facts": facts})
        self._news.set()


REGISTRY = Registry()


class Inspected(SSEEndpoint):
    """An endpoint whose streams the inspector lists and can break."""

    retry = 1000
    send_timeout = 10.0
    observers = (StructlogObserver(), REGISTRY)

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.gate = Gate(send)
        super().__init__(scope, receive, self.gate)
        REGISTRY.endpoints[self.connection_id] = self

    def particulars(self) -> dict[str, Any]:
        """Return what the inspector shows of this stream besides its figures."""
        return {"client": Request(self.scope).query_params.get("client", "")[:20], "stalled": self.gate.shut}
