"""``EventSourceResponse``: a function's or FastAPI's stream, over the driver that endpoints use.

It takes the place of sse-starlette's class of the same name and sends just what it is given.
"""

from __future__ import annotations

import inspect
import secrets
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, NoReturn

import anyio
from starlette.background import BackgroundTask
from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from starlette_sse.attributes import check_callables, check_encodable_headers, check_number, check_settable, is_kind
from starlette_sse.bodies import has_body
from starlette_sse.draining import domain_of
from starlette_sse.events import ServerSentEvent, frame_encoder
from starlette_sse.events.fields import SEPARATORS
from starlette_sse.exceptions import ConfigurationError, SendTimeoutError
from starlette_sse.headers import for_protocol
from starlette_sse.iterators import as_async_iterable, as_async_iterator
from starlette_sse.observers import CloseReason, Observer, StreamIdentity, StructlogObserver, check_observers
from starlette_sse.streams import Stream, StreamSettings

__all__ = ["EventSourceResponse"]

#: Methods of sse-starlette's response that have no counterpart here.
NEVER_CALLED = {
    "_listen_for_disconnect",
    "_listen_for_exit_signal",
    "_listen_for_exit_signal_with_grace",
    "_ping",
    "_send_with_timeout",
    "_stream_response",
}


class EventSourceResponse(Response):
    """A response that streams events; parameters and meaning are sse-starlette's.

    :param content: an async iterable, or a sync iterable, which runs in worker threads. It yields a
        :class:`ServerSentEvent`, a mapping of its fields, ``bytes`` as a ready frame, or anything else as the data.
        However the stream ends, it is closed.
    :param headers: response headers; ``Connection`` and ``X-Accel-Buffering`` are the response's own.
    :param media_type: the content type.
    :param background: runs after a response that no exception ended.
    :param ping: seconds between pings, sent whether the stream is idle or not; 0 for none, None for 15.
    :param sep: the stream's line end, CR LF if not given.
    :param ping_message_factory: makes the ping; the default is a comment with the time.
    :param data_sender_callable: a coroutine function that runs beside the stream, such as one that feeds its queue; it
        is cancelled when the stream ends.
    :param send_timeout: seconds that one send may take; None: any time.
    :param client_close_handler_callable: a coroutine function, called with the ``http.disconnect`` message once,
        whatever ended the stream, after ``content`` was closed.
    :param shutdown_event: set when the server shuts down, so that the content can say farewell.
    :param shutdown_grace_period: seconds that it then has to end by itself.
    :param cleanup_timeout: seconds for the content's ``finally``, and then for the close handler; None: any time.
    :raises ConfigurationError: a parameter cannot work; it is a :exc:`ValueError`.
    :raises TypeError: a time is not a number, or a callable cannot be called.

    Awaiting the response raises what ended the stream, bare: what ``content``, ``data_sender_callable`` or
    ``ping_message_factory`` raised, or :exc:`SendTimeoutError`. If ``content`` is async and raises before it waits for
    anything, nothing was sent yet, and the app's exception handlers answer.
    """

    DEFAULT_PING_INTERVAL = 15
    DEFAULT_SEPARATOR = "\r\n"
    DEFAULT_CLEANUP_TIMEOUT = 30.0

    media_type = "text/event-stream"
    observers: ClassVar[Sequence[Observer]] = (StructlogObserver(),)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = cls.__mro__[: cls.__mro__.index(EventSourceResponse)]
        for name in sorted(NEVER_CALLED):
            if any(inspect.isroutine(vars(kind).get(name)) for kind in own):
                raise ConfigurationError(
                    f"{cls.__qualname__}.{name} is a method of sse-starlette's, which nothing here would call; wrap "
                    "__call__ or the content, or write an SSEEndpoint, which has hooks for all of it; or name it "
                    "otherwise, if it is your own"
                )
        if not hasattr(cls.observers, "__get__"):
            check_observers(f"{cls.__qualname__}.observers", cls.observers)

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
        check_times(shutdown_grace_period, cleanup_timeout, send_timeout)
        check_encodable_headers(headers)
        check_callables(
            ping_message_factory=ping_message_factory,
            data_sender_callable=data_sender_callable,
            client_close_handler_callable=client_close_handler_callable,
        )
        if is_kind(inspect.iscoroutinefunction, ping_message_factory):
            raise ConfigurationError("ping_message_factory must be a plain function: a ping does not wait for anything")
        check_settable("shutdown_event", shutdown_event)
        self.body_iterator: AsyncIterable[Any] = as_async_iterable(content, "content")
        self.status_code = status_code
        self.media_type = self.media_type if media_type is None else media_type
        self.background = background
        self.sep: str = sep or self.DEFAULT_SEPARATOR
        self.ping_interval = self.DEFAULT_PING_INTERVAL if ping is None else ping
        self.ping_message_factory = ping_message_factory
        self.data_sender_callable: Callable[[], Awaitable[None]] | None = (
            None if data_sender_callable is None else awaitable(data_sender_callable)
        )
        self.send_timeout = send_timeout
        self.client_close_handler_callable = client_close_handler_callable
        self._shutdown_event = shutdown_event
        self._shutdown_grace_period = shutdown_grace_period
        self._cleanup_timeout = cleanup_timeout
        self._stream: Stream | None = None
        self._active = True
        merged = MutableHeaders()
        merged.update(headers or {})
        merged.setdefault("Cache-Control", "no-store")
        merged["Connection"] = "keep-alive"
        merged["X-Accel-Buffering"] = "no"
        self.init_headers(merged)

    @property
    def ping_interval(self) -> float:
        """Seconds between pings, 0 for none; what counts is its value when the response is called."""
        return self._ping_interval

    @ping_interval.setter
    def ping_interval(self, value: float) -> None:
        check_number("ping interval", value)
        if not value >= 0:
            raise ConfigurationError(f"ping interval must be >= 0 seconds (0 disables ping), not {value}")
        self._ping_interval = value

    @property
    def active(self) -> bool:
        """False once the stream has ended; set it to False to end the stream from the app's side."""
        return self._active if self._stream is None else self._stream.reason is None

    @active.setter
    def active(self, value: bool) -> None:
        self._active = value
        if not value and self._stream is not None:
            self._stream.end(CloseReason.CLOSED)

    def enable_compression(self, force: bool = False) -> NoReturn:
        """Refuse: an event must leave when it is ready.

        :raises NotImplementedError: always.
        """
        raise NotImplementedError("Compression is not supported for SSE streams.")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, once.

        :raises ConfigurationError: the response has answered a request before.
        """
        headers = for_protocol(scope, self.raw_headers)
        start = {"type": "http.response.start", "status": self.status_code, "headers": headers}
        if scope["type"] == "websocket":
            send = denying(send)
        if scope["type"] == "http" and scope["method"].upper() == "HEAD":
            await self._send_head(send, start)
        else:
            await self._send_stream(scope, receive, send, start)
        if self.background is not None:
            await self.background()

    async def _send_head(self, send: Send, start: Message) -> None:
        with anyio.move_on_after(self.send_timeout) as timeout:
            await send(start)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        if timeout.cancelled_caught:
            raise self._send_timed_out()

    async def _send_stream(self, scope: Scope, receive: Receive, send: Send, start: Message) -> None:
        if self._stream is not None or not self._active:
            raise ConfigurationError("a response answers one request: make an EventSourceResponse for each")
        sender = self.data_sender_callable
        self._stream = stream = Stream(
            ResponseOwner(self, scope["type"]),
            StreamIdentity(secrets.token_hex(8), self._name_for(scope), scope.get("path", "")),
            self._settings(),
            receive,
            send,
            domain=domain_of(scope),
            observers=self.observers,
            encode=encoder(self.sep),
        )
        try:
            await stream.run(
                start,
                b"",
                events=self._iterate,
                companions=() if sender is None else (("data_sender_callable", sender),),
                events_receive=scope["type"] == "http" and has_body(scope),
            )
        finally:
            self._active, self._stream = False, None
        if stream.reason is CloseReason.SEND_TIMEOUT:
            raise self._send_timed_out()

    def _iterate(self) -> Any:
        return as_async_iterator(self.body_iterator, "body_iterator")

    def _send_timed_out(self) -> SendTimeoutError:
        return SendTimeoutError(f"the client did not take what was sent within send_timeout = {self.send_timeout} s")

    def _settings(self) -> StreamSettings:
        return StreamSettings(
            ping_interval=self._ping_interval or None,
            ping_only_when_idle=False,
            send_timeout=self.send_timeout,
            cleanup_timeout=self._cleanup_timeout,
            drain_policy="finish" if self._shutdown_grace_period else "close",
            drain_grace=self._shutdown_grace_period or 5.0,
        )

    def _name_for(self, scope: Scope) -> str:
        return getattr(scope.get("endpoint"), "__qualname__", type(self).__qualname__)


class ResponseOwner:
    """What a stream asks its owner, answered by the callables of its response."""

    __slots__ = ("_disconnect", "_response")

    def __init__(self, response: EventSourceResponse, protocol: str) -> None:
        self._response = response
        self._disconnect: Message = {"type": f"{protocol}.disconnect"}

    def ping_frame(self) -> bytes:
        factory = self._response.ping_message_factory
        ping = factory() if factory else ServerSentEvent(comment=f"ping - {datetime.now(UTC)}")
        return encoder(self._response.sep)(ping)

    async def last_frame(self, reason: CloseReason, error: BaseException | None) -> bytes | None:
        return None if reason is CloseReason.ERROR else b""

    async def authorize(self) -> None:
        """A response has no authorization of its own."""

    def drain_begins(self) -> None:
        event = self._response._shutdown_event  # noqa: SLF001 - this class is the response's other half
        if event is not None:
            event.set()

    @property
    def cleans_up(self) -> bool:
        return self._response.client_close_handler_callable is not None

    async def stream_closed(self, reason: CloseReason) -> None:
        stream = self._response._stream  # noqa: SLF001
        handler = self._response.client_close_handler_callable
        if handler is not None:
            called: Any = handler(stream.disconnect if stream and stream.disconnect else self._disconnect)
            # Written as a plain function it has done its work.
            if inspect.isawaitable(called):
                await called


#: What is no mapping, and asked for first: to ask whether it is one costs as much as its whole event.
USUAL = frozenset({ServerSentEvent, str, bytes, int})


def encoder(sep: str) -> Callable[[Any], bytes]:
    """Return the function from what ``content`` yields to a frame.

    A mapping with a name alone, as libraries end their streams with, is an event with empty data: some clients take a
    name without data, and browsers drop it.
    """
    encode = frame_encoder(sep)

    def encode_named(item: Any) -> bytes:
        kind = type(item)
        mapping = kind is dict or (kind not in USUAL and isinstance(item, Mapping))
        if mapping and item.get("data") is None and item.get("event") is not None:
            item = {**item, "data": ""}
        return encode(item)

    return encode_named


def awaitable(sender: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    """Return ``sender`` if it is a coroutine function, or one that calls it: it may give a coroutine all the same."""
    if is_kind(inspect.iscoroutinefunction, sender):
        return sender

    async def send() -> None:
        sending: Any = sender()
        if not inspect.isawaitable(sending):
            raise ConfigurationError(
                f"data_sender_callable must be a coroutine function, or return what can be awaited; {sender!r} "
                f"returned {type(sending).__name__}"
            )
        await sending

    return send


def denying(send: Send) -> Send:
    """Return a ``send`` that turns a response into a websocket's denial (ASGI's denial response extension)."""

    async def deny(message: Message) -> None:
        await send({**message, "type": "websocket." + message["type"]})

    return deny


def check_times(shutdown_grace_period: float, cleanup_timeout: float | None, send_timeout: float | None) -> None:
    """Check the times of a response, in seconds."""
    check_number("shutdown_grace_period", shutdown_grace_period)
    if not shutdown_grace_period >= 0:
        raise ConfigurationError(f"shutdown_grace_period must be >= 0 seconds, not {shutdown_grace_period}")
    if cleanup_timeout is not None:
        check_number("cleanup_timeout", cleanup_timeout)
        if not cleanup_timeout >= 0:
            raise ConfigurationError(f"cleanup_timeout must be >= 0 seconds or None, not {cleanup_timeout}")
    if send_timeout is not None:
        check_number("send_timeout", send_timeout)
        if not send_timeout > 0:
            raise ConfigurationError(f"send_timeout must be > 0 seconds, or None for any time, not {send_timeout}")
