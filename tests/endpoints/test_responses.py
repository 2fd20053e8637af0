"""An endpoint is returned by a function, which was given what only functions are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import nullcontext
from http import HTTPStatus
from types import MappingProxyType
from typing import Annotated, Any

import anyio
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, Header
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from starlette_sse import (
    Broker,
    ChannelEndpoint,
    CloseReason,
    ConfigurationError,
    EndpointResponse,
    ServerSentEvent,
    SSEEndpoint,
)
from starlette_sse.testing import Ending, SSETestClient
from tests.streams.apps import Noting

pytestmark = pytest.mark.anyio


class Question(BaseModel):
    text: str
    words: int


class Answers(Noting):
    """Sends the words of an answer."""

    question: Question
    user: str = "nobody"

    @property
    def asked(self) -> str:
        return self.question.text

    async def events(self, request: Request) -> AsyncIterator[Any]:
        for number in range(self.question.words):
            yield f"{self.user}: {self.question.text} {number}"


async def current_user(authorization: Annotated[str, Header()]) -> str:
    if authorization == "none":
        raise HTTPException(401)
    return authorization


async def taking_notes() -> AsyncIterator[list[Any]]:
    notes: list[Any] = []
    yield notes
    notes.append("dependency closed")


def app_of(function: Any, *, path: str = "/", methods: tuple[str, ...] = ("GET",)) -> Starlette:
    return Starlette(routes=[Route(path, function, methods=[*methods])])


async def test_fastapi_s_dependencies_and_its_parsed_body_reach_the_endpoint() -> None:
    """Whoever they refuse never gets to it."""

    class Own(Answers): ...

    api = FastAPI()

    @api.post("/ask")
    async def ask(question: Question, user: Annotated[str, Depends(current_user)]) -> EndpointResponse:
        return EndpointResponse(Own, question=question, user=user)

    body = {"text": "why", "words": 2}
    async with SSETestClient(api) as client:
        async with client.stream("/ask", method="POST", json=body, headers={"Authorization": "ann"}) as stream:
            await stream.expect("ann: why 0", "ann: why 1")
            assert await stream.closed() is Ending.FINISHED
        for wrong, status in (({"json": {"text": 1}}, 422), ({"headers": {"Authorization": "none"}}, 401)):
            asked: Any = {"json": body, "headers": {"Authorization": "ann"}, **wrong}
            assert (await client.request("POST", "/ask", **asked)).status_code == status
    assert Own.notes == ["connected", CloseReason.FINISHED]


@pytest.mark.parametrize("scope", ["request", "function"])
async def test_a_dependency_with_a_yield_is_there_as_long_as_the_stream(scope: Any) -> None:
    """Its cleanup comes after the endpoint's, unless it is for the function alone."""

    class Own(Noting): ...

    api, taken = FastAPI(), Depends(taking_notes, scope=scope)

    async def read(tasks: BackgroundTasks, notes: Any = taken) -> EndpointResponse:
        Own.notes = notes
        tasks.add_task(notes.append, "task")
        return EndpointResponse(Own)

    api.get("/")(read)

    async with SSETestClient(api, timeout=100) as client, client.stream("/") as stream:
        await stream.expect("first")
        stream.disconnect()
        await stream.closed()
    life = ["connected", "cleaned up", CloseReason.CLIENT_GONE, "task"]
    assert Own.notes == (["dependency closed", *life] if scope == "function" else [*life, "dependency closed"])


@pytest.mark.parametrize(
    ("told", "notes"), [(True, ["commit"]), (False, ["rollback"])], ids=["the client", "the server"]
)
async def test_a_dependency_hears_of_an_error_that_the_client_is_not_told_of(told: bool, notes: list[str]) -> None:
    """What the client is told has been dealt with: the dependency ends as after a success."""

    class Own(SSEEndpoint):
        observers = ()

        async def events(self, request: Request) -> AsyncIterator[str]:
            yield "first"
            raise RuntimeError("a fault")

        async def on_error(self, request: Request, error: Exception) -> ServerSentEvent | None:
            return await super().on_error(request, error) if told else None

    noted = []

    async def transaction() -> AsyncIterator[None]:
        try:
            yield
        except RuntimeError:
            noted.append("rollback")
            raise
        noted.append("commit")

    api = FastAPI(dependencies=[Depends(transaction)])

    @api.get("/")
    async def read() -> EndpointResponse:
        return EndpointResponse(Own)

    with nullcontext() if told else pytest.raises(RuntimeError, match="a fault"):
        async with SSETestClient(api) as client, client.stream("/") as stream:
            await stream.expect("first")
            await stream.closed()
    assert noted == notes


