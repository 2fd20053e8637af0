"""The client for tests without an event loop: the app runs in one of its own, in another thread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Any, Self, Unpack

from anyio.from_thread import BlockingPortal, start_blocking_portal

from starlette_sse.observers import CloseReason
from starlette_sse.testing.client import RequestOptions, Response, SSETestClient, StreamOptions
from starlette_sse.testing.exceptions import StreamEndedError
from starlette_sse.testing.exchange import Head
from starlette_sse.testing.reader import Ending
from starlette_sse.testing.received import ReceivedComment, ReceivedEvent
from starlette_sse.testing.stream import EventStream

__all__ = ["BlockingEventStream", "BlockingSSETestClient"]


class BlockingSSETestClient:
    """:class:`~starlette_sse.testing.SSETestClient` for plain functions::

        with SSETestClient.blocking(app) as client:
            with client.stream("/clock") as stream:
                event = stream.next_event()

    Time is real here: a virtual clock would run on while the test's own thread computes.

    :param backend: the event loop that the app runs in, ``asyncio`` or ``trio``.
    :param backend_options: as for :func:`anyio.run`.
    """

    def __init__(self, client: SSETestClient, backend: str, backend_options: dict[str, Any] | None) -> None:
        self._client = client
        self._start_portal = partial(start_blocking_portal, backend, backend_options)
        self._stack = ExitStack()
        self._portal: BlockingPortal | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._portal = stack.enter_context(self._start_portal())
            stack.enter_context(self._portal.wrap_async_context_manager(self._client))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(exc_type, exc, traceback)

    @property
    def state(self) -> dict[str, Any]:
        """What the app's startup left for its requests."""
        return self._client.state

    @property
    def portal(self) -> BlockingPortal:
        """The way into the app's event loop; it can also call what the test needs done there.

        :raises RuntimeError: the client is not open.
        """
        if self._portal is None:
            raise RuntimeError("the client is not open; use it as in: with SSETestClient.blocking(app) as client")
        return self._portal

    def stream(self, url: str, **options: Unpack[StreamOptions]) -> BlockingEventStream:
        """Return a stream, to be opened by ``with``; parameters as :meth:`SSETestClient.stream`'s."""
        return BlockingEventStream(self._client.stream(url, **options), self.portal)

    def reconnect(self, stream: BlockingEventStream) -> BlockingEventStream:
        """Return a stream that goes on where ``stream`` was; see :meth:`SSETestClient.reconnect`."""
        return BlockingEventStream(self.portal.call(self._client.reconnect, stream.unblocked), self.portal)

    def request(self, method: str, url: str, **options: Unpack[RequestOptions]) -> Response:
        """Send a request and return the whole response; see :meth:`SSETestClient.request`."""
        return self.portal.call(partial(self._client.request, method, url, **options))

    def drain(self) -> None:
        """Shut the app's streams down; see :meth:`SSETestClient.drain`."""
        self.portal.call(self._client.drain)


class BlockingEventStream:
    """:class:`~starlette_sse.testing.EventStream` for plain functions; each method is that of the same name."""

    def __init__(self, stream: EventStream, portal: BlockingPortal) -> None:
        self.unblocked = stream
        """The stream itself, for use in the app's event loop."""
        self._portal = portal

    def __enter__(self) -> Self:
        self._portal.call(self.unblocked.open)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._portal.call(self.unblocked.__aexit__, exc_type, exc, traceback)

    @property
    def response(self) -> Head:
        return self.unblocked.response

    @property
    def events(self) -> Sequence[ReceivedEvent]:
        return self.unblocked.events

    @property
    def comments(self) -> Sequence[ReceivedComment]:
        return self.unblocked.comments

    @property
    def body(self) -> bytes:
        return self.unblocked.body

    @property
    def last_event_id(self) -> str:
        return self.unblocked.last_event_id

    @property
    def retry(self) -> int | None:
        return self.unblocked.retry

    @property
    def ending(self) -> Ending | None:
        return self.unblocked.ending

    @property
    def close_reason(self) -> CloseReason | None:
        return self.unblocked.close_reason

    def next_event(self, timeout: float | None = None) -> ReceivedEvent:
        return self._portal.call(self.unblocked.next_event, timeout)

    def next_comment(self, timeout: float | None = None) -> ReceivedComment:
        return self._portal.call(self.unblocked.next_comment, timeout)

    def __iter__(self) -> Iterator[ReceivedEvent]:
        return self

    def __next__(self) -> ReceivedEvent:
        try:
            return self.next_event()
        except StreamEndedError:
            raise StopIteration from None

    def read(self, timeout: float | None = None) -> bytes:
        return self._portal.call(self.unblocked.read, timeout)

    def closed(self, timeout: float | None = None) -> Ending:
        return self._portal.call(self.unblocked.closed, timeout)

    def expect(self, *expected: Any, timeout: float | None = None) -> None:
        self._portal.call(partial(self.unblocked.expect, *expected, timeout=timeout))

    def expect_silence(self, seconds: float) -> None:
        self._portal.call(self.unblocked.expect_silence, seconds)

    def stall(self) -> None:
        self._portal.call(self.unblocked.stall)

    def resume(self) -> None:
        self._portal.call(self.unblocked.resume)

    def disconnect(self) -> None:
        self._portal.call(self.unblocked.disconnect)

    def cut(self, at: int | None = None, timeout: float | None = None) -> None:
        self._portal.call(self.unblocked.cut, at, timeout)

    def close(self) -> None:
        self._portal.call(self.unblocked.aclose)
