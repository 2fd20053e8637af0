"""Streams as classes: the request's life as hooks."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar, Literal, ParamSpec, TypeVar

import structlog
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

from starlette_sse.bodies import leave_body
from starlette_sse.draining import domain_of
from starlette_sse.endpoints.configuration import Configuration, check_given, check_preset
from starlette_sse.endpoints.visits import Visit
from starlette_sse.error_events import error_event
from starlette_sse.events import ServerSentEvent
from starlette_sse.events.fields import LONGEST_RETRY
from starlette_sse.exceptions import ConfigurationError
from starlette_sse.headers import StreamHeaders, last_event_id
from starlette_sse.limits import one_client
from starlette_sse.observers import CloseReason, Observer, StructlogObserver, printable
from starlette_sse.streams import FrameSource

__all__ = ["SSEEndpoint"]

P = ParamSpec("P")
T = TypeVar("T")

#: Reconnections per second that a drained or rotated fleet of clients is spread to.
RECONNECTS_PER_SECOND = 200


def hook(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T] | Any]:
    """Let type checkers accept a plain function in a subclass as well."""
    return function


class SSEEndpoint(HTTPEndpoint):
    """A stream of server-sent events for ``Route("/path", MyEndpoint)``.

    Override :meth:`events` and whichever other hooks you need; none needs ``super()``. Hooks that are shown as
    ``async`` may also be plain functions, which run in a worker thread. The attributes are checked when the class is
    created and may be set on the instance as well, up to the end of :meth:`on_connect`. Times are float seconds, None
    is never.

    :raises ConfigurationError: when a subclass is created with an attribute or hook that cannot work.
    """

    methods: Sequence[str] = ("GET",)
    """The HTTP methods that open the stream. HEAD is answered with the headers alone."""

    ping_interval: float | None = 15.0
    """Seconds without any bytes after which a ping is sent. The first is due at a random 50 to 100 % of it."""

    send_timeout: float | None = 30.0
    """Seconds that one send may take before the client is given up, and that the body of its request may take."""

    max_lifetime: float | None = None
    """Seconds after which the stream ends, at a random 80 to 100 % of it; the client then comes back."""

    cleanup_timeout: float | None = 10.0
    """Seconds that the ``finally`` of :meth:`events`, and then :meth:`on_disconnect`, get after the end."""

    retry: int | None = None
    """The client's reconnection time in milliseconds, sent when the stream opens."""

    drain_policy: Literal["close", "finish"] = "close"
    """At shutdown: ``"close"`` ends the stream at once, ``"finish"`` lets :meth:`events` run out within the grace."""

    drain_grace: float = 5.0
    """Seconds that ``"finish"`` allows, and that a last frame may take which the events did not end with."""

    max_connections: int | None = None
    """How many streams of this class may be open in this process; a subclass has a count of its own.

    :func:`~starlette_sse.presence.count_together` makes it and the next one count in all processes of the app.
    """

    max_connections_per_client: int | None = None
    """How many of them by one client, as :meth:`client_key` tells them apart."""

    connect_rate: float | None = None
    """How many streams per second one client may open in this process in the long run; None: as many as it likes."""

    connect_burst: int = 10
    """How many it may open at once before ``connect_rate`` holds it back."""

    max_event_bytes: int | None = None
    """How many bytes an event of :meth:`events` may have on the wire, None for any number.

    A larger one is not sent, and ends the stream as an error.
    """

    max_body_bytes: int | None = 1024 * 1024
    """How many bytes a request's body may have, None for any number.

    It is kept as long as the stream is open. A larger one is answered 413.
    """

    authorize_interval: float | None = None
    """Seconds after which :meth:`authorize` is asked again while the stream is open."""

    headers: Mapping[str, str] = MappingProxyType({})
    """Response headers; they win over the defaults. Set others on the instance as a whole, not one by one."""

    sep: str = "\r\n"
    """The line end of the stream, CR LF, LF or CR."""

    event_class: type[ServerSentEvent] = ServerSentEvent
    """What data and mappings become that :meth:`events` yields; override its ``dumps`` for another JSON encoder."""

    observers: Sequence[Observer] = (StructlogObserver(),)
    """What watches the streams of this class."""

    _sse_configuration: ClassVar[Configuration]

    #: The response that a function has returned in place of being the endpoint itself.
    _sse_response: Response | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if isinstance(cls.headers, dict):
            # One client's must not become another's.
            cls.headers = MappingProxyType(cls.headers.copy())
        cls._sse_configuration = Configuration.of_class(cls, SSEEndpoint)

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # What HTTPEndpoint's __init__ does besides is for other methods than the stream's.
        self.scope = scope
        self.receive = receive
        self.send = send
        #: Names this stream in the log and in its error event.
        self.connection_id: str = os.urandom(8).hex()
        self._sse_visit: Visit | None = None

    # Hooks

    @hook
    async def authorize(self, request: Request) -> None:
        """Raise :exc:`~starlette.exceptions.HTTPException` to refuse the client; return nothing.

        Asked before :meth:`on_connect`, and again every ``authorize_interval`` seconds: then the stream ends with an
        event that tells the status.
        """

    @hook
    async def on_connect(self, request: Request) -> Response | None:
        """Prepare the stream, before the response starts.

        Raise :exc:`~starlette.exceptions.HTTPException`, or return a response, to answer with that instead; then
        there is no stream and :meth:`on_disconnect` is not called.
        """
        return None

    def events(self, request: Request) -> AsyncIterable[Any] | Iterable[Any]:
        """Yield the stream's events: override it as an async generator.

        Yield a :class:`ServerSentEvent`, a mapping of its fields, ``bytes`` as a ready frame, or anything else as the
        data. A sync generator runs in worker threads. ``finally`` blocks run however the stream ends. An exception
        that an async generator raises before its first ``await`` or ``yield``, or for what it yields first if that
        cannot be sent, gives its real status; a later one ends the stream by :meth:`on_error`.
        """
        raise ConfigurationError(f"{type(self).__qualname__} must define events(self, request) as an async generator")

    @hook
    async def on_disconnect(self, request: Request, reason: CloseReason) -> None:
        """Clean up; called exactly once for every stream whose :meth:`on_connect` succeeded, whatever ended it.

        It runs in a task of its own, which no cancellation of the request reaches, with a copy of the context
        variables: a token that :meth:`on_connect` got cannot be reset here.
        """

    def ping_message(self, request: Request) -> ServerSentEvent:
        """Return the ping."""
        return ServerSentEvent(comment="ping")

    @hook
    async def on_error(self, request: Request, error: Exception) -> ServerSentEvent | None:
        """Return the last event of a stream that ``error`` ended; None cuts the body and lets the error propagate."""
        debug = bool(getattr(self.scope.get("app"), "debug", False))
        return error_event(error, connection_id=self.connection_id, debug=debug)

    @hook
    async def on_drain(self, request: Request) -> ServerSentEvent | None:
        """Return the farewell at shutdown; the default carries a jittered ``retry``, so that clients spread out."""
        return self.come_back("draining")

    def client_key(self, request: Request) -> str:
        """Return who counts as one client, for the limits and for :func:`~starlette_sse.close`.

        The default is the client's address, of IPv6 its network of 64 bits: one client has all of those. Called once
        for each request that asks for the stream or its headers, before :meth:`authorize`.
        """
        client = request.scope.get("client")
        return one_client(client[0]) if client else ""

    # For hooks to use

    @cached_property
    def log(self) -> Any:
        """A structlog logger that is bound to this stream."""
        logger: Any = structlog.get_logger("starlette_sse")
        return logger.bind(
            connection_id=self.connection_id,
            endpoint=type(self).__qualname__,
            path=printable(self.scope.get("path", "")),
        )

    @cached_property
    def last_event_id(self) -> str | None:
        """The id of the last event that the client has seen; None if it tells none.

        It comes from the ``Last-Event-ID`` header or, for the first load of a page, from a ``lastEventId`` query
        parameter. The header wins: browsers repeat the URL with each reconnection.
        """
        return last_event_id(self.scope)

    def come_back(self, comment: str) -> ServerSentEvent:
        """Return an event with a ``retry`` at random after the stream's own, so that a fleet of clients spreads out."""
        open_streams = len(domain_of(self.scope))
        spread = max(1000, 1000 * open_streams // RECONNECTS_PER_SECOND)
        retry = (1000 if self.retry is None else self.retry) + random.randrange(spread)  # noqa: S311
        return ServerSentEvent(comment=comment, retry=min(retry, LONGEST_RETRY))

    def close(self) -> None:
        """End this stream from the app's side, with reason ``closed``; call it in the stream's event loop.

        The client sees a clean end and, if it is an ``EventSource``, comes back. Called before the stream is open, it
        ends as soon as it is, when :meth:`events` may have begun; to refuse it raise
        :exc:`~starlette.exceptions.HTTPException`.
        """
        if self._sse_visit is not None:
            self._sse_visit.end(CloseReason.CLOSED)

    # The request's life. What is not for subclasses begins with _sse_, so that their own names are free.

    async def dispatch(self) -> None:
        """Answer the request by its method."""
        request, configuration = Request(self.scope, self.receive, self.send), self._sse_configuration
        if self._sse_response is None:
            if configuration.dependencies:
                check_given(type(self), ())
            opens = self.scope["method"] in configuration.methods
        else:
            # The function's route has chosen the method, and the function has read what it wanted.
            opens = self.scope["method"] != "HEAD"
            leave_body(request)
        if not opens:
            await self._sse_answer_without_stream(request)
            return
        self._sse_visit = visit = Visit(self, request, configuration)
        try:
            # Whatever waits here waits as long as the stream lives, so what comes before it is over by then.
            await (await visit.prepare(self._sse_subscribe))()
        except visit.loop.cancelled:
            await visit.let_streams_clean_up()
            raise
        finally:
            # Without cycles all of it is freed at once.
            self._sse_visit = None
            visit.release()

    @classmethod
    def _sse_check_preset(cls, where: str, name: str, value: Any) -> None:
        """Check what a function gives to an instance, if it is one of the package's attributes."""
        check_preset(where, name, value)

    def _sse_start(self, request: Request, headers: StreamHeaders) -> Message:
        """Return the response's start, with what a function's response was given besides."""
        response = self._sse_response
        if response is None:
            return headers.start(request.scope)
        return {**headers.start(request.scope, response.raw_headers), "status": response.status_code}

    async def _sse_subscribe(self, request: Request) -> FrameSource | None:
        """Return where the stream's frames come from; None: from :meth:`events`."""
        return None

    async def _sse_answer_without_stream(self, request: Request) -> None:
        method, configuration = self.scope["method"], self._sse_configuration
        if method == "HEAD":
            visit = Visit(self, request, configuration)
            visit.identify()
            await visit.authorize()
            # What was given or set on the instance counts as for the stream.
            await self.send(self._sse_start(request, configuration.of_instance(self).headers))
            await self.send({"type": "http.response.body", "body": b""})
        elif method in configuration.allow:
            super().__init__(self.scope, self.receive, self.send)
            # The oldest Starlette that is allowed does not know QUERY.
            self._allowed_methods = [method]
            await super().dispatch()
        else:
            response = await self.method_not_allowed(request)
            await response(self.scope, self.receive, self.send)

    async def method_not_allowed(self, request: Request) -> Response:
        """Answer 405 with ``Allow``, as Starlette's endpoints do."""
        headers = {"Allow": ", ".join(self._sse_configuration.allow)}
        if "app" in self.scope:
            raise HTTPException(status_code=405, headers=headers)
        return PlainTextResponse("Method Not Allowed", status_code=405, headers=headers)


SSEEndpoint._sse_configuration = Configuration.of_class(SSEEndpoint, SSEEndpoint)  # noqa: SLF001 - before there are subclasses
