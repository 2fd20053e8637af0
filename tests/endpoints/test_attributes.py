"""Attributes and hooks that cannot work are refused when the class is created, by name and with the remedy."""

from __future__ import annotations

from abc import ABC, ABCMeta, abstractmethod
from collections.abc import AsyncIterator
from functools import wraps
from typing import Annotated, Any, Protocol

import fastapi
import fastapi.params
import pytest
from starlette.requests import Request

from starlette_sse import Broker, ChannelEndpoint, CloseReason, ConfigurationError, ServerSentEvent, SSEEndpoint
from starlette_sse.observers import Observer
from tests.streams.apps import Noting, serve


class Given(fastapi.params.Depends):
    """As a project may have one."""


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("ping_interval", 0),
        ("ping_interval", -1.0),
        ("ping_interval", "15"),
        ("ping_interval", True),
        ("ping_interval", float("nan")),
        ("ping_interval", float("inf")),
        ("send_timeout", 0),
        ("max_lifetime", -5),
        ("cleanup_timeout", 0),
        ("authorize_interval", 0.0),
        ("drain_grace", None),
        ("drain_grace", 0),
        ("drain_policy", "wait"),
        ("retry", -1),
        ("retry", 1.5),
        ("retry", True),
        ("retry", 2**31),
        ("max_connections", 0),
        ("max_connections", 1.5),
        ("max_connections_per_client", 0),
        ("methods", ()),
        ("methods", "GET"),
        ("methods", ("get",)),
        ("methods", ("GET", "HEAD")),
        ("methods", ("GET ",)),
        ("methods", (1,)),
        ("methods", ("G\u00c9T",)),
        ("methods", iter(("GET",))),
        ("headers", ["x"]),
        ("headers", {"X": "a\r\nSet-Cookie: b"}),
        ("headers", {"X": "\u20ac"}),
        ("headers", {"X": 1}),
        ("headers", {1: "a"}),
        ("headers", {"": "a"}),
        ("headers", {"X A": "a"}),
        ("headers", {"X:": "a"}),
        ("headers", {"\xdc": "a"}),
        ("sep", "\n\n"),
        ("event_class", dict),
        ("methods", None),
        ("observers", None),
        ("observers", Observer()),
        ("observers", (Observer,)),
    ],
)
def test_a_wrong_attribute_is_refused_by_name(attribute: str, value: Any) -> None:
    """The message names the class and the attribute."""
    with pytest.raises(ConfigurationError, match=rf"^.*Wrong\.{attribute} must"):
        type("Wrong", (SSEEndpoint,), {attribute: value})


def test_the_message_tells_what_to_write_instead() -> None:
    """``ping_interval = 0`` is refused rather than taken for a flood or for never."""
    with pytest.raises(ConfigurationError) as caught:
        type("Clock", (SSEEndpoint,), {"ping_interval": 0})
    assert str(caught.value) == "Clock.ping_interval must be a positive number of seconds, or None for never; not 0"


def test_events_without_a_yield_are_refused() -> None:
    """A coroutine function is no stream."""
    with pytest.raises(ConfigurationError, match=r"events has no yield; write it as an async generator"):

        class Wrong(SSEEndpoint):
            async def events(self, request: Request) -> Any:  # type: ignore[override]
                return []


@pytest.mark.parametrize("hook", ["authorize", "on_connect", "on_disconnect", "on_error", "on_drain", "ping_message"])
@pytest.mark.parametrize("value", [None, "x", [1]])
def test_a_hook_that_is_no_function_is_refused(hook: str, value: Any) -> None:
    """It would be found when it is called, which may be at the shutdown."""
    with pytest.raises(ConfigurationError, match=rf"Wrong\.{hook} must be a function of \(request.*\), not "):
        type("Wrong", (SSEEndpoint,), {hook: value})


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("authorise", "authorize"),
        ("on_conect", "on_connect"),
        ("on_disconect", "on_disconnect"),
        ("event", "events"),
        ("on_errors", "on_error"),
    ],
)
def test_a_hook_with_a_slip_in_its_name_is_refused(slip: str, meant: str) -> None:
    """Without its ``authorize`` a stream would be open to everybody."""

    def function(self: Any, request: Request) -> None: ...

    with pytest.raises(ConfigurationError, match=rf"Wrong\.{slip} is so like {meant} .*name it {meant}, or otherwise"):
        type("Wrong", (SSEEndpoint,), {slip: function})


