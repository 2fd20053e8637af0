"""Streams as classes: the request's life as hooks."""

from __future__ import annotations

import inspect
import os
import random
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, ClassVar, Literal, ParamSpec, TypeVar

import anyio
import structlog
from anyio.lowlevel import checkpoint
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from starlette_sse.configuration import Configuration
from starlette_sse.draining import Domain, domain_of
from starlette_sse.error_events import error_event
from starlette_sse.events import ServerSentEvent, as_event, as_frame
from starlette_sse.exceptions import ConfigurationError
from starlette_sse.limits import DRAINING, Refusal, StreamRefusedError, refuse
from starlette_sse.observers import CloseReason, Observer, StreamIdentity, StructlogObserver, tell
from starlette_sse.sources import FrameSource
from starlette_sse.streams import Stream
from starlette_sse.threads import as_async_iterator

__all__ = ["SSEEndpoint"]

P = ParamSpec("P")
T = TypeVar("T")

Answer = Callable[[], Awaitable[object]]
"""What is left to do for a request."""

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
    """Seconds that one send may take before the client is given up."""

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
    """How many streams per second one client may open in this process in the long run."""

    connect_burst: int = 10
    """How many it may open at once before ``connect_rate`` holds it back."""

    max_event_bytes: int | None = None
    """How large an event of :meth:`events` may be; a larger one is not sent, and ends the stream as an error."""

    authorize_interval: float | None = None
    """Seconds after which :meth:`authorize` is asked again while the stream is open."""

    headers: Mapping[str, str] = {}
    """Response headers; they win over the defaults."""

    sep: str = "\r\n"
    """The line end of the stream, CR LF, LF or CR."""

    event_class: type[ServerSentEvent] = ServerSentEvent
    """What data and mappings become that :meth:`events` yields; override its ``dumps`` for another JSON encoder."""

    observers: Sequence[Observer] = (StructlogObserver(),)
    """What watches the streams of this class."""

    _configuration: ClassVar[Configuration]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._configuration = Configuration.of_class(cls)

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # What HTTPEndpoint's __init__ does besides is for other methods than the stream's.
        self.scope = scope
        self.receive = receive
        self.send = send
        #: Names this stream in the log and in its error event.
        self.connection_id = os.urandom(8).hex()
        self._client_key = ""
        self._holds_place = self._close_asked = False
        self._stream: Stream | None = None

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
        that is raised before the first ``await`` gives its real status; a later one ends the stream by
        :meth:`on_error`.
        """
        raise ConfigurationError(f"{type(self).__qualname__} must define events(self, request) as an async generator")

    @hook
    async def on_disconnect(self, request: Request, reason: CloseReason) -> None:
        """Clean up; called exactly once for every stream whose :meth:`on_connect` succeeded, whatever ended it."""

    def ping_message(self, request: Request) -> ServerSentEvent:
        """Return the ping."""
        return ServerSentEvent(comment="ping")

    @hook
    async def on_error(self, request: Request, error: BaseException) -> ServerSentEvent | None:
        """Return the last event of a stream that ``error`` ended; None cuts the body and lets the error propagate."""
        debug = bool(getattr(self.scope.get("app"), "debug", False))
        return error_event(error, connection_id=self.connection_id, debug=debug)

    @hook
    async def on_drain(self, request: Request) -> ServerSentEvent | None:
        """Return the farewell at shutdown; the default carries a jittered ``retry``, so that clients spread out."""
        return self.come_back("draining")

    def client_key(self, request: Request) -> str:
        """Return who counts as one client, for the limits and for :func:`~starlette_sse.close`.

        The default is the client's address. Called once, before :meth:`authorize`.
        """
        client = request.scope.get("client")
        return client[0] if client else ""

    # For hooks to use

    @cached_property
    def log(self) -> Any:
        """A structlog logger that is bound to this stream."""
        logger: Any = structlog.get_logger("starlette_sse")
        return logger.bind(
            connection_id=self.connection_id, endpoint=type(self).__qualname__, path=self.scope.get("path", "")
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
        base = 1000 if self.retry is None else self.retry
        return ServerSentEvent(comment=comment, retry=base + random.randrange(spread))  # noqa: S311

    def close(self) -> None:
        """End this stream from the app's side, with reason ``closed``; call it in the stream's event loop.

        The client sees a clean end and, if it is an ``EventSource``, comes back. Called before the stream is open, it
        ends as soon as it is; to refuse it raise :exc:`~starlette.exceptions.HTTPException`.
        """
        self._close_asked = True
        if self._stream is not None:
            self._stream.end(CloseReason.CLOSED)

    # The request's life

    async def dispatch(self) -> None:
        """Answer the request by its method."""
        request = Request(self.scope, self.receive, self.send)
        if self.scope["method"] not in self._configuration.methods:
            await self._answer_without_stream(request)
            return
        try:
            # Whatever waits here waits as long as the stream lives, so what comes before it is over by then.
            await (await self._prepare(request))()
        finally:
            self._release()

    async def _answer_without_stream(self, request: Request) -> None:
        method, configuration = self.scope["method"], self._configuration
        if method == "HEAD":
            await self._answer_head(request)
        elif method in configuration.allow:
            super().__init__(self.scope, self.receive, self.send)
            await super().dispatch()
        else:
            response = await self.method_not_allowed(request)
            await response(self.scope, self.receive, self.send)

    async def method_not_allowed(self, request: Request) -> Response:
        """Answer 405 with ``Allow``, as Starlette's endpoints do."""
        headers = {"Allow": ", ".join(self._configuration.allow)}
        if "app" in self.scope:
            raise HTTPException(status_code=405, headers=headers)
        return PlainTextResponse("Method Not Allowed", status_code=405, headers=headers)

    async def _answer_head(self, request: Request) -> None:
        await self._authorize(request)
        await self.send(self._configuration.headers.start(self.scope))
        await self.send({"type": "http.response.body", "body": b""})

    async def _prepare(self, request: Request) -> Answer:
        """Return what answers the request: a stream that is ready to run, or what is sent in its place."""
        domain, limit = domain_of(self.scope), self._configuration.limit
        if domain.draining:
            return self._refusal(request, DRAINING)
        self._client_key = self.client_key(request)
        if limit is not None:
            try:
                limit.take(self._client_key)
            except StreamRefusedError as exc:
                return self._refusal(request, exc.refusal, exc.wait)
            self._holds_place = True
        await self._authorize(request)
        if has_body(self.scope):
            # While the stream runs only its listener may receive, so hooks find the body read.
            try:
                await request.body()
            except ClientDisconnect:
                return checkpoint
        response = await self._call("on_connect", request) if self._overrides("on_connect") else None
        if response is None:
            return await self._prepare_stream(request, domain)
        if isinstance(response, Response):
            return partial(response, self.scope, self.receive, self.send)
        name = type(self).__qualname__
        raise ConfigurationError(f"{name}.on_connect must return None or a Response, not {response!r}")

    async def _authorize(self, request: Request) -> None:
        answer = await self._call("authorize", request) if self._overrides("authorize") else None
        if answer is not None:
            # Who returns False means no, and would have let everybody in.
            name = type(self).__qualname__
            raise ConfigurationError(
                f"{name}.authorize must raise HTTPException to refuse, or return None; not {answer!r}"
            )

    def _refusal(self, request: Request, refusal: Refusal, wait: float = 0.0) -> Answer:
        tell(self.observers, "rejected", type(self).__qualname__, request.url.path, refusal.reason)
        response = refuse(request, refusal, wait=wait, headers=self.headers)
        return partial(response, self.scope, self.receive, self.send)

    async def _prepare_stream(self, request: Request, domain: Domain) -> Answer:
        hooks = EndpointHooks(self, request)
        try:
            configuration = self._configuration.of_instance(self)
            source = await self._subscribe(request)
            kind, path = type(self), self.scope.get("path", "")
            self._stream = stream = Stream(
                hooks,
                StreamIdentity(self.connection_id, kind.__qualname__, path, self._client_key, kind),
                configuration.settings,
                self.receive,
                self.send,
                domain=domain,
                observers=self.observers,
                encode=configuration.encode,
                source=source,
            )
            start, opening = configuration.headers.start(self.scope), self._opening(configuration)
            if self._close_asked:
                stream.end(CloseReason.CLOSED)
        except BaseException as exc:
            await self._never_opened(hooks, exc)
            raise
        events = partial(self._iterate, request) if source is None else None
        return partial(stream.run, start, opening, events=events)

    async def _never_opened(self, hooks: EndpointHooks, error: BaseException) -> None:
        reason = CloseReason.ERROR if isinstance(error, Exception) else CloseReason.CANCELLED
        with anyio.move_on_after(self.cleanup_timeout, shield=True):
            await hooks.stream_closed(reason)

    async def _subscribe(self, request: Request) -> FrameSource | None:
        """Return where frames come from, which :meth:`_release` leaves; None: from :meth:`events`."""
        return None

    def _release(self) -> None:
        """Let go of what was taken for the stream; called once for each request that could have had one."""
        self._stream = None
        if self._holds_place and self._configuration.limit is not None:
            self._holds_place = False
            self._configuration.limit.give_back(self._client_key)

    def _position(self) -> str | None:
        """Return the id of a position that a ping may tell the client."""
        return None

    def _opening(self, configuration: Configuration) -> bytes:
        """Return the first bytes of the body."""
        return configuration.opening

    def _iterate(self, request: Request) -> AsyncIterator[Any]:
        return as_async_iterator(self.events(request), f"{type(self).__qualname__}.events()")

    def _overrides(self, hook: str) -> bool:
        """Tell whether a hook is another than the default, which does nothing."""
        return getattr(getattr(self, hook), "__func__", None) is not getattr(SSEEndpoint, hook)

    async def _call(self, hook: str, request: Request, *args: Any) -> Any:
        function = getattr(self, hook)
        if hook in self._configuration.sync_hooks:
            return await resolve(await run_in_threadpool(function, request, *args))
        return await function(request, *args)


