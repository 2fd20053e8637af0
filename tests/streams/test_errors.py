"""What the client, the log and the server are told when something raises."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from starlette_sse import CloseReason, ServerSentEvent
from starlette_sse.observers import Observer
from starlette_sse.testing import Ending, SSETestClient
from tests.streams.apps import Noting, app_of, serve
from tests.visits import scope_of

pytestmark = pytest.mark.anyio


class Witness(Observer):
    """Notes what failed."""

    def __init__(self) -> None:
        self.failures: list[tuple[str, str, bool]] = []
        self.closed_with: list[CloseReason] = []

    def failed(self, stream: Any, error: BaseException, *, during: str, propagates: bool) -> None:
        self.failures.append((during, repr(error), propagates))

    def closed(self, stream: Any, reason: CloseReason, error: BaseException | None) -> None:
        self.closed_with.append(reason)


async def problem_of(endpoint: type[Noting], **app_options: Any) -> tuple[dict[str, Any], str]:
    """Return what the error event says, and the connection id that the log has."""
    async with SSETestClient(app_of(endpoint, **app_options), timeout=3600) as client, client.stream("/") as stream:
        await stream.expect("first")
        event = await stream.next_event()
        assert event.event == "stream-error"
        assert await stream.closed() is Ending.FINISHED
        return event.json(), event.data


def failing(error: Exception) -> type[Noting]:
    class Failing(Noting):
        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield "first"
            await anyio.sleep(1)
            raise error

    return Failing


async def test_an_exception_is_redacted() -> None:
    """The client learns the status and the connection id, and nothing of the error."""
    endpoint = failing(ValueError("/etc/secret"))
    endpoint.observers = (Witness(),)
    problem, text = await problem_of(endpoint)
    assert problem.keys() == {"type", "title", "status", "connection_id"}
    assert (problem["type"], problem["title"], problem["status"]) == ("about:blank", "Internal Server Error", 500)
    assert "secret" not in text
    assert "ValueError" not in text


async def test_an_exception_is_redacted_where_no_app_says_otherwise() -> None:
    """An endpoint may be mounted below something that is no Starlette app."""
    body = b""

    async def send(message: Any) -> None:
        nonlocal body
        body += message.get("body", b"")

    scope = scope_of()
    await failing(ValueError("/etc/secret"))(scope, anyio.sleep_forever, send)  # type: ignore[arg-type]
    assert b"event: stream-error" in body
    assert b"secret" not in body


async def test_an_exception_is_shown_in_debug() -> None:
    """A developer sees what it was."""
    problem, _ = await problem_of(failing(ValueError("a detail")), debug=True)
    assert problem["detail"] == "ValueError: a detail"


@pytest.mark.parametrize(("status", "title"), [(404, "Not Found"), (599, "Error")])
async def test_an_http_exception_keeps_its_status_and_detail(status: int, title: str) -> None:
    """It was meant for the client."""
    problem, _ = await problem_of(failing(HTTPException(status, "gone away")))
    assert (problem["status"], problem["title"], problem["detail"]) == (status, title, "gone away")


async def test_an_exception_before_the_first_await_has_its_real_status() -> None:
    """The generator takes its first step before the response starts."""

    class Forbidden(Noting):
        async def events(self, request: Request) -> AsyncIterator[Any]:
            if request.url.path == "/":
                raise HTTPException(403, "not yours")
            yield ""

    async with serve(Forbidden) as client:
        response = await client.request("GET", "/")
        assert (response.status_code, response.text) == (403, "not yours")
    assert Forbidden.notes == ["connected", CloseReason.ERROR]


async def test_an_exception_of_on_connect_has_its_real_status() -> None:
    """Exception handlers of the app apply to it, as the exception is not in a group."""

    class NoSeatsError(Exception): ...

    class Full(Noting):
        async def on_connect(self, request: Request) -> None:
            raise NoSeatsError

    async def handler(request: Request, exc: Exception) -> Response:
        return PlainTextResponse("no seats", 418)

    app = Starlette(routes=[Route("/", Full)], exception_handlers={NoSeatsError: handler})
    async with SSETestClient(app) as client:
        response = await client.request("GET", "/")
    assert (response.status_code, response.text) == (418, "no seats")


async def test_on_error_chooses_the_last_event() -> None:
    """Whatever it returns is sent."""

    class Own(Noting):
        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield "first"
            raise ValueError

        async def on_error(self, request: Request, error: Exception) -> ServerSentEvent:
            return ServerSentEvent({"code": type(error).__name__}, event="oops")

    async with serve(Own) as client, client.stream("/") as stream:
        await stream.expect("first", {"event": "oops", "data": {"code": "ValueError"}})


async def test_on_error_may_let_the_error_propagate() -> None:
    """The body is cut, and the exception leaves the app as it is."""
    witness = Witness()

    class Cut(Noting):
        observers = (witness,)

        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield "first"
            await anyio.sleep(1)
            raise ValueError("bare")

        async def on_error(self, request: Request, error: Exception) -> None:
            return None

    with pytest.raises(ValueError, match=r"^bare$"):
        async with serve(Cut) as client, client.stream("/") as stream:
            await stream.expect("first")
            assert await stream.closed() is Ending.CUT
    assert witness.failures == [("events", "ValueError('bare')", True)]
    assert Cut.notes == ["connected", CloseReason.ERROR]


async def test_what_cannot_be_an_event_is_an_error_where_it_is_yielded() -> None:
    """The generator is closed at its ``yield``, and nothing of the value is sent."""
    witness = Witness()

    class Wrong(Noting):
        observers = (witness,)

        async def events(self, request: Request) -> AsyncIterator[Any]:
            try:
                yield "first"
                yield {"unknown": 1}
            finally:
                await anyio.sleep(1)
                self.notes.append("cleaned up")

    async with serve(Wrong) as client, client.stream("/") as stream:
        await stream.expect("first", {"event": "stream-error"})
    assert "write ServerSentEvent(data=...)" in witness.failures[0][1]
    assert Wrong.notes == ["connected", "cleaned up", CloseReason.ERROR]


@pytest.mark.parametrize(
    ("hook", "reason", "ending"),
    [
        ("ping_message", CloseReason.ERROR, Ending.FINISHED),
        ("on_drain", CloseReason.DRAINING, Ending.FINISHED),
        ("on_disconnect", CloseReason.FINISHED, Ending.FINISHED),
        ("authorize", CloseReason.ERROR, Ending.FINISHED),
    ],
)
async def test_an_exception_in_a_hook_is_reported_once(hook: str, reason: CloseReason, ending: Ending) -> None:
    """The stream still ends with its reason, and the cleanup is done."""
    witness = Witness()
    asked = 0

    async def raising(self: Any, request: Request, *args: Any) -> Any:
        nonlocal asked
        asked += 1
        if hook != "authorize" or asked > 1:
            raise ValueError(hook)

    def raising_at_once(self: Any, request: Request) -> Any:
        raise ValueError(hook)

    class Base(Noting):
        observers = (witness,)
        authorize_interval = 40.0

        async def events(self, request: Request) -> AsyncIterator[Any]:
            try:
                yield "first"
                if hook != "on_disconnect":
                    await anyio.sleep_forever()
            finally:
                await anyio.sleep(1)
                self.notes.append("cleaned up")

    endpoint: type[Noting] = type("Raising", (Base,), {hook: raising_at_once if hook == "ping_message" else raising})
    async with serve(endpoint) as client, client.stream("/") as stream:
        await stream.expect("first")
        if hook == "on_drain":
            client.drain()
        assert await stream.closed() is ending
    assert [failure[1] for failure in witness.failures] == [f"ValueError('{hook}')"]
    assert witness.closed_with == [reason]
    assert "cleaned up" in endpoint.notes


async def test_an_exception_in_on_error_leaves_the_first_one_to_propagate() -> None:
    """Both are reported, and the body is cut."""
    witness = Witness()

    class Twice(Noting):
        observers = (witness,)

        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield "first"
            await anyio.sleep(1)
            raise ValueError("first")

        async def on_error(self, request: Request, error: Exception) -> None:
            raise RuntimeError("second")

    with pytest.raises(ValueError, match="first"):
        async with serve(Twice) as client, client.stream("/") as stream:
            await stream.closed()
    assert [failure[1] for failure in witness.failures] == ["RuntimeError('second')", "ValueError('first')"]
    assert Twice.notes == ["connected", CloseReason.ERROR]


async def test_an_exception_in_client_key_is_an_error_before_the_response() -> None:
    """No place is taken and no hook has run."""

    class Keyed(Noting):
        max_connections = 1

        def client_key(self, request: Request) -> str:
            raise ValueError("who?")

    async with serve(Keyed) as client:
        with pytest.raises(ValueError, match=r"who\?"):
            await client.stream("/")
    assert Keyed.notes == []


async def test_an_interrupt_leaves_the_stream_bare() -> None:
    """KeyboardInterrupt is no error to be told to a client."""

    witness = Witness()

    class Interrupted(Noting):
        observers = (witness,)

        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield "first"
            raise KeyboardInterrupt

    async def send(message: Any) -> None: ...

    scope = scope_of()
    with pytest.raises(KeyboardInterrupt):
        await Interrupted(scope, anyio.sleep_forever, send)  # type: ignore[arg-type]
    assert Interrupted.notes == ["connected", CloseReason.CANCELLED]
    assert (witness.failures, witness.closed_with) == ([], [CloseReason.CANCELLED])


# Before Starlette 1.8 this middleware leaves a generator of its own to the collector, of which trio complains.
@pytest.mark.filterwarnings(r"ignore:.*async_generator object Request\.stream")
async def test_behind_base_http_middleware_the_same_holds() -> None:
    """Disconnects are noticed and errors told behind a middleware that wraps receive and send."""

    class Passing(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Callable[[Request], Any]) -> Any:
            return await call_next(request)

    class Endless(Noting): ...

    app = app_of(Endless, middleware=[Middleware(Passing)])
    async with SSETestClient(app, timeout=3600) as client, client.stream("/") as stream:
        await stream.expect("first")
        stream.disconnect()
        await stream.closed()
    assert Endless.notes == ["connected", "cleaned up", CloseReason.CLIENT_GONE]


def test_the_error_event_is_json() -> None:
    """Problem details are an object (RFC 9457)."""
    from starlette_sse.error_events import error_event

    event = error_event(ValueError("x"), connection_id="abc")
    assert json.loads(event.data or "")["connection_id"] == "abc"


async def test_an_error_of_send_that_is_no_sign_of_a_client_that_has_gone_is_reported() -> None:
    """A middleware's mistake ends the stream, and not in silence."""
    witness = Witness()

    class Sending(Noting):
        observers = (witness,)

    async def send(message: Any) -> None:
        raise TypeError("a middleware's mistake")

    scope = scope_of()
    with pytest.raises(TypeError, match="a middleware's mistake"):
        await Sending(scope, anyio.sleep_forever, send)  # type: ignore[arg-type]

    class Late(Sending):
        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield "first"
            yield "second"

    witness.failures.clear()
    sent: list[Any] = []

    async def send_some(message: Any) -> None:
        sent.append(message)
        if b"second" in message.get("body", b""):
            raise TypeError("a middleware's mistake")

    await Late(scope, anyio.sleep_forever, send_some)  # type: ignore[arg-type]
    assert witness.failures == [("send", 'TypeError("a middleware\'s mistake")', False)]
    assert witness.closed_with[-1] is CloseReason.CLIENT_GONE


