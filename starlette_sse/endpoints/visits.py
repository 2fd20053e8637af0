"""One request to an endpoint, from its limits to its cleanup: what calls the hooks, and when."""

from __future__ import annotations

import inspect
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from anyio import to_thread
from anyio.lowlevel import checkpoint
from starlette.requests import Request
from starlette.responses import Response

from starlette_sse.bodies import read_body
from starlette_sse.draining import Domain, domain_of
from starlette_sse.endpoints.configuration import Configuration, check_own, opening_of
from starlette_sse.endpoints.hooks import call_hook, settled
from starlette_sse.eventloop import current_event_loop
from starlette_sse.eventloop.threads import ThreadCall
from starlette_sse.events import FRAME, ServerSentEvent, as_event, as_frame
from starlette_sse.exceptions import BrokerUnavailableError, ConfigurationError
from starlette_sse.iterators import as_async_iterator
from starlette_sse.observers import CloseReason, StreamIdentity, tell
from starlette_sse.refusals import BROKER_AWAY, DRAINING, Refusal, StreamRefusedError, refuse
from starlette_sse.registry import visitors
from starlette_sse.streams import FrameSource, Stream
from starlette_sse.streams.endings import Steps

__all__ = ["Answer", "Visit"]

Answer = Callable[[], Awaitable[object]]
"""What is left to do for a request."""


@dataclass(frozen=True, slots=True)
class UnopenedStream:
    """What observers may read of a stream that has never begun."""

    identity: StreamIdentity
    duration: float = 0.0
    events: int = 0
    bytes_sent: int = 0