async def test_limits_may_count_those_whom_a_dependency_has_found() -> None:
    """All hooks have the attributes, also the one that is asked first."""

    class Own(Answers):
        max_connections_per_client = 1
        question = Question(text="q", words=1)

        def client_key(self, request: Request) -> str:
            return self.user

        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield "first"
            await anyio.sleep_forever()

    api = FastAPI()

    @api.get("/")
    async def read(user: Annotated[str, Depends(current_user)]) -> EndpointResponse:
        return EndpointResponse(Own, user=user)

    ann, bob = {"Authorization": "ann"}, {"Authorization": "bob"}
    async with SSETestClient(api) as client, client.stream("/", headers=ann) as stream:
        await stream.expect("first")
        assert (await client.request("GET", "/", headers=ann)).status_code == 429
        async with client.stream("/", headers=bob) as another:
            await another.expect("first")


async def test_fastapi_documents_it_as_an_event_stream() -> None:
    """Where the route says so."""
    api = FastAPI()

    @api.get("/", response_class=EndpointResponse)
    async def read() -> EndpointResponse:
        return EndpointResponse(Noting)

    responses = api.openapi()["paths"]["/"]["get"]["responses"]
    assert list(responses["200"]["content"]) == ["text/event-stream"]


async def test_a_channel_may_depend_on_what_the_function_knows() -> None:
    """And who comes back resumes as at a route of its own."""

    class News(ChannelEndpoint):
        broker = Broker(observers=())
        observers = ()

    async def read(request: Request) -> Response:
        return EndpointResponse(News, channels=f"user.{request.query_params['user']}")

    async with News.broker, SSETestClient(app_of(read)) as client:
        async with client.stream("/?user=ann") as ann, client.stream("/?user=bob") as bob:
            await News.broker.publish("user.ann", "for ann")
            await News.broker.publish("user.bob", "for bob")
            await ann.expect("for ann")
            await bob.expect("for bob")
        await News.broker.publish("user.ann", "meanwhile")
        async with client.stream("/?user=ann", headers={"Last-Event-ID": ann.last_event_id}) as again:
            await again.expect("meanwhile")


async def test_the_hooks_are_asked_as_at_a_route() -> None:
    """What they answer or raise is the function's answer."""

    class Own(Answers):
        async def authorize(self, request: Request) -> None:
            if self.user == "nobody":
                raise HTTPException(403)

        async def on_connect(self, request: Request) -> Response | None:
            return PlainTextResponse("not you") if self.user == "bob" else None

    async def ask(request: Request) -> Response:
        return EndpointResponse(Own, user=request.query_params.get("user", "nobody"))

    async with SSETestClient(app_of(ask)) as client:
        assert (await client.request("GET", "/")).status_code == 403
        assert (await client.request("GET", "/?user=bob")).text == "not you"


async def test_the_route_of_the_function_says_which_methods_there_are() -> None:
    """Whatever the class says, which is not a route there; HEAD gets the headers alone."""

    class Own(Answers):
        question = Question(text="q", words=1)

    async def ask(request: Request) -> Response:
        return EndpointResponse(Own)

    async with SSETestClient(app_of(ask, methods=("GET", "PUT"))) as client:
        async with client.stream("/", method="PUT") as stream:
            await stream.expect("nobody: q 0")
            assert await stream.closed() is Ending.FINISHED
        head = await client.request("HEAD", "/")
        assert (head.status_code, head.text) == (200, "")
        assert head.headers["content-type"].startswith("text/event-stream")
        assert Own.notes == ["connected", CloseReason.FINISHED]


async def test_a_response_has_headers_and_cookies_of_its_own() -> None:
    """As those that a decorator or the function sets on it; they win over the endpoint's, for this client alone."""

    class Own(Answers):
        question = Question(text="q", words=1)
        headers = MappingProxyType({"X-Own": "1", "Cache-Control": "private"})

    async def ask(request: Request) -> Response:
        response = EndpointResponse(Own)
        if request.query_params:
            response.headers["cache-control"] = "no-cache"
            response.set_cookie("a", "1")
            response.set_cookie("b", "2")
        return response

    async with SSETestClient(app_of(ask)) as client:
        for _ in range(2):
            headers = (await client.request("HEAD", "/?more")).headers
            assert headers["x-own"] == "1"
            assert headers.getlist("cache-control") == ["no-cache"]
            assert [cookie[:3] for cookie in headers.getlist("set-cookie")] == ["a=1", "b=2"]
            async with client.stream("/?more") as stream:
                assert stream.response.headers.getlist("cache-control") == ["no-cache"]
                assert len(stream.response.headers.getlist("set-cookie")) == 2
        headers = (await client.request("HEAD", "/")).headers
        assert headers.getlist("cache-control") == ["private"]
        assert "set-cookie" not in headers


