"""How an endpoint answers requests that are not just a GET for its stream."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from types import MappingProxyType
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from starlette_sse import BrokerUnavailableError, CloseReason, ConfigurationError, SSEEndpoint
from starlette_sse.testing import Ending, SSETestClient, capture_logs
from tests.loopback import serving
from tests.streams.apps import Noting, serve
from tests.visits import scope_of

pytestmark = pytest.mark.anyio


class Plain(Noting):
    async def events(self, request: Request) -> AsyncIterator[Any]:
        yield "x"


async def test_the_response_has_the_headers_that_browsers_and_proxies_need() -> None:
    """The opening frame follows at once, before any event."""

    class Endless(Noting): ...

    async with serve(Endless) as client, client.stream("/") as stream:
        assert stream.response.status_code == 200
        assert dict(stream.response.headers) == {
            "content-type": "text/event-stream; charset=utf-8",
            "cache-control": "no-store",
            "x-accel-buffering": "no",
            "connection": "keep-alive",
        }
        assert (await stream.next_comment()).text == "open"


@pytest.mark.parametrize("version", ["1.0", "2", "3"])
async def test_hop_by_hop_headers_are_for_http_1_1_only(version: str) -> None:
    """HTTP/2 forbids ``Connection``, and in HTTP/1.0 the stream ends with the connection, as servers say."""
    async with serve(Plain) as client, client.stream("/", scope={"http_version": version}) as stream:
        assert "connection" not in stream.response.headers


@pytest.mark.parametrize("value", ["close", "Close", "keep-alive, close"])
async def test_a_connection_that_its_client_closes_is_not_said_to_stay(value: str) -> None:
    """Servers say that they close it, and one response must not say both."""
    async with serve(Plain) as client, client.stream("/", headers={"Connection": value}) as stream:
        assert "connection" not in stream.response.headers


async def test_own_headers_win() -> None:
    """Fan-out proxies may be allowed to cache."""

    class Cached(Plain):
        headers = MappingProxyType({"Cache-Control": "max-age=1"})

    async with serve(Cached) as client, client.stream("/") as stream:
        assert stream.response.headers["cache-control"] == "max-age=1"


async def test_each_response_has_its_headers_once() -> None:
    """As the class writes them, in Latin-1, and the same for each client."""

    class Closing(Plain):
        headers = MappingProxyType({"Connection": "close", "X-Name": "Zoë"})

    for endpoint, connection in ((Plain, b"keep-alive"), (Closing, b"close")):
        raw = []
        async with serve(endpoint) as client:
            for _ in range(2):
                async with client.stream("/") as stream:
                    raw.append(stream.response.headers.raw)
        assert raw[0] == raw[1]
        assert [value for name, value in raw[0] if name == b"connection"] == [connection]
    assert (b"x-name", b"Zo\xeb") in raw[0]


async def test_head_gets_the_headers_alone() -> None:
    """No hook but ``client_key`` and ``authorize`` runs, and the response ends."""

    class Guarded(Noting):
        user = ""

        def client_key(self, request: Request) -> str:
            self.user = "nobody" if request.query_params.get("no") else "ann"
            return self.user

        async def authorize(self, request: Request) -> None:
            if self.user != "ann":
                raise HTTPException(401)

    async with serve(Guarded) as client:
        response = await client.request("HEAD", "/")
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.body == b""
        assert (await client.request("HEAD", "/?no=1")).status_code == 401
    assert Guarded.notes == []


async def test_other_methods_are_not_allowed() -> None:
    """405 tells which are, in an app and without one."""
    async with serve(Plain) as client:
        response = await client.request("DELETE", "/")
    assert response.status_code == 405
    assert response.headers["allow"] == "GET, HEAD"
    async with SSETestClient(Plain, lifespan=False) as client:
        response = await client.request("DELETE", "/")
    assert response.status_code == 405
    assert response.headers["allow"] == "GET, HEAD"


async def test_other_methods_of_the_class_work_as_in_starlette() -> None:
    """A stream and a form may share a path."""

    class Both(Plain):
        async def post(self, request: Request) -> Response:
            return PlainTextResponse(await request.body())

        async def delete(self, request: Request) -> Response:
            return PlainTextResponse("deleted")

    async with serve(Both) as client:
        assert (await client.request("POST", "/", content=b"hello")).text == "hello"
        assert (await client.request("DELETE", "/")).text == "deleted"
        response = await client.request("PUT", "/")
        assert response.headers["allow"] == "GET, POST, DELETE, HEAD"


async def test_methods_that_starlette_does_not_know_are_told_too() -> None:
    """Those that open the stream, and those that the class has for itself."""

    class Own(Plain):
        methods = ("SUBSCRIBE", "GET", "LISTEN")

        async def query(self, request: Request) -> Response:
            return PlainTextResponse("found")

    async with serve(Own) as client:
        assert (await client.request("QUERY", "/")).text == "found"
        response = await client.request("PUT", "/")
        assert response.headers["allow"] == "LISTEN, SUBSCRIBE, GET, QUERY, HEAD"


async def test_a_post_may_open_a_stream_and_its_body_be_read_anywhere() -> None:
    """Hooks find the body read, as only the listener may receive later."""

    class Answer(Noting):
        methods = ("POST",)

        async def events(self, request: Request) -> AsyncIterator[Any]:
            await anyio.sleep(1)
            assert type(await request.body()) is bytes
            for word in (await request.json())["words"]:
                yield word

    async with serve(Answer) as client:
        async with client.stream("/", method="POST", json={"words": [" leading", "space"]}) as stream:
            await stream.expect(" leading", "space")
            assert await stream.closed() is Ending.FINISHED
        assert (await client.request("GET", "/")).status_code == 405
    assert Answer.notes == ["connected", CloseReason.FINISHED]


@pytest.mark.parametrize("http", ["h11", "httptools"])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_body_that_is_not_there_may_be_read_anywhere(http: str) -> None:
    """The server's word that there is none goes to the listener, and a hook would wait for it for ever."""

    class Answer(SSEEndpoint):
        methods = ("GET", "POST")
        observers = ()

        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield str(len(await request.body()))
            await anyio.lowlevel.checkpoint()
            yield str(b"".join([part async for part in request.stream()]))

    async with serving(Answer, http) as port:
        for method, headers in (("GET", {}), ("POST", {}), ("POST", {"content-length": "0"})):
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                answer = await client.request(method, "/", headers=headers)
                assert re.findall("data: (.*)", answer.text) == ["0\r", "b''\r"]
            async with serve(Answer) as testing, testing.stream("/", method=method) as stream:
                await stream.expect("0", "b''")