def test_a_mixin_is_looked_at_as_well() -> None:
    """A guard with a slip guards nothing there either, nor does one that the endpoint's own default hides."""

    class Slip:
        async def authorise(self, request: Request) -> None: ...

    with pytest.raises(ConfigurationError, match=r"Slip\.authorise is so like authorize"):
        type("Wrong", (Slip, SSEEndpoint), {})

    class Guard:
        async def authorize(self, request: Request) -> None: ...

    with pytest.raises(ConfigurationError, match=r"Guard\.authorize would never be called.*class Wrong\(Guard, ...\)"):
        type("Wrong", (SSEEndpoint, Guard), {})
    type("Right", (Guard, SSEEndpoint), {})
    # What is called by the class itself, or is an interface, or helps a hook of its own, is none of both.
    type("Right", (SSEEndpoint, Guard), {"authorize": Guard.authorize})

    class Streaming(Protocol):
        def events(self, request: Request) -> Any: ...

    class Guarded(ABC):
        @abstractmethod
        async def authorize(self, request: Request) -> None: ...

    class Helper:
        async def authorized(self) -> None: ...

    type("Right", (SSEEndpoint, Streaming), {})
    abstract = ABCMeta("Right", (SSEEndpoint, Guarded), {})
    assert not abstract.__abstractmethods__
    type("Right", (Helper, SSEEndpoint), {"authorize": Guard.authorize})


def test_a_mixin_of_another_module_of_the_package_is_looked_at_as_well() -> None:
    """Its author is the endpoint's; that of another package is not."""

    async def authorise(self: Any, request: Request) -> None: ...

    package = __name__.partition(".")[0]
    ours = type("Ours", (), {"authorise": authorise, "__module__": f"{package}.elsewhere"})
    theirs = type("Theirs", (), {"authorise": authorise, "__module__": f"{package}_of_others.elsewhere"})
    with pytest.raises(ConfigurationError, match=r"Ours\.authorise is so like authorize"):
        type("Wrong", (ours, SSEEndpoint), {})
    type("Right", (theirs, SSEEndpoint), {})


def test_a_class_may_go_back_to_the_default() -> None:
    """It lets in whom a base of its own would have kept out."""

    class Guard:
        async def authorize(self, request: Request) -> None: ...

    type("Right", (Guard, SSEEndpoint), {"authorize": SSEEndpoint.authorize})


def test_a_slip_beside_the_hook_itself_is_refused() -> None:
    """In one class one of the two is not what its author thinks."""

    async def function(self: Any, request: Request) -> None: ...

    with pytest.raises(ConfigurationError, match=r"Wrong\.authorise is so like authorize"):
        type("Wrong", (SSEEndpoint,), {"authorize": function, "authorise": function})


def test_a_mixin_behind_the_endpoint_is_told_of_its_subclasses() -> None:
    """With the keywords of the class, as Python does it."""
    told: dict[str, str] = {}

    class Named:
        def __init_subclass__(cls, *, title: str, **kwargs: Any) -> None:
            super().__init_subclass__(**kwargs)
            told[cls.__name__] = title

    class News(SSEEndpoint, Named, title="The news"): ...

    assert told == {News.__name__: "The news"}


def test_an_abstract_base_may_leave_its_events_to_others() -> None:
    """Written as people write them, without a ``yield``."""

    class Base(SSEEndpoint, ABC):
        @abstractmethod
        async def events(self, request: Request) -> Any: ...  # type: ignore[override]

    async def nothing(self: Any, request: Request) -> None: ...

    with pytest.raises(ConfigurationError, match="has no yield"):
        type("Wrong", (Base,), {"events": nothing})


@pytest.mark.parametrize(
    "slip", ["ping_intervall", "max_conections", "ping_interva", "max_connection", "max_event_byte"]
)
def test_an_attribute_with_a_slip_in_its_name_is_refused(slip: str) -> None:
    """It would change nothing, without a word."""
    with pytest.raises(ConfigurationError, match=rf"Wrong\.{slip} is so like "):
        type("Wrong", (SSEEndpoint,), {slip: 5.0})


def test_an_attribute_of_a_mixin_with_a_slip_is_refused_beside_the_attribute_itself() -> None:
    """Of the two only the endpoint's has a meaning."""

    class Slow:
        ping_intervall = 60.0

    with pytest.raises(ConfigurationError, match=r"Slow\.ping_intervall is so like ping_interval"):
        type("Wrong", (Slow, SSEEndpoint), {"ping_interval": 5.0})


