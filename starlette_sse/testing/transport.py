"""A transport for httpx and httpx2 that really streams, for tests written with their clients."""

from __future__ import annotations

import math
import sys
from collections.abc import AsyncIterator
from functools import cache
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Self

import anyio
from starlette.types import ASGIApp

from starlette_sse.testing.caller import place_in_test
from starlette_sse.testing.exceptions import NoEventError
from starlette_sse.testing.exchange import Exchange
from starlette_sse.testing.problems import raise_as_it_is
from starlette_sse.testing.request import RequestBody, http_scope
from starlette_sse.testing.server import Server

if TYPE_CHECKING:
    import httpx
    import httpx2

    class AnyTransport(httpx.AsyncBaseTransport, httpx2.AsyncBaseTransport):  # type: ignore[misc]  # serves both
        """What both libraries' clients take."""

else:
    # The clients ask for the methods only, and neither library needs to be installed.
    AnyTransport = object

__all__ = ["StreamingASGITransport"]


class StreamingASGITransport(AnyTransport):
    """Serves an ASGI app to an ``AsyncClient`` of httpx or httpx2, without buffering its responses::

        async with httpx.AsyncClient(transport=StreamingASGITransport(app), base_url="http://testserver") as client:
            async with aconnect_sse(client, "GET", "/clock") as source:
                async for event in source.aiter_sse():
                    ...

    It takes the place of the library's own ``ASGITransport``, which waits for the app's end before it responds. The
    client must be opened by ``async with``, because the app runs beside the test. Closing a response early is a
    disconnect. An exception of the app is raised where the request was sent, or, once the response has started, by
    the response's close, after the stream broke off with the library's ``RemoteProtocolError``. The client's ``read``
    timeout counts between chunks, as on a real connection.

    :param app: the ASGI application.
    :param raise_app_exceptions: False to see the app's exceptions as a client does: status 500 before the response,
        a stream that breaks off after.
    :param root_path: where the app is mounted.
    :param client: the client's address.
    :param lifespan: True to run the app's startup and shutdown with the client; as the library's own, it does not.
    :param close_grace: seconds that the app gets to end after its client has gone.
    """

    def __init__(
        self,
        app: ASGIApp,
        raise_app_exceptions: bool = True,
        root_path: str = "",
        client: tuple[str, int] = ("127.0.0.1", 123),
        *,
        lifespan: bool = False,
        close_grace: float = 15.0,
    ) -> None:
        self._root_path = root_path
        self._client = client
        self._server = Server(
            app, run_lifespan=lifespan, raise_app_exceptions=raise_app_exceptions, close_grace=close_grace
        )

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self._server.__aexit__(exc_type, exc, traceback)

    async def aclose(self) -> None:
        """Close as ``async with`` does at its end."""
        await self._server.__aexit__(None, None, None)

    def drain(self) -> None:
        """Shut the app's streams down as a server's shutdown does; see :meth:`SSETestClient.drain`."""
        self._server.domain.drain()

    async def handle_async_request(self, request: Any) -> Any:
        """Return the response when the app has started it."""
        library = library_of(request)
        url = request.url
        scope = http_scope(
            method=request.method,
            scheme=url.scheme,
            host=url.host,
            port=url.port,
            raw_path=url.raw_path.partition(b"?")[0],
            query=url.query,
            headers=[(name.lower(), value) for name, value in request.headers.raw],
            root_path=self._root_path,
            client=self._client,
        )
        timeout = (request.extensions.get("timeout") or {}).get("read")
        timeout = math.inf if timeout is None else timeout
        try:
            exchange = await self._server.start(
                scope,
                RequestBody(aiter(request.stream)),
                name=f"{request.method} {url.raw_path.decode()}",
                opened_at=place_in_test(),
                timeout=timeout,
            )
        except NoEventError as error:
            raise library.ReadTimeout(str(error), request=request) from error
        head = exchange.head
        return library.Response(
            head.status_code if head else 500,
            headers=head.headers.raw if head else [],
            stream=stream_class(library)(library, self._server, exchange, timeout),
            extensions={"http_version": b"HTTP/1.1"},
        )


class ExchangeStream:
    """A response's body as the libraries read it."""

    def __init__(self, library: ModuleType, server: Server, exchange: Exchange, timeout: float) -> None:
        self._library = library
        self._server = server
        self._exchange = exchange
        self._timeout = timeout

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        name = self._exchange.name
        with anyio.move_on_after(self._timeout):
            chunk = await self._exchange.take()
            if chunk is not None:
                return chunk.data
            if self._exchange.complete:
                raise StopAsyncIteration
            error = self._library.RemoteProtocolError(f"{name} broke off before its body was complete")
            raise error from self._exchange.error
        raise self._library.ReadTimeout(f"{name} brought nothing within {self._timeout:g} s")

    async def aclose(self) -> None:
        """Disconnect, if the body is not complete, and raise what went wrong in the app."""
        problem = await self._server.settle(self._exchange)
        if problem is not None:
            raise_as_it_is(problem)


@cache
def stream_class(library: ModuleType) -> type[ExchangeStream]:
    """Return the class that the library accepts as a response's stream."""
    return type("ExchangeStream", (ExchangeStream, library.AsyncByteStream), {})


def library_of(request: Any) -> ModuleType:
    """Return the library whose request it is."""
    for cls in type(request).__mro__:
        name = cls.__module__.partition(".")[0]
        if name in {"httpx", "httpx2"}:
            return sys.modules[name]
    raise TypeError(f"a {type(request).__qualname__} is a request neither of httpx nor of httpx2")