async def test_a_body_over_http_2_needs_no_length() -> None:
    """So it is read in any case."""

    class Answer(Plain):
        methods = ("POST",)

        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield str(await request.body(), "ascii")

    scope = scope_of(method="POST", http_version="2")
    bodies = []
    messages = iter([{"type": "http.request", "body": b"abc", "more_body": False}])

    async def receive() -> Any:
        for message in messages:
            return message
        return await anyio.sleep_forever()

    async def send(message: Any) -> None:
        bodies.append(message.get("body", b""))

    await Answer(scope, receive, send)
    assert b"data: abc\r\n\r\n" in b"".join(bodies)


async def test_a_hook_may_have_attributes_of_its_own_named_as_the_request_s() -> None:
    """What answers the request was taken before."""

    class Own(Plain):
        async def on_connect(self, request: Request) -> None:
            self.send, self.receive = anyio.create_memory_object_stream[Any](10)  # type: ignore[assignment]

        async def events(self, request: Request) -> AsyncIterator[Any]:
            with self.send, self.receive:  # type: ignore[attr-defined]
                yield "x"

    async with serve(Own) as client, client.stream("/") as stream:
        await stream.expect("x")
        assert await stream.closed() is Ending.FINISHED


async def test_an_answer_of_the_first_step_is_no_failure() -> None:
    """As it is not if ``on_connect`` gives it."""

    class Missing(Noting):
        async def events(self, request: Request) -> AsyncIterator[Any]:
            if not request.query_params:
                raise HTTPException(404, "no such job")
            yield "x"

    with capture_logs() as logs:
        async with serve(Missing) as client:
            assert (await client.request("GET", "/")).status_code == 404
    assert logs.named("stream.failed") == []
    assert Missing.notes == ["connected", CloseReason.ERROR]