async def test_head_has_the_headers_that_the_endpoint_was_given() -> None:
    """They are there before its first hook."""

    async def read(request: Request) -> Response:
        return EndpointResponse(Noting, headers={"X-Own": "1"})

    async with SSETestClient(app_of(read)) as client:
        assert (await client.request("HEAD", "/")).headers["x-own"] == "1"


async def test_a_response_may_say_what_becomes_of_the_connection() -> None:
    """Once, and not the contrary as well."""

    async def read(request: Request) -> Response:
        response = EndpointResponse(Noting)
        response.headers["connection"] = "close"
        return response

    async with SSETestClient(app_of(read)) as client:
        assert (await client.request("HEAD", "/")).headers.getlist("connection") == ["close"]


async def test_a_hook_that_wants_the_body_is_told_that_the_function_has_it() -> None:
    """It would wait for ever, or until its client has gone; where there is none it is empty."""
    read = []

    class Own(Noting):
        async def on_connect(self, request: Request) -> Response | None:
            read.append(await request.body())
            return None

    async def ask(request: Request) -> Response:
        await request.body()
        return EndpointResponse(Own)

    async with SSETestClient(app_of(ask, methods=("GET", "POST")), timeout=100) as client:
        with pytest.raises(RuntimeError, match="consumed"):
            await client.request("POST", "/", content=b"body")
        async with client.stream("/") as stream:
            await stream.expect("first")
    assert read == [b""]


async def test_a_property_that_can_be_set_may_be_given() -> None:
    """Its setter is asked, as for any instance."""

    class Own(Noting):
        @property
        def user(self) -> str:
            return self._user

        @user.setter
        def user(self, name: str) -> None:
            self._user = name.title()

        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield self.user

    async def read(request: Request) -> Response:
        return EndpointResponse(Own, user="ann")

    async with SSETestClient(app_of(read)) as client, client.stream("/") as stream:
        await stream.expect("Ann")


async def test_attributes_of_the_package_may_be_given_too() -> None:
    """For this one stream."""

    class Own(Noting):
        ping_interval = None

    async def read(request: Request) -> Response:
        return EndpointResponse(Own, ping_interval=5.0, headers={"X-Own": "1"})

    async with SSETestClient(app_of(read), timeout=100) as client, client.stream("/") as stream:
        await stream.expect("first")
        began = anyio.current_time()
        assert [(await stream.next_comment()).text for _ in range(2)] == ["open", "ping"]
        assert anyio.current_time() - began <= 5.0
        assert stream.response.headers["x-own"] == "1"
    assert Own.ping_interval is None


@pytest.mark.parametrize(
    ("attributes", "told"),
    [
        ({"usr": "ann"}, r"usr=\.\.\.\): the class has no such attribute; annotate it"),
        ({"scope": {}}, "the class has no such attribute"),
        ({"_sse_configuration": None}, "the class has no such attribute"),
        ({"on_connect": print}, "on_connect is a hook"),
        ({"on_connect": None}, "on_connect is a hook"),
        ({"close": True}, "the endpoint needs its own close"),
        ({"dispatch": None}, "the endpoint needs its own dispatch"),
        ({"asked": 1}, "the endpoint needs its own asked"),
        ({"mro": 1}, "the class has no such attribute"),
        ({"max_body_bytes": 1}, "max_body_bytes would hold nothing back"),
        ({"channels": print}, "the class has no such attribute"),
        ({"max_connections": 5}, "max_connections decides before there is a stream; set it on the class"),
        ({"ping_interval": 0}, "ping_interval"),
        ({"headers": {"X": 1}}, "headers"),
    ],
)
def test_an_attribute_that_cannot_work_is_told_at_once(attributes: dict[str, Any], told: str) -> None:
    """Where the function makes the response, by the attribute's name."""
    with pytest.raises(ConfigurationError, match=told):
        EndpointResponse(Answers, **attributes)


@pytest.mark.parametrize("status", [100, 199, 204, 205, 304, 600, True, 200.0, "200", None])
def test_a_status_without_a_body_is_told_at_once(status: Any) -> None:
    """And what is no status."""
    with pytest.raises(ConfigurationError, match="status_code must be an HTTP status from 200 to 599 that has a body"):
        EndpointResponse(Noting, status_code=status)