def test_names_that_only_remind_of_others_are_free() -> None:
    """Among them the singular of an attribute, what a base of another package has already, and private names.

    Without channels there is no snapshot that a name could be a slip of.
    """

    def function(self: Any, request: Request) -> None: ...

    Base = type("Base", (), {"on_conect": function, "event": function, "__module__": "somebody.else"})

    names = {
        "header": 1,
        "method": 1,
        "channel": 1,
        "observer": 1,
        "max_connection_age": 60,
        "ping_intervals": property(lambda self: 1),
        "_on_error": function,
        "snapshots": function,
        "on_conect": function,
        "connect": function,
        "events_of": function,
        "authorization": 1,
        "interval": 5,
    }
    type("Right", (Base, SSEEndpoint), names)
    type("Right", (ChannelEndpoint,), {"broker": Broker(observers=()), "channels": ("news",), "channel": "news"})


@pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding", "Content-Type"])
def test_headers_that_would_break_the_stream_are_refused(name: str) -> None:
    """Clients would wait for the rest of it, or would not take it."""
    with pytest.raises(ConfigurationError, match=rf"Wrong\.headers must not (hold|make) {name}"):
        type("Wrong", (SSEEndpoint,), {"headers": {name: "application/json"}})
    for value in ("text/event-stream", "Text/Event-Stream; charset=utf-8"):
        type("Right", (SSEEndpoint,), {"headers": {"content-type": value}})


def test_a_handler_for_head_is_refused() -> None:
    """It would never be called."""
    with pytest.raises(ConfigurationError, match=r"Wrong\.head would never be called"):

        class Wrong(SSEEndpoint):
            async def head(self, request: Request) -> Any: ...


def test_a_ping_that_has_to_be_awaited_is_refused() -> None:
    """A ping is due now."""
    with pytest.raises(ConfigurationError, match=r"Wrong\.ping_message must be a plain function"):

        class Wrong(SSEEndpoint):
            async def ping_message(self, request: Request) -> Any: ...  # type: ignore[override]


def test_a_handler_for_a_streaming_method_is_refused() -> None:
    """It would never be called."""
    with pytest.raises(ConfigurationError, match=r"get would never be called, because GET opens the stream"):

        class Wrong(SSEEndpoint):
            async def get(self, request: Request) -> Any: ...


@pytest.mark.parametrize("hook", ["authorize", "on_connect", "on_disconnect", "on_error", "on_drain", "ping_message"])
def test_a_hook_with_a_yield_is_refused(hook: str) -> None:
    """Calling it would run nothing of it: an ``authorize`` that raises would let everybody in."""

    def generator(self: Any, *facts: Any) -> Any:
        yield

    async def async_generator(self: Any, *facts: Any) -> Any:
        yield

    for function in (generator, async_generator):
        with pytest.raises(ConfigurationError, match=rf"Wrong\.{hook} has a yield"):
            type("Wrong", (SSEEndpoint,), {hook: function})


def test_a_hook_that_cannot_be_called_is_refused() -> None:
    """By what it must take; a function that takes anything will do."""
    with pytest.raises(ConfigurationError, match=r"Wrong\.on_disconnect must take \(self, request, reason\)"):
        type("Wrong", (SSEEndpoint,), {"on_disconnect": lambda self, request: None})
    with pytest.raises(ConfigurationError, match=r"Wrong\.events must take \(self, request\)"):
        type("Wrong", (SSEEndpoint,), {"events": lambda self: None})
    with pytest.raises(ConfigurationError, match=r"Wrong\.on_error must take \(self, request, error\), in this order"):
        type("Wrong", (SSEEndpoint,), {"on_error": lambda self, error, request: None})
    type("Right", (SSEEndpoint,), {"on_disconnect": lambda *args, **kwargs: None, "events": lambda self, _, x=1: None})
    type("Right", (SSEEndpoint,), {"on_disconnect": lambda self, *args, reason=None, request=None: None})


@pytest.mark.parametrize(
    "parameter",
    [fastapi.Depends(list), fastapi.Security(list), fastapi.Header(), fastapi.Query(), Given(list)],
    ids=repr,
)
def test_what_only_fastapi_fills_in_is_refused(parameter: Any) -> None:
    """An ``authorize`` that takes its user by ``Depends`` would get that object, and let everybody in."""

    async def authorize(self: Any, request: Request, user: Any = parameter) -> None: ...

    async def authorize_by_name(self: Any, request: Request, *, user: Any = parameter) -> None: ...

    told = rf"FastAPI does not fill in {type(parameter).__name__}\(\) here; ask for it in a function"
    for names in (
        {"authorize": authorize},
        {"authorize": authorize_by_name},
        {"user": parameter},
        {"_user": parameter},
    ):
        (name,) = names
        with pytest.raises(ConfigurationError, match=rf"Wrong\.{name}: {told}"):
            type("Wrong", (SSEEndpoint,), names)
    type("Right", (SSEEndpoint,), {"helper": authorize, "__annotations__": {"user": Annotated[str, parameter]}})