@pytest.mark.parametrize("answer", [None, 7])
async def test_a_client_is_known_by_a_text(answer: Any) -> None:
    """None would make all who send no header one client."""

    class Nobody(Plain):
        def client_key(self, request: Request) -> Any:
            return answer

    with pytest.raises(ConfigurationError, match=rf"Nobody.client_key must return a str, not {answer}"):
        async with serve(Nobody) as client:
            await client.request("GET", "/")


async def test_on_connect_may_answer_instead() -> None:
    """There is no stream then, and no ``on_disconnect``."""

    class Picky(Noting):
        async def on_connect(self, request: Request) -> Response | None:
            if request.query_params.get("stop"):
                return Response(status_code=204)
            raise HTTPException(409, "not now")

    async with serve(Picky) as client:
        assert (await client.request("GET", "/?stop=1")).status_code == 204
        assert (await client.request("GET", "/")).status_code == 409
    assert Picky.notes == []


async def test_on_connect_must_answer_with_a_response() -> None:
    """Anything else is an error that says so."""

    class Wrong(Noting):
        async def on_connect(self, request: Request) -> Any:
            return {"no": "response"}

    async with serve(Wrong) as client:
        with pytest.raises(ConfigurationError, match="on_connect must return None or a Response"):
            await client.stream("/")


async def test_authorize_runs_before_on_connect() -> None:
    """A client that is refused gets its real status and leaves no trace."""

    class Guarded(Noting):
        async def authorize(self, request: Request) -> None:
            raise HTTPException(401, "who are you?", {"WWW-Authenticate": "Bearer"})

    async with serve(Guarded) as client:
        response = await client.request("GET", "/")
    assert (response.status_code, response.text) == (401, "who are you?")
    assert response.headers["www-authenticate"] == "Bearer"
    assert Guarded.notes == []


@pytest.mark.parametrize("wrong", [5, "text", b"bytes", {"a": 1}, None])
async def test_events_that_cannot_be_iterated_are_an_error_before_the_response(wrong: Any) -> None:
    """A string would be a stream of letters, a mapping one of its keys."""

    class Wrong(Noting):
        def events(self, request: Request) -> Any:
            return wrong

    async with serve(Wrong) as client:
        with pytest.raises(ConfigurationError, match=r"Wrong\.events\(\) must give an async iterator"):
            await client.stream("/")
    assert Wrong.notes == ["connected", CloseReason.ERROR]


async def test_an_endpoint_without_events_says_so() -> None:
    """The class may be abstract; its stream may not."""

    class Abstract(SSEEndpoint):
        observers = ()

    async with serve(Abstract) as client:
        with pytest.raises(ConfigurationError, match=r"Abstract must define events\(self, request\)"):
            await client.stream("/")


@pytest.mark.parametrize(
    ("url", "header", "expected"),
    [
        ("/", None, None),
        ("/", "41", "41"),
        ("/?lastEventId=7", None, "7"),
        ("/?lastEventId=7", "41", "41"),
        ("/", "f\u00fcnf \u20ac", "f\u00fcnf \u20ac"),
    ],
)
async def test_the_last_event_id_comes_from_the_header_or_the_query(
    url: str, header: str | None, expected: str | None
) -> None:
    """The header wins, and what it says beyond ASCII is read as UTF-8."""

    class Resuming(Noting):
        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield {"data": {"id": self.last_event_id}}

    async with serve(Resuming) as client, client.stream(url, last_event_id=header) as stream:
        assert (await stream.next_event()).json() == {"id": expected}


