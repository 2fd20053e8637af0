"""The test client: an app served in this process, to as many clients as the test likes."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypedDict, Unpack

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Scope

from starlette_sse.testing.caller import place_in_test
from starlette_sse.testing.request import ClientRequest, absolute
from starlette_sse.testing.server import Server
from starlette_sse.testing.stream import EventStream

if TYPE_CHECKING:
    from starlette_sse.testing.blocking import BlockingSSETestClient

__all__ = ["RequestOptions", "Response", "SSETestClient", "StreamOptions"]

#: What a browser's EventSource asks with.
EVENT_SOURCE = {"accept": "text/event-stream", "cache-control": "no-store"}

#: What others ask with.
ANY_CLIENT = {"accept": "*/*", "cache-control": "no-cache"}


class ClientOptions(TypedDict, total=False):
    """The parameters of :class:`SSETestClient`."""

    base_url: str
    headers: Mapping[str, str] | None
    scope: Scope | None
    timeout: float | None
    close_grace: float
    lifespan: bool
    raise_app_exceptions: bool


class RequestOptions(TypedDict, total=False):
    """The parameters of :meth:`SSETestClient.request`."""

    headers: Mapping[str, str] | None
    params: Mapping[str, Any] | None
    content: bytes | str | None
    json: Any
    last_event_id: str | None
    scope: Scope | None
    timeout: float | None


class StreamOptions(RequestOptions, total=False):
    """The parameters of :meth:`SSETestClient.stream`."""

    method: str


@dataclass(frozen=True, slots=True)
class Response:
    """A whole response."""

    status_code: int
    headers: Headers
    body: bytes

    @property
    def text(self) -> str:
        """The body as text, which is taken for UTF-8."""
        return self.body.decode()

    def json(self) -> Any:
        """Return the value of the body.

        :raises ValueError: it is no JSON.
        """
        return jsonlib.loads(self.body)


class SSETestClient:
    """Runs any ASGI app in this process and opens streams on it, on asyncio and on trio::

        async with SSETestClient(app) as client:
            async with client.stream("/clock") as stream:
                event = await stream.next_event()

    The app's lifespan runs from the block's start to its end. An exception of the app is raised where the test asked
    for the stream, or, once the response has started, where it closes it. A stream that is left open is closed and
    named by a :exc:`~starlette_sse.testing.StreamForgottenError`. On asyncio the client may be opened in one
    task and closed in another, as by a fixture of pytest-asyncio; on trio one task does both.

    :param base_url: where the app is, for paths.
    :param headers: sent with every request.
    :param scope: put into every request's ASGI scope, such as ``{"client": ("10.0.0.1", 1234)}``.
    :param timeout: seconds that a read waits if it does not say; if not given 5, or four hours on virtual
        time.
    :param close_grace: seconds that the app gets to end after its client has gone; then it is cancelled, and the
        test fails with :exc:`~starlette_sse.testing.StillRunningError`.
    :param lifespan: False for an app whose lifespan is not to run.
    :param raise_app_exceptions: False to see the app's exceptions as a client does: status 500 before the
        response, a stream that breaks off after.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        base_url: str = "http://testserver",
        headers: Mapping[str, str] | None = None,
        scope: Scope | None = None,
        timeout: float | None = None,
        close_grace: float = 15.0,
        lifespan: bool = True,
        raise_app_exceptions: bool = True,
    ) -> None:
        self._base_url = base_url
        self._headers = lowercase(headers)
        self._scope = scope or {}
        self._timeout = timeout
        self._server = Server(
            app, run_lifespan=lifespan, raise_app_exceptions=raise_app_exceptions, close_grace=close_grace
        )

    @classmethod
    def blocking(
        cls,
        app: ASGIApp,
        *,
        backend: str = "asyncio",
        backend_options: dict[str, Any] | None = None,
        **options: Unpack[ClientOptions],
    ) -> BlockingSSETestClient:
        """Return the client for tests that are plain functions; further parameters as the class's own.

        :param backend: the event loop that the app runs in, ``asyncio`` or ``trio``.
        :param backend_options: as for :func:`anyio.run`.
        """
        from starlette_sse.testing.blocking import BlockingSSETestClient  # noqa: PLC0415 - it is built on this class

        return BlockingSSETestClient(cls(app, **options), backend, backend_options)

    @property
    def state(self) -> dict[str, Any]:
        """What the app's startup left for its requests."""
        return self._server.state

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._server.__aexit__(exc_type, exc, traceback)

    def stream(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        content: bytes | str | None = None,
        json: Any = None,
        last_event_id: str | None = None,
        scope: Scope | None = None,
        timeout: float | None = None,
    ) -> EventStream:
        """Return a stream, to be opened by ``async with`` or ``await``.

        :param url: a path of the app, or a whole URL.
        :param headers: besides those that a browser's ``EventSource`` sends, or instead of them.
        :param params: added to the URL's query.
        :param content: the request's body.
        :param json: the request's body, as the value that its JSON is made of.
        :param last_event_id: the id of the last event that the client has seen.
        :param scope: put into the ASGI scope, over the client's.
        :param timeout: seconds that a read waits if it does not say; the client's if not given.
        :raises ConfigurationError: the request cannot be sent.
        """
        request = ClientRequest.build(
            method,
            absolute(self._base_url, url),
            headers={**EVENT_SOURCE, **self._headers, **lowercase(headers)}.items(),
            params=params,
            content=content,
            json=json,
            last_event_id=last_event_id,
            opened_at=place_in_test(),
        )
        return EventStream(
            self._server,
            request,
            scope={**self._scope, **(scope or {})},
            timeout=self._timeout if timeout is None else timeout,
        )

    def reconnect(self, stream: EventStream) -> EventStream:
        """Return a stream that goes on where ``stream`` was, as a browser does: same request, its ``Last-Event-ID``.

        If the old one is still open, its client goes first. There is no wait; a browser waits ``stream.retry`` ms.
        """
        if stream.is_open:
            stream.disconnect()
        return stream.successor()

    async def request(self, method: str, url: str, **options: Unpack[RequestOptions]) -> Response:
        """Send a request and return the whole response; for what is no stream, such as the app's other endpoints.

        :param options: as for :meth:`stream`; the headers are not ``EventSource``'s but ``Accept: */*``.
        :raises NoEventError: the response did not end in time.
        """
        options["headers"] = {**ANY_CLIENT, **self._headers, **lowercase(options.get("headers"))}
        async with self.stream(url, method=method, **options) as stream:
            body = await stream.read()
            return Response(stream.response.status_code, stream.response.headers, body)

    def drain(self) -> None:
        """Shut the app's streams down as a server's shutdown does; each ends as its ``drain_policy`` says.

        It ends the streams of this package's endpoints and responses in this app, and no others in the process.
        Other libraries' streams know no shutdown that concerns one app.
        """
        self._server.domain.drain()


def lowercase(headers: Mapping[str, str] | None) -> dict[str, str]:
    return {name.lower(): value for name, value in (headers or {}).items()}