class Visit:
    """Prepares what answers one request, and is the owner of its stream.

    What belongs to one request is here and not in the endpoint, where names are its author's.

    :param endpoint: the endpoint's instance.
    :param configuration: that of its class.
    """

    __slots__ = (
        "_body_limit",
        "_client_key",
        "_configuration",
        "_early_end",
        "_endpoint",
        "_holds_place",
        "_receive",
        "_request",
        "_send",
        "_source",
        "_stream",
        "loop",
    )

    def __init__(self, endpoint: Any, request: Request, configuration: Configuration) -> None:
        self._endpoint = endpoint
        self._request = request
        # As they are now: hooks may set their author's own attributes of these names.
        self._receive, self._send = endpoint.receive, endpoint.send
        self._configuration = configuration
        self._client_key = ""
        self._body_limit: int | None = None
        self._holds_place = False
        self._early_end: CloseReason | None = None
        self._source: FrameSource | None = None
        self._stream: Stream | None = None
        self.loop = current_event_loop()

    async def prepare(self, subscribe: Callable[[Request], Awaitable[FrameSource | None]]) -> Answer:
        """Return what answers the request: a stream that is ready to run, or what is sent in its place.

        :param subscribe: returns where frames come from, which :meth:`release` leaves; None: from ``events()``.
        """
        endpoint, request, limit = self._endpoint, self._request, self._configuration.limit
        domain = domain_of(request.scope)
        if domain.draining:
            return self._refusal(DRAINING)
        self.identify()
        visitors.add(self)
        try:
            if limit is not None:
                limit.take(self._client_key)
                self._holds_place = True
            await self.authorize()
            if "max_body_bytes" in vars(endpoint):
                check_own(endpoint, "max_body_bytes")
            self._body_limit = endpoint.max_body_bytes
            if not await read_body(request, self._body_limit, endpoint.send_timeout):
                return checkpoint
            response = await self._connect() if self._has("on_connect") else None
            if response is None:
                return await self._prepare_stream(domain, subscribe)
        except StreamRefusedError as exc:
            return self._refusal(exc.refusal, exc.wait)
        except BrokerUnavailableError:
            return self._refusal(BROKER_AWAY)
        visitors.discard(self)
        if isinstance(response, Response):
            return partial(response, request.scope, self._receive, self._send)
        raise ConfigurationError(f"{self._name}.on_connect must return None or a Response, not {response!r}")

    async def let_streams_clean_up(self) -> None:
        """Wait for the streams that a shutdown ends, in a request that was cancelled before it had one.

        Who cancels cannot be told: a timeout of the request's own that runs out during a shutdown takes as long.
        """
        domain = domain_of(self._request.scope)
        # A server that shuts down by cancelling may drop all other requests when the first one has left (daphne does).
        if self._stream is None and domain.draining:
            await Steps(self.loop, self._report).take("the drain", domain.drained, math.inf)

    def identify(self) -> None:
        """Find out who counts as one client."""
        self._client_key = self._endpoint.client_key(self._request)
        if not isinstance(self._client_key, str):
            raise ConfigurationError(f"{self._name}.client_key must return a str, not {self._client_key!r}")

    async def authorize(self) -> None:
        """Raise what the endpoint raises to refuse the client."""
        answer = await self._call("authorize") if self._has("authorize") else None
        if answer is not None:
            # Who returns False means no, and would have let everybody in.
            told = answer if isinstance(answer, bool) else type(answer).__name__
            raise ConfigurationError(
                f"{self._name}.authorize must raise HTTPException to refuse, or return None; not {told}"
            )

    async def _connect(self) -> Any:
        if "on_connect" not in self._configuration.sync_hooks:
            return await self._call("on_connect")
        returned: list[Any] = []

        def connect() -> None:
            returned.append(self._endpoint.on_connect(self._request))

        call = ThreadCall(connect, to_thread.current_default_thread_limiter())
        try:
            await call.run()
        except BaseException as exc:
            # It may succeed though who waited for it was cancelled.
            error = await call.ended()
            if returned and inspect.iscoroutine(returned[0]):
                returned[0].close()
            if returned == [None]:
                await self._never_opened(exc)
            if error is not None:
                raise exc from error
            raise
        return await settled(returned[0])

    @property
    def identity(self) -> StreamIdentity:
        """What names the stream; hooks may change it until that begins."""
        if (stream := self._stream) is not None:
            return stream.identity
        kind, path = type(self._endpoint), self._request.scope.get("path", "")
        return StreamIdentity(self._endpoint.connection_id, kind.__qualname__, path, self._client_key, kind)

    @property
    def reason(self) -> CloseReason | None:
        """Why the stream ended, or will as soon as it is open."""
        return self._early_end if (stream := self._stream) is None else stream.reason

    def end(self, reason: CloseReason) -> None:
        """End the stream, now or as soon as it is open."""
        if self._stream is None:
            self._early_end = self._early_end or reason
        else:
            self._stream.end(reason)

    def release(self) -> None:
        """Let go of what was taken for the request."""
        visitors.discard(self)
        source, self._source, self._stream = self._source, None, None
        try:
            if source is not None:
                source.leave()
        finally:
            if self._holds_place and self._configuration.limit is not None:
                self._holds_place = False
                self._configuration.limit.give_back(self._client_key)

    @property
    def _name(self) -> str:
        return type(self._endpoint).__qualname__

    def _refusal(self, refusal: Refusal, wait: float = 0.0) -> Answer:
        endpoint, request = self._endpoint, self._request
        visitors.discard(self)
        tell(endpoint.observers, "rejected", self._name, request.scope.get("path", ""), refusal.reason)
        response = refuse(request, refusal, wait=wait, headers=endpoint.headers)
        return partial(response, request.scope, self._receive, self._send)

    async def _prepare_stream(
        self, domain: Domain, subscribe: Callable[[Request], Awaitable[FrameSource | None]]
    ) -> Answer:
        endpoint, request = self._endpoint, self._request
        try:
            if endpoint.max_body_bytes != self._body_limit:
                raise ConfigurationError(
                    f"{self._name}().max_body_bytes was set too late: the body is read before on_connect; set it in "
                    "authorize, or on the class"
                )
            self._configuration = configuration = self._configuration.of_instance(endpoint)
            self._source = source = await subscribe(request)
            self._stream = stream = Stream(
                self,
                self.identity,
                configuration.settings,
                self._receive,
                self._send,
                domain=domain,
                observers=endpoint.observers,
                encode=configuration.encode,
                source=source,
            )
            start = endpoint._sse_start(request, configuration.headers)  # noqa: SLF001
            # An id without data is a position, so that a client that has seen no event can resume too.
            opening = configuration.opening if source is None else opening_of(endpoint, source.resume_id)
            if self._early_end is not None:
                stream.end(self._early_end)
        except BaseException as exc:
            await self._never_opened(exc)
            raise
        return partial(stream.run, start, opening, events=self._iterate if source is None else None)

    async def _never_opened(self, error: BaseException) -> None:
        """Clean up behind a stream that ``on_connect`` has let in and that ``error`` has kept from its first byte."""
        reason = CloseReason.ERROR if isinstance(error, Exception) else CloseReason.CANCELLED
        steps = Steps(current_event_loop(), self._report)
        deadline = steps.deadline(self._endpoint.cleanup_timeout)
        await steps.take_apart("on_disconnect", lambda: self.stream_closed(reason), deadline)
        if steps.interrupted is not None:
            raise steps.interrupted from error

    def _report(self, error: BaseException, during: str) -> None:
        unopened = UnopenedStream(self.identity)
        tell(self._endpoint.observers, "failed", unopened, error, during=during, propagates=False)

    def _iterate(self) -> AsyncIterator[Any]:
        return as_async_iterator(self._endpoint.events(self._request), f"{self._name}.events()")

    def _has(self, hook: str) -> bool:
        """Tell whether a hook is another than the default, which does nothing."""
        function = getattr(getattr(self._endpoint, hook), "__func__", None)
        return function is not getattr(self._configuration.defaults, hook)

    async def _call(self, hook: str, *args: Any) -> Any:
        return await call_hook(self._endpoint, self._configuration.sync_hooks, hook, self._request, *args)

    # What the stream asks

    def ping_frame(self) -> bytes:
        ping: Any = self._endpoint.ping_message(self._request)
        # On a channel that is silent for long, the client's id stays one that the log can resume behind.
        position = None if self._source is None else self._source.resume_id
        if position is None:
            return self._frame(ping)
        if isinstance(ping, FRAME):
            return ServerSentEvent(id=position).encode() + bytes(ping)
        event = as_event(ping, self._endpoint.event_class)
        return self._frame(event if event.id is not None else event.replace(id=position))

    async def last_frame(self, reason: CloseReason, error: BaseException | None) -> bytes | None:
        event = None
        if reason is CloseReason.DRAINING:
            event = await self._call("on_drain")
        elif reason is CloseReason.LIFETIME:
            event = self._endpoint.come_back("lifetime is over")
        elif error is not None and reason in (CloseReason.ERROR, CloseReason.UNAUTHORIZED):
            event = await self._call("on_error", error)
            if event is None:
                return None
        return b"" if event is None else self._frame(event)

    def drain_begins(self) -> None:
        """The endpoint is asked for its farewell when the stream ends."""

    @property
    def cleans_up(self) -> bool:
        return self._has("on_disconnect")

    async def stream_closed(self, reason: CloseReason) -> None:
        await self._call("on_disconnect", reason)

    def _frame(self, event: Any) -> bytes:
        return as_frame(event, self._endpoint.sep, self._endpoint.event_class)