async def test_context_variables_of_on_connect_are_seen_by_events() -> None:
    """Both run in the request's context."""
    from contextvars import ContextVar

    user: ContextVar[str] = ContextVar("user")

    class Bound(Noting):
        async def on_connect(self, request: Request) -> None:
            user.set("alice")

        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield user.get()

    async with serve(Bound) as client, client.stream("/") as stream:
        await stream.expect("alice")


async def test_two_endpoints_may_be_in_one_app() -> None:
    """Each has its own settings."""

    class One(Plain):
        retry = 1

    class Two(Plain):
        retry = 2

    app = Starlette(routes=[Route("/one", One), Route("/two", Two)])
    async with SSETestClient(app) as client:
        for path, retry in (("/one", 1), ("/two", 2)):
            async with client.stream(path) as stream:
                await stream.expect("x")
                assert stream.retry == retry


@pytest.mark.parametrize("answer", [False, True, PlainTextResponse("no", 401)])
async def test_authorize_must_not_return_anything(answer: Any) -> None:
    """Who returns False means no: nobody is let in by a mistake, at the beginning or later."""

    class Wrong(Noting):
        pause = 0.0
        authorize_interval = 10.0

        async def authorize(self, request: Request) -> Any:
            return answer if self.notes or not request.query_params else None

        async def on_connect(self, request: Request) -> None:
            self.notes.append("connected")

    async with serve(Wrong) as client:
        with pytest.raises(ConfigurationError, match=r"Wrong\.authorize must raise HTTPException to refuse"):
            await client.stream("/")
        assert Wrong.notes == []
        async with client.stream("/?later=1") as stream:
            await stream.expect("first", {"event": "stream-error"})
            await stream.closed()
    assert Wrong.notes == ["connected", "cleaned up", CloseReason.ERROR]


async def test_a_stream_that_is_closed_before_it_is_open_ends_at_once() -> None:
    """``close()`` in a hook is not forgotten."""

    class Closed(Noting):
        pause = 0.0

        async def on_connect(self, request: Request) -> None:
            self.close()

    async with serve(Closed) as client, client.stream("/") as stream:
        assert await stream.closed() is Ending.FINISHED
    assert Closed.notes[-1] is CloseReason.CLOSED


async def test_a_response_class_is_no_response() -> None:
    """Nor is a function; the message says what is expected."""

    class Wrong(Noting):
        async def on_connect(self, request: Request) -> Any:
            return PlainTextResponse

    async with serve(Wrong) as client:
        with pytest.raises(ConfigurationError, match=r"Wrong\.on_connect must return None or a Response"):
            await client.stream("/")


async def test_a_client_that_leaves_while_it_sends_its_body_gets_no_answer() -> None:
    """There is nobody to answer, nothing to log, and its place is given back."""

    class Single(Plain):
        methods = ("POST",)
        max_connections = 1

    async def gone() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    sent: list[Any] = []
    headers = [(b"content-length", b"5")]
    scope = scope_of(method="POST", headers=headers)
    for _ in range(2):
        await Single(scope, gone, send)
    assert (sent, Single.notes) == ([], [])


async def test_a_disconnect_that_a_hook_raises_is_its_own() -> None:
    """It may be that of another request, which the hook has made."""

    class Relaying(Plain):
        async def on_connect(self, request: Request) -> None:
            raise ClientDisconnect

    async with serve(Relaying) as client:
        with pytest.raises(ClientDisconnect):
            await client.request("GET", "/")


