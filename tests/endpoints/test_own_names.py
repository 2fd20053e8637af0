"""A subclass's own private names are its author's: the framework's begin with ``_sse_``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.requests import Request

from starlette_sse import Broker, ChannelEndpoint, CloseReason, SSEEndpoint
from starlette_sse.endpoints.visits import Visit
from tests.streams.apps import Noting, serve

pytestmark = pytest.mark.anyio

#: What people call things, and what the framework calls its own.
NAMES = ("_broker", "_call", "_channels", "_events", "_opening", "_position", "_prepare", "_release", "_subscribe")


async def unused(*args: Any) -> Any:
    raise AssertionError("the framework has called a name that is not its own")


@pytest.mark.parametrize("endpoint", [SSEEndpoint, ChannelEndpoint])
def test_the_framework_takes_no_other_private_names(endpoint: type[SSEEndpoint]) -> None:
    """Neither of the class nor of an instance."""
    instance = endpoint({"type": "http"}, unused, unused)
    own = {name for kind in endpoint.__mro__ if kind.__module__.startswith("starlette_sse") for name in vars(kind)}
    private = {name for name in own | set(vars(instance)) if name.startswith("_") and not name.endswith("__")}
    assert private
    assert {name for name in private if not name.startswith("_sse_")} == set()


async def test_a_subclass_may_use_any_private_name() -> None:
    """As methods, and as attributes of an instance; pings, limits and cleanup do what they do without them."""

    class Mine(Noting):
        max_connections = 1

        async def on_connect(self, request: Request) -> None:
            for name in Visit.__slots__:
                setattr(self, name, 0)

        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield sum(getattr(self, name) for name in Visit.__slots__)

    for name in NAMES:
        setattr(Mine, name, unused)
    async with serve(Mine) as client:
        for _ in range(2):
            async with client.stream("/") as stream:
                await stream.expect("0")
                await stream.closed()
    assert Mine.notes == [CloseReason.FINISHED] * 2


async def test_a_channel_s_endpoint_may_too() -> None:
    """Its subscription is found, and left, without a name of the author's."""
    made = Broker(observers=())

    class Mine(ChannelEndpoint):
        broker = made
        channels = ("news",)
        observers = ()
        _subscription = _snapshot = None

    for name in NAMES:
        setattr(Mine, name, unused)
    async with serve(Mine) as client:
        async with client.stream("/") as stream:
            assert (await stream.next_comment()).text == "open"
            await made.publish("news", "hello")
            await stream.expect("hello")
            assert (await stream.next_comment(timeout=60)).text == "ping"
        assert made.health().subscriptions == 0
