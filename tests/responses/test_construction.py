"""The constructor takes, refuses and keeps what sse-starlette's does."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from types import ModuleType
from typing import Any

import anyio
import pytest
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse, Response

from starlette_sse import ConfigurationError, EventSourceResponse
from starlette_sse.responses import NEVER_CALLED
from tests.responses.packages import sse_starlette


async def push() -> None:
    """Stand for a coroutine function."""


class Pushing:
    """Callable, by a coroutine function."""

    async def __call__(self) -> None: ...


REFUSED: list[tuple[dict[str, Any], type[Exception]]] = [
    ({"sep": ""}, ValueError),
    ({"sep": "\n\n"}, ValueError),
    ({"sep": "|"}, ValueError),
    ({"ping": -1}, ValueError),
    ({"ping": -0.001}, ValueError),
    ({"ping": "15"}, TypeError),
    ({"ping": [15]}, TypeError),
    ({"shutdown_grace_period": -1}, ValueError),
    ({"shutdown_grace_period": None}, TypeError),
    ({"shutdown_grace_period": "1"}, TypeError),
    ({"cleanup_timeout": -0.5}, ValueError),
    ({"cleanup_timeout": "1"}, TypeError),
]

ALLOWED: list[dict[str, Any]] = [
    {"sep": None},
    {"sep": "\r"},
    {"ping": None},
    {"ping": 0},
    {"ping": 0.5},
    {"ping": 3600},
    {"ping": float("inf")},
    {"cleanup_timeout": None},
    {"cleanup_timeout": 0},
    {"send_timeout": None},
    {"send_timeout": 1},
    {"shutdown_grace_period": 0},
    {"shutdown_grace_period": 1.5, "shutdown_event": None},
    {"background": BackgroundTask(push)},
    {"data_sender_callable": push},
    {"data_sender_callable": partial(push)},
    {"data_sender_callable": Pushing()},
    {"status_code": 201},
]


@pytest.mark.parametrize(("parameters", "error"), REFUSED, ids=str)
def test_what_sse_starlette_refuses_is_refused(
    package: ModuleType, parameters: dict[str, Any], error: type[Exception]
) -> None:
    """By the same kind of error, when the response is made."""
    with pytest.raises(error):
        package.EventSourceResponse([], **parameters)


def test_headers_that_are_no_mapping_are_refused() -> None:
    """By name, and not by what is missing from them."""
    with pytest.raises(ConfigurationError, match="headers must map names to values, or be None"):
        EventSourceResponse([], headers=[("A", "b")])  # type: ignore[arg-type]


@pytest.mark.parametrize("headers", [{"A": 1}, {"A": None}, {"A": "\u20ac"}, {"\u20ac": "a"}, {b"A": b"b"}], ids=str)
def test_headers_that_cannot_be_encoded_are_refused(headers: Any) -> None:
    """By name, and not by what encoding them raises."""
    with pytest.raises(ConfigurationError, match=r"headers must map Latin-1 text to the same; not b?'"):
        EventSourceResponse([], headers=headers)
    EventSourceResponse([], headers={"A": "\xe9"})


@pytest.mark.parametrize("parameters", ALLOWED, ids=str)
def test_what_sse_starlette_takes_is_taken(package: ModuleType, parameters: dict[str, Any]) -> None:
    """Each value means the same."""
    response = package.EventSourceResponse([], **parameters)
    for name in ("sep", "send_timeout", "background", "data_sender_callable", "status_code"):
        if parameters.get(name) is not None:
            assert getattr(response, name) == parameters[name]
    assert response.ping_interval == (15 if parameters.get("ping") is None else parameters["ping"])


def test_parameters_have_the_same_order_and_defaults() -> None:
    """So positional arguments mean the same."""

    def attributes(response: Any) -> dict[str, Any]:
        names = ("status_code", "media_type", "background", "sep", "ping_interval", "ping_message_factory", "active")
        more = ("data_sender_callable", "send_timeout", "client_close_handler_callable", "raw_headers", "charset")
        private = ("_shutdown_event", "_shutdown_grace_period", "_cleanup_timeout")
        return {name: getattr(response, name) for name in (*names, *more, *private)}

    event = anyio.Event()
    arguments = (201, {"a": "b"}, "text/plain", BackgroundTask(push), 7, "\n", dict, push, 3, push, event, 2, 9)
    ours, theirs = EventSourceResponse([]), sse_starlette.EventSourceResponse(iter([]))
    assert attributes(ours) == attributes(theirs)
    ours = EventSourceResponse([], *arguments)  # type: ignore[arg-type]  # any callable will do
    theirs = sse_starlette.EventSourceResponse(iter([]), *arguments)  # type: ignore[arg-type]
    assert attributes(ours) == attributes(theirs)
    assert attributes(ours)["sep"] == "\n"


HEADERS: list[dict[str, Any]] = [
    {},
    {"headers": {"X-One": "1"}},
    {"headers": {"Cache-Control": "public, max-age=29"}},
    {"headers": {"cache-control": "no-cache", "Connection": "close", "X-ACCEL-BUFFERING": "yes"}},
    {"headers": {"X-One": "1", "x-one": "2"}},
    {"headers": {"Content-Type": "application/x-ndjson"}},
    {"headers": {"Content-Length": "5"}},
    {"media_type": "text/plain"},
    {"media_type": "text/event-stream; charset=ascii"},
    {"media_type": "application/json"},
    {"media_type": ""},
    {"status_code": 204},
]


@pytest.mark.parametrize("parameters", HEADERS, ids=str)
def test_headers_are_the_same(parameters: dict[str, Any]) -> None:
    """Names, values, order and which of them win."""
    ours = EventSourceResponse([], **parameters)
    theirs = sse_starlette.EventSourceResponse(iter([]), **parameters)
    assert ours.raw_headers == theirs.raw_headers


def test_headers_and_cookies_can_be_changed_before_the_response_is_sent(package: ModuleType) -> None:
    """As those of any response of Starlette, of which it is one."""
    response = package.EventSourceResponse([])
    response.headers["X-Late"] = "1"
    del response.headers["Connection"]
    response.set_cookie("session", "s", httponly=True)
    response.delete_cookie("old")
    names = [name for name, _ in response.raw_headers]
    assert isinstance(response, Response)
    assert names == [b"cache-control", b"x-accel-buffering", b"content-type", b"x-late", b"set-cookie", b"set-cookie"]


def test_the_ping_interval_can_be_set(package: ModuleType) -> None:
    """It is checked as the parameter is."""
    response = package.EventSourceResponse([])
    response.ping_interval = 25
    assert response.ping_interval == 25
    with pytest.raises(TypeError, match="ping interval must be int or float"):
        response.ping_interval = "ten"
    with pytest.raises(ValueError, match="ping interval must be >= 0"):
        response.ping_interval = -42
    assert response.ping_interval == 25


def test_a_subclass_may_change_the_defaults(package: ModuleType) -> None:
    """As class attributes."""

    class Own(package.EventSourceResponse):  # type: ignore[name-defined,misc]
        DEFAULT_PING_INTERVAL = 3
        DEFAULT_SEPARATOR = "\n"
        media_type = "text/x-own"

    response = Own([], media_type=None)
    assert (response.ping_interval, response.sep) == (3, "\n")
    assert response.headers["content-type"] == "text/x-own; charset=utf-8"
    assert package.EventSourceResponse.DEFAULT_CLEANUP_TIMEOUT == 30.0


def test_compression_is_refused(package: ModuleType) -> None:
    """An event that waits in a compressor is late."""
    with pytest.raises(NotImplementedError):
        package.EventSourceResponse([]).enable_compression()


def test_async_content_is_the_body_iterator(package: ModuleType) -> None:
    """So code that wraps ``body_iterator`` finds what it was given."""

    async def events() -> Any:
        yield 1

    content = events()
    assert package.EventSourceResponse(content).body_iterator is content


NO_STREAM: list[tuple[Any, str]] = [
    ("text", "put it in a list"),
    (b"bytes", "put it in a list"),
    (bytearray(b"bytes"), "put it in a list"),
    (memoryview(b"bytes"), "put it in a list"),
    ({"data": 1}, "put it in a list"),
    (42, "write an async generator"),
    (None, "write an async generator"),
    (push, "call it"),
    (PlainTextResponse("x"), "return it from on_connect or from the route"),
]


@pytest.mark.parametrize(("content", "remedy"), NO_STREAM, ids=repr)
def test_content_that_is_no_stream_is_refused(content: Any, remedy: str) -> None:
    """At once, with the remedy; not letter by letter, and not after the response has begun."""
    with pytest.raises(ConfigurationError, match=rf"content must give .*; .*{remedy}") as caught:
        EventSourceResponse(content)
    assert not isinstance(content, str) or content not in str(caught.value).replace("type", "")


def test_a_coroutine_as_content_is_refused_and_closed() -> None:
    """It is what a function without ``yield`` gives; nothing warns of a coroutine that was never awaited."""
    with pytest.raises(ConfigurationError, match="not coroutine; an async function that is to stream needs a yield"):
        EventSourceResponse(push())  # type: ignore[arg-type]


CALLABLES = ["ping_message_factory", "data_sender_callable", "client_close_handler_callable"]


@pytest.mark.parametrize("name", CALLABLES)
def test_a_callable_that_cannot_be_called_is_refused(name: str) -> None:
    """At once, and not when the client has gone."""
    parameters: dict[str, Any] = {name: 3}
    with pytest.raises(TypeError, match=f"{name} must be a function, not int"):
        EventSourceResponse([], **parameters)
    parameters = {name: push()}
    with pytest.raises(TypeError, match=rf"{name} must be a function, not the coroutine .*; leave out the \(\)"):
        EventSourceResponse([], **parameters)


async def yields() -> Any:
    yield


def yields_in_a_thread() -> Any:
    yield


class Yielding:
    """Callable, by an async generator function."""

    async def __call__(self) -> Any:
        yield


@pytest.mark.parametrize("name", CALLABLES)
@pytest.mark.parametrize("function", [yields, yields_in_a_thread, Yielding(), partial(yields)], ids=repr)
def test_a_callable_that_has_a_yield_is_refused(name: str, function: Any) -> None:
    """Calling it would only make a generator that nobody iterates over."""
    parameters: dict[str, Any] = {name: function}
    with pytest.raises(ConfigurationError, match=f"{name} has a yield, so that calling it would not run it"):
        EventSourceResponse([], **parameters)


@pytest.mark.parametrize("function", [push, partial(push), Pushing()], ids=repr)
def test_a_ping_that_has_to_be_awaited_is_refused(function: Any) -> None:
    """At once, and not at the first ping."""
    with pytest.raises(ConfigurationError, match="ping_message_factory must be a plain function"):
        EventSourceResponse([], ping_message_factory=function)


@pytest.mark.parametrize("value", [3, True, "set", anyio.Event])
def test_a_shutdown_event_that_cannot_be_set_is_refused(value: Any) -> None:
    """At once, and not at the shutdown; that of any library will do."""
    with pytest.raises(ConfigurationError, match=r"shutdown_event must be an anyio.Event\(\), or None; not "):
        EventSourceResponse([], shutdown_event=value)
    for event in (anyio.Event(), asyncio.Event(), threading.Event()):
        EventSourceResponse([], shutdown_event=event)  # type: ignore[arg-type]


SENSELESS: list[tuple[dict[str, Any], type[Exception]]] = [
    ({"ping": True}, TypeError),
    ({"ping": float("nan")}, ConfigurationError),
    ({"send_timeout": 0}, ConfigurationError),
    ({"send_timeout": -1}, ConfigurationError),
    ({"send_timeout": float("nan")}, ConfigurationError),
    ({"cleanup_timeout": float("nan")}, ConfigurationError),
    ({"shutdown_grace_period": float("nan")}, ConfigurationError),
]


@pytest.mark.parametrize(("parameters", "error"), SENSELESS, ids=str)
def test_a_time_that_means_nothing_is_refused(parameters: dict[str, Any], error: type[Exception]) -> None:
    """A stream that could send nothing, or would ping for ever, is stopped before it begins."""
    with pytest.raises(error):
        EventSourceResponse([], **parameters)


def test_what_is_no_observer_is_refused_with_the_class() -> None:
    """And not by each request."""
    with pytest.raises(ConfigurationError, match=r"Wrong\.observers must be a sequence of Observer instances"):
        type("Wrong", (EventSourceResponse,), {"observers": (1,)})


@pytest.mark.parametrize("name", ["_ping", "_stream_response", "_listen_for_disconnect", "_listen_for_exit_signal"])
def test_a_method_of_sse_starlettes_that_would_never_be_called_is_refused_with_the_class(name: str) -> None:
    """Whoever has overridden it counts on it."""
    overriding = {name: lambda self: None}
    of_mixin: tuple[tuple[type, ...], dict[str, Any]] = ((type("Mixin", (), overriding), EventSourceResponse), {})
    for bases, members in (((EventSourceResponse,), overriding), of_mixin):
        with pytest.raises(ConfigurationError, match=rf"Own\.{name} is a method of sse-starlette's"):
            type("Own", bases, members)
    type("Other", (EventSourceResponse,), {name: 5})
    type("Behind", (EventSourceResponse, of_mixin[0][0]), {})


def test_every_private_method_of_sse_starlettes_is_known() -> None:
    """A new version may have more."""
    private = {name for name in vars(sse_starlette.EventSourceResponse) if name.startswith("_") and name[1] != "_"}
    assert private == NEVER_CALLED


def test_observers_may_be_a_property() -> None:
    """Then they are known with each response."""

    class Own(EventSourceResponse):
        @property
        def observers(self) -> list[Any]:  # type: ignore[override]
            return []

    assert Own([]).observers == []