@pytest.mark.parametrize("header", [(b"content-length", b"24"), (b"transfer-encoding", b"chunked")])
async def test_a_body_that_is_too_large_is_answered_413(header: tuple[bytes, bytes]) -> None:
    """It would be kept as long as the stream is open; no more of it is received, and its place is free again."""
    received: list[int] = []

    class Small(Plain):
        methods = ("POST",)
        max_connections = 1
        max_body_bytes = 10

    async def receive() -> Any:
        received.append(1)
        return {"type": "http.request", "body": b"12345678", "more_body": len(received) < 3}

    async def send(message: Any) -> None: ...

    scope = scope_of(method="POST", headers=[header])
    for _ in range(2):
        received.clear()
        with pytest.raises(HTTPException) as caught:
            await Small(scope, receive, send)
        assert caught.value.status_code == 413
        assert len(received) == 2
    assert Small.notes == []
    async with serve(Small) as client, client.stream("/", method="POST", content=b"1234567890") as stream:
        await stream.expect("x")


async def test_how_large_a_body_may_be_can_depend_on_who_sends_it() -> None:
    """Who is known may send more: ``authorize`` comes before the body is read."""

    class Trusting(Plain):
        methods = ("POST",)
        max_body_bytes = 10

        async def authorize(self, request: Request) -> None:
            if request.query_params.get("known"):
                self.max_body_bytes = 100

    async with serve(Trusting) as client:
        assert (await client.request("POST", "/", content=b"x" * 50)).status_code == 413
        async with client.stream("/?known=1", method="POST", content=b"x" * 50) as stream:
            await stream.expect("x")


@pytest.mark.parametrize("value", [-1, True, "x"])
async def test_a_wrong_size_of_a_body_is_the_apps_error(value: Any) -> None:
    """And not the client's: nothing of the body is read for it."""

    class Wrong(Plain):
        methods = ("POST",)

        async def authorize(self, request: Request) -> None:
            self.max_body_bytes = value

    async with serve(Wrong) as client:
        with pytest.raises(ConfigurationError, match=r"Wrong\(\)\.max_body_bytes must be a whole number"):
            await client.stream("/", method="POST", content=b"x")


async def test_a_body_that_does_not_come_holds_no_place_for_long() -> None:
    """The client is answered 408 after ``send_timeout``, and the next one gets its place."""

    class Patient(Plain):
        max_connections = 1
        send_timeout = 7.0
        methods = ("GET", "POST")

    async def receive() -> Any:
        await anyio.sleep_forever()

    async def send(message: Any) -> None: ...

    scope = scope_of(method="POST", client=("10.0.0.1", 1))
    began = anyio.current_time()
    with pytest.raises(HTTPException) as caught:
        await Patient(scope | {"headers": [(b"content-length", b"10")]}, receive, send)
    assert caught.value.status_code == 408
    assert anyio.current_time() - began == pytest.approx(7.0)
    assert Patient.notes == []
    async with serve(Patient) as client, client.stream("/") as stream:
        await stream.expect("x")


async def test_a_header_of_one_client_is_never_another_s() -> None:
    """Neither the default nor a class's own headers can be changed in place."""

    class Default(Plain):
        async def on_connect(self, request: Request) -> None:
            self.headers["X-User"] = "ann"  # type: ignore[index]

    mine = {"X-App": "board"}

    class Own(Default):
        headers = mine

    for endpoint in (Default, Own):
        async with serve(endpoint) as client:
            with pytest.raises(TypeError, match="does not support item assignment"):
                await client.stream("/")
    assert mine == {"X-App": "board"}
    assert "X-User" not in SSEEndpoint.headers


@pytest.mark.parametrize("hook", ["authorize", "on_connect"])
async def test_a_hook_that_finds_the_broker_away_refuses_the_client(hook: str) -> None:
    """A browser is told so that it comes back, as by a channel's endpoint; nothing was opened."""

    async def ask(self: Plain, request: Request) -> None:
        raise BrokerUnavailableError("redis is away")

    endpoint: Any = type("Asking", (Plain,), {hook: ask, "max_connections": 1})
    async with serve(endpoint) as client:
        for _ in range(2):
            async with client.stream("/", headers={"accept": "text/event-stream"}) as stream:
                await stream.expect({"event": "stream-rejected", "data": {"reason": "broker_unavailable"}})
        assert (await client.request("GET", "/", headers={"accept": "*/*"})).status_code == 503
    assert [note for note in endpoint.notes if note != "connected"] == []