@pytest.mark.parametrize("status", [200, 599, HTTPStatus.ACCEPTED])
async def test_a_stream_has_the_status_that_was_given(status: int) -> None:
    """For clients that are no EventSource."""

    class Own(Noting): ...

    async def read(request: Request) -> Response:
        return EndpointResponse(Own, status_code=status)

    async with SSETestClient(app_of(read), timeout=100) as client, client.stream("/") as stream:
        await stream.expect("first")
        assert stream.response.status_code == status


@pytest.mark.parametrize("name", ["scope", "receive", "send"])
def test_what_the_request_comes_with_is_no_attribute(name: str) -> None:
    """Though the class annotates it, as one may an OAuth scope."""
    own = type("Own", (Noting,), {"__annotations__": {name: str}})
    given: dict[str, Any] = {name: "read"}
    with pytest.raises(ConfigurationError, match=f"the endpoint needs its own {name}; name the attribute otherwise"):
        EndpointResponse(own, **given)


async def test_a_task_may_be_given_for_after_the_stream() -> None:
    """As to any response."""

    class Own(Noting): ...

    async def read(request: Request) -> Response:
        return EndpointResponse(Own, background=BackgroundTask(Own.notes.append, "task"))

    async with SSETestClient(app_of(read), timeout=100) as client, client.stream("/") as stream:
        await stream.expect("first")
        stream.disconnect()
        await stream.closed()
    assert Own.notes == ["connected", "cleaned up", CloseReason.CLIENT_GONE, "task"]


@pytest.mark.parametrize("given", [{"status_code": 202}, {"background": BackgroundTask(print)}], ids=repr)
def test_a_name_of_the_responses_own_is_no_attribute(given: dict[str, Any]) -> None:
    """It would be taken for that, and the endpoint would have none."""
    (name,) = given
    own = type("Own", (Noting,), {"__annotations__": {name: str}})
    with pytest.raises(ConfigurationError, match=rf"Own\.{name} cannot be given"):
        EndpointResponse(own, **given)
    EndpointResponse(own)


def test_what_is_no_task_is_no_background() -> None:
    """Though the class may have an attribute of that name."""
    wrong: Any = "color"
    with pytest.raises(ConfigurationError, match="background must be a BackgroundTask, or None; not 'color'"):
        EndpointResponse(Noting, background=wrong)


@pytest.mark.parametrize(
    ("attributes", "told"),
    [
        ({"broker": "memory://"}, "broker must be a Broker"),
        ({"broker": None}, "broker must be a Broker"),
        ({"on_lag": "wait"}, "must be one of 'disconnect'"),
        ({"sep": "\n"}, "must be CR LF"),
        ({"max_event_bytes": 5}, "would hold nothing back"),
        ({"channels": 5}, "channels must be one or more names"),
        ({"channels": ["a", ""]}, "channel must be text"),
    ],
)
def test_an_attribute_of_channels_that_cannot_work_is_told_at_once(attributes: dict[str, Any], told: str) -> None:
    """As one of any endpoint."""

    class News(ChannelEndpoint):
        broker = Broker(observers=())

    with pytest.raises(ConfigurationError, match=told):
        EndpointResponse(News, **attributes)
    EndpointResponse(News, broker=News.broker, on_lag="latest", sep="\r\n", max_event_bytes=None)


@pytest.mark.parametrize("channels", [[], (), iter(()), set()], ids=repr)
async def test_who_may_read_no_channel_gets_403(channels: Any) -> None:
    """However that is said."""

    class News(ChannelEndpoint):
        broker = Broker(observers=())
        observers = ()

    async def read(request: Request) -> Response:
        return EndpointResponse(News, channels=channels)

    async with News.broker, SSETestClient(app_of(read)) as client:
        assert (await client.request("GET", "/")).status_code == 403


def test_a_hook_of_channels_is_no_attribute() -> None:
    """Their names are."""

    class News(ChannelEndpoint):
        broker = Broker(observers=())

    EndpointResponse(News, channels=["a", "b"])
    with pytest.raises(ConfigurationError, match="channels is a hook"):
        EndpointResponse(News, channels=lambda request: ["a"])


@pytest.mark.parametrize("what", [None, "News", PlainTextResponse, SSEEndpoint({"type": "http"}, print, print)])  # type: ignore[arg-type]
def test_what_is_no_endpoint_class_is_refused(what: Any) -> None:
    """By what it is."""
    with pytest.raises(ConfigurationError, match="takes a subclass of SSEEndpoint, not"):
        EndpointResponse(what)