class EndpointHooks:
    """Answers what a stream asks by the hooks of its endpoint."""

    __slots__ = ("_endpoint", "_request")

    def __init__(self, endpoint: SSEEndpoint, request: Request) -> None:
        self._endpoint = endpoint
        self._request = request

    @property
    def pings_at_once(self) -> bool:
        return self._endpoint._configuration.pings_at_once  # noqa: SLF001

    def ping_frame(self) -> bytes | Awaitable[bytes]:
        ping: Any = self._endpoint.ping_message(self._request)
        if not isinstance(ping, ServerSentEvent) and inspect.isawaitable(ping):
            return self._awaited_ping(ping)
        return self._ping_frame(ping)

    async def _awaited_ping(self, ping: Awaitable[Any]) -> bytes:
        return self._ping_frame(await ping)

    def _ping_frame(self, ping: Any) -> bytes:
        position = self._endpoint._position()  # noqa: SLF001 - this class is the endpoint's other half
        if position is not None:
            event = as_event(ping, self._endpoint.event_class)
            ping = event if event.id is not None else event.replace(id=position)
        return self._frame(ping)

    async def last_frame(self, reason: CloseReason, error: BaseException | None) -> bytes | None:
        endpoint, event = self._endpoint, None
        if reason is CloseReason.DRAINING:
            event = await self._call("on_drain")
        elif reason is CloseReason.LIFETIME:
            event = endpoint.come_back("lifetime is over")
        elif error is not None and reason in (CloseReason.ERROR, CloseReason.UNAUTHORIZED):
            event = await self._call("on_error", error)
            if event is None:
                return None
        return b"" if event is None else self._frame(event)

    async def reauthorize(self) -> None:
        await self._endpoint._authorize(self._request)  # noqa: SLF001

    def drain_begins(self) -> None:
        """The endpoint is asked for its farewell when the stream ends."""

    @property
    def cleans_up(self) -> bool:
        return self._endpoint._overrides("on_disconnect")  # noqa: SLF001

    async def stream_closed(self, reason: CloseReason) -> None:
        await self._call("on_disconnect", reason)

    async def _call(self, hook: str, *args: Any) -> Any:
        return await self._endpoint._call(hook, self._request, *args)  # noqa: SLF001

    def _frame(self, event: Any) -> bytes:
        return as_frame(event, self._endpoint.sep, self._endpoint.event_class)


SSEEndpoint._configuration = Configuration.of_class(SSEEndpoint)  # noqa: SLF001 - __init_subclass__ is for subclasses


def last_event_id(scope: Scope) -> str | None:
    """Return the id that the client resumes after; the standard sends it as UTF-8."""
    for name, value in scope["headers"]:
        if name == b"last-event-id":
            return str(value, "utf-8", "replace")
    return QueryParams(scope["query_string"]).get("lastEventId") if scope.get("query_string") else None


def has_body(scope: Scope) -> bool:
    """Tell whether the client sends a body (RFC 9112, 6.3)."""
    for name, value in scope["headers"]:
        if name == b"transfer-encoding" or (name == b"content-length" and value != b"0"):
            return True
    return False


async def resolve(result: Any) -> Any:
    """Return what a hook means, which may have been written as a coroutine function."""
    return await result if inspect.isawaitable(result) else result
