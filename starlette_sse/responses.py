"""``EventSourceResponse``: a function's or FastAPI's stream, over the driver that endpoints use.

It takes the place of sse-starlette's class of the same name and sends just what it is given.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, NoReturn

import anyio
from starlette.background import BackgroundTask
from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from starlette_sse.deadlines import StreamSettings
from starlette_sse.draining import domain_of
from starlette_sse.events import ServerSentEvent, as_frame
from starlette_sse.exceptions import ConfigurationError, SendTimeoutError
from starlette_sse.fields import SEPARATORS
from starlette_sse.headers import is_http_1
from starlette_sse.observers import CloseReason, Observer, StreamIdentity, StructlogObserver
from starlette_sse.streams import Stream
from starlette_sse.threads import as_async_iterator

__all__ = ["EventSourceResponse"]


class EventSourceResponse(Response):
    """A response that streams events; parameters and meaning are sse-starlette's.

    :param content: an async iterable, or a sync iterable, which runs in worker threads. It yields a
        :class:`ServerSentEvent`, a mapping of its fields, ``bytes`` as a ready frame, or anything else as the data.
    :param headers: response headers.
    :param media_type: the content type; None for ``text/event-stream``.
    :param background: runs after the response.
    :param ping: seconds between pings, sent whether the stream is idle or not; 0 for none, None for 15.
    :param sep: the stream's line end, CR LF if not given.
    :param ping_message_factory: makes the ping; the default is a comment with the time.
    :param data_sender_callable: a coroutine function that runs beside the stream, such as one that feeds its queue.
    :param send_timeout: seconds that one send may take; None: any time.
    :param client_close_handler_callable: awaited with the ``http.disconnect`` message once, whatever ended the stream.
    :param shutdown_event: set when the server shuts down, so that the content can say farewell.
    :param shutdown_grace_period: seconds that it then has to end by itself.
    :param cleanup_timeout: seconds for the content's ``finally``, and then for the close handler; None: any time.
    :raises ConfigurationError: a parameter cannot work; it is a :exc:`ValueError`.
    :raises TypeError: ``ping`` is not a number.
    """

    DEFAULT_PING_INTERVAL = 15
    DEFAULT_SEPARATOR = "\r\n"
    DEFAULT_CLEANUP_TIMEOUT = 30.0

    media_type = "text/event-stream"
    observers: ClassVar[Sequence[Observer]] = (StructlogObserver(),)

    def __init__(
        self,
        content: AsyncIterable[Any] | Iterable[Any],
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = "text/event-stream",
        background: BackgroundTask | None = None,
        ping: float | None = None,
        sep: str | None = None,
        ping_message_factory: Callable[[], ServerSentEvent] | None = None,
        data_sender_callable: Callable[[], Awaitable[None]] | None = None,
        send_timeout: float | None = None,
        client_close_handler_callable: Callable[[Message], Awaitable[None]] | None = None,
        shutdown_event: anyio.Event | None = None,
        shutdown_grace_period: float = 0,
        cleanup_timeout: float | None = DEFAULT_CLEANUP_TIMEOUT,
    ) -> None:
        if sep is not None and sep not in SEPARATORS:
            raise ConfigurationError(f"sep must be one of '\\r\\n', '\\n', '\\r', not {sep!r}")
        if shutdown_grace_period < 0:
            raise ConfigurationError(f"shutdown_grace_period must be >= 0 seconds, not {shutdown_grace_period}")
        if cleanup_timeout is not None and cleanup_timeout < 0:
            raise ConfigurationError(f"cleanup_timeout must be >= 0 seconds or None, not {cleanup_timeout}")
        if send_timeout is not None and send_timeout <= 0:
            raise ConfigurationError(f"send_timeout must be > 0 seconds or None, not {send_timeout}")
        self.body_iterator = as_async_iterator(content, "content")
        self.status_code = status_code
        self.media_type = media_type or self.media_type
        self.background = background
        self.sep = sep or self.DEFAULT_SEPARATOR
        self.ping_interval = self.DEFAULT_PING_INTERVAL if ping is None else ping
        self.ping_message_factory = ping_message_factory
        self.data_sender_callable = data_sender_callable
        self.send_timeout = send_timeout
        self.client_close_handler_callable = client_close_handler_callable
        self.active = True
        self._shutdown_event = shutdown_event
        self._shutdown_grace_period = shutdown_grace_period
        self._cleanup_timeout = cleanup_timeout
        merged = MutableHeaders(headers=headers or {})
        merged.setdefault("Cache-Control", "no-store")
        merged["X-Accel-Buffering"] = "no"
        self.init_headers(merged)

    @property
    def ping_interval(self) -> float:
        """Seconds between pings, 0 for none."""
        return self._ping_interval

    @ping_interval.setter
    def ping_interval(self, value: float) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"ping interval must be int or float, not {type(value).__name__}")
        if not value >= 0:
            raise ConfigurationError(f"ping interval must be >= 0 seconds (0 disables ping), not {value}")
        self._ping_interval = value

    def enable_compression(self, force: bool = False) -> NoReturn:
        """Refuse: an event must leave when it is ready.

        :raises NotImplementedError: always.
        """
        raise NotImplementedError("Compression is not supported for SSE streams.")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request."""
        start = {"type": "http.response.start", "status": self.status_code, "headers": self._headers_for(scope)}
        if scope["type"] == "websocket":
            send = denying(send)
        if scope.get("method") == "HEAD":
            with anyio.fail_after(self.send_timeout):
                await send(start)
                await send({"type": "http.response.body", "body": b""})
        else:
            await self._stream(scope, receive, send, start)
        if self.background is not None:
            await self.background()

    async def _stream(self, scope: Scope, receive: Receive, send: Send, start: Message) -> None:
        stream = Stream(
            ResponseHooks(self),
            StreamIdentity(secrets.token_hex(8), self._name_for(scope), scope.get("path", "")),
            self._settings(),
            receive,
            send,
            domain=domain_of(scope),
            observers=self.observers,
            encode=self._encode,
        )
        try:
            await stream.run(start, b"", events=lambda: self.body_iterator, companion=self.data_sender_callable)
        finally:
            self.active = False
        if stream.reason is CloseReason.SEND_TIMEOUT:
            raise SendTimeoutError(f"the client read nothing for send_timeout = {self.send_timeout} s")

    def _settings(self) -> StreamSettings:
        return StreamSettings(
            ping_interval=self._ping_interval or None,
            ping_only_when_idle=False,
            send_timeout=self.send_timeout,
            cleanup_timeout=self._cleanup_timeout,
            drain_policy="finish" if self._shutdown_grace_period else "close",
            drain_grace=self._shutdown_grace_period or 5.0,
        )

    def _headers_for(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        connection = [(b"connection", b"keep-alive")] if is_http_1(scope) else []
        return [header for header in self.raw_headers if header[0] != b"connection"] + connection

    def _name_for(self, scope: Scope) -> str:
        return getattr(scope.get("endpoint"), "__qualname__", type(self).__qualname__)

    def _encode(self, item: Any) -> bytes:
        return as_frame(item, self.sep)


class ResponseHooks:
    """Answers what a stream asks by the callables of its response."""

    __slots__ = ("_response",)

    def __init__(self, response: EventSourceResponse) -> None:
        self._response = response

    async def ping_frame(self) -> bytes:
        factory = self._response.ping_message_factory
        ping = factory() if factory else ServerSentEvent(comment=f"ping - {datetime.now(UTC)}")
        return as_frame(ping, self._response.sep)

    async def last_frame(self, reason: CloseReason, error: BaseException | None) -> bytes | None:
        return None if reason is CloseReason.ERROR else b""

    async def reauthorize(self) -> None:
        """A response has no authorization of its own."""

    def drain_begins(self) -> None:
        event = self._response._shutdown_event  # noqa: SLF001 - this class is the response's other half
        if event is not None:
            event.set()

    async def stream_closed(self, reason: CloseReason) -> None:
        self._response.active = False
        handler = self._response.client_close_handler_callable
        if handler is not None:
            await handler({"type": "http.disconnect"})


def denying(send: Send) -> Send:
    """Return a ``send`` that turns a response into a websocket's denial (ASGI's denial response extension)."""

    async def deny(message: Message) -> None:
        await send({**message, "type": "websocket." + message["type"]})

    return deny