async def test_an_encoder_that_stops_an_iteration_is_an_error() -> None:
    """What ends an iterator in the user's code must not pass for the end of the stream."""

    class Odd(ServerSentEvent):
        @staticmethod
        def dumps(value: Any) -> str:
            raise StopAsyncIteration

    class Broken(Noting):
        event_class = Odd

        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield "first"
            yield 2

    async with serve(Broken) as client, client.stream("/") as stream:
        await stream.expect("first", {"event": "stream-error"})
        await stream.closed()
    assert Broken.notes == ["connected", CloseReason.ERROR]


async def test_an_iterator_that_fails_and_fails_to_close() -> None:
    """The client is told the first error, and the log has both."""

    class Twice:
        def __aiter__(self) -> Twice:
            return self

        async def __anext__(self) -> str:
            await anyio.sleep(1)
            raise ValueError("failed")

        async def aclose(self) -> None:
            await anyio.sleep(1)
            raise KeyError("failed to close")

    class Failing(Noting):
        observers = (Witness(),)

        def events(self, request: Request) -> AsyncIterator[Any]:
            return Twice()

    async with serve(Failing) as client, client.stream("/") as stream:
        await stream.expect({"event": "stream-error"})
        await stream.closed()
    (witness,) = Failing.observers
    assert isinstance(witness, Witness)
    assert witness.failures == [
        ("events", "ValueError('failed')", False),
        ("events", "KeyError('failed to close')", False),
    ]