def test_a_hook_takes_what_its_decorator_takes() -> None:
    """Which may call what it is around with something else."""

    def without_request(function: Any) -> Any:
        @wraps(function)
        def events(self: Any, request: Request) -> Any:
            return function(self)

        return events

    type("Right", (SSEEndpoint,), {"events": without_request(lambda self: iter(()))})


@pytest.mark.anyio
async def test_a_hook_may_be_any_callable() -> None:
    """Such as a class method, or a function of the module, whose parameters are its own."""

    def ping(request: Request) -> ServerSentEvent:
        return ServerSentEvent(comment="from outside")

    class Outside(Noting):
        ping_interval = 10.0
        ping_message = staticmethod(ping)

        @classmethod
        async def on_connect(cls, request: Request) -> None:
            cls.notes.append("the class's")

    async with serve(Outside) as client, client.stream("/") as stream:
        await stream.expect("first")
        assert (await stream.next_comment()).text == "open"
        assert (await stream.next_comment()).text == "from outside"
    assert Outside.notes[0] == "the class's"


@pytest.mark.anyio
async def test_an_instance_may_override_attributes_in_on_connect() -> None:
    """They count for its stream alone."""

    class Chosen(Noting):
        async def on_connect(self, request: Request) -> None:
            if request.query_params.get("lf"):
                self.sep = "\n"
                self.headers = {"X-Own": "yes"}
                self.retry = 7

        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield "x"

    async with serve(Chosen) as client:
        async with client.stream("/?lf=1") as stream:
            await stream.closed()
            assert stream.body == b": open\nretry: 7\n\ndata: x\n\n"
            assert stream.response.headers["x-own"] == "yes"
        async with client.stream("/") as stream:
            await stream.closed()
            assert stream.body == b": open\r\n\r\ndata: x\r\n\r\n"
            assert "x-own" not in stream.response.headers


@pytest.mark.anyio
async def test_an_instance_may_have_times_of_its_own() -> None:
    """Its stream is pinged, though those of its class are not."""

    class Chosen(Noting):
        ping_interval = None

        async def on_connect(self, request: Request) -> None:
            self.ping_interval = 10.0

    async with serve(Chosen) as client, client.stream("/") as stream:
        await stream.expect("first")
        assert (await stream.next_comment()).text == "open"
        assert (await stream.next_comment(timeout=20)).text == "ping"


@pytest.mark.anyio
async def test_a_wrong_attribute_of_an_instance_is_an_error_before_the_response() -> None:
    """``on_disconnect`` is called, as ``on_connect`` succeeded."""

    class Wrong(Noting):
        async def on_connect(self, request: Request) -> None:
            self.ping_interval = 0

        async def on_disconnect(self, request: Request, reason: CloseReason) -> None:
            self.notes.append(reason)

    async with serve(Wrong) as client:
        with pytest.raises(ConfigurationError, match=r"Wrong\(\)\.ping_interval must"):
            await client.stream("/")
    assert Wrong.notes == [CloseReason.ERROR]


@pytest.mark.anyio
async def test_data_can_be_encoded_by_another_library() -> None:
    """``event_class`` is the one place to swap the JSON encoder."""

    class Shouted(ServerSentEvent):
        @staticmethod
        def dumps(value: Any) -> bytes:
            return repr(value).upper().encode()

    class Loud(Noting):
        event_class = Shouted

        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield {"data": ["a"]}
            yield ["b"]

    async with serve(Loud) as client, client.stream("/") as stream:
        await stream.expect("['A']", "['B']")


@pytest.mark.anyio
async def test_a_wrong_event_class_of_an_instance_is_an_error_before_the_response() -> None:
    """Like any other attribute."""

    class Wrong(Noting):
        pause = 0.0

        async def on_connect(self, request: Request) -> None:
            self.event_class = dict  # type: ignore[assignment]

    async with serve(Wrong) as client:
        with pytest.raises(ConfigurationError, match=r"Wrong\(\)\.event_class must"):
            await client.stream("/")
