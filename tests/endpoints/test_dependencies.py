"""What FastAPI gives to its functions alone must not look, in a class, as if it guarded something."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import fastapi
import pytest
from starlette.requests import Request
from starlette.responses import Response

from starlette_sse import ChannelEndpoint, ConfigurationError, EndpointResponse, SSEEndpoint
from starlette_sse.testing import SSETestClient
from tests.streams.apps import Noting, app_of

if TYPE_CHECKING:
    from collections.abc import Sequence as KnownToTypeCheckersAlone

pytestmark = pytest.mark.anyio

MARKS = [fastapi.Depends(list), fastapi.Security(list), fastapi.Header(), fastapi.Query(), fastapi.Cookie()]
CurrentUser = Annotated[str, fastapi.Depends(list)]


class Guarded(Noting):
    """Leaves its user to a function, by an annotation that is a string here."""

    other: KnownToTypeCheckersAlone[str]
    user: CurrentUser

    async def events(self, request: Request) -> AsyncIterator[Any]:
        yield f"for {self.user}"


class Open(Noting):
    """Has a user in any case, who is nobody."""

    user: CurrentUser | None = None
    name: Annotated[str | None, fastapi.Depends(list)] = None


@pytest.mark.parametrize("mark", MARKS, ids=repr)
@pytest.mark.parametrize("hook", ["authorize", "on_connect", "events", "channels"])
def test_a_hook_with_an_annotated_dependency_is_refused(hook: str, mark: Any) -> None:
    """It would be called without, and let everybody in."""

    async def function(self: Any, request: Request, user: Any = None) -> None: ...

    function.__annotations__ = {"request": Request, "user": Annotated[Any, mark]}
    bases = (ChannelEndpoint if hook == "channels" else SSEEndpoint,)
    told = rf"Wrong\.{hook}: FastAPI does not fill in {type(mark).__name__}\(\) here"
    with pytest.raises(ConfigurationError, match=told):
        type("Wrong", bases, {hook: function})


def test_a_hook_whose_annotations_are_strings_is_refused_too() -> None:
    """As in a module with ``from __future__ import annotations``."""

    async def authorize(self: Any, request: Request, user: CurrentUser = "") -> None: ...

    with pytest.raises(ConfigurationError, match=r"Wrong\.authorize: FastAPI does not fill in Depends\(\) here"):
        type("Wrong", (SSEEndpoint,), {"authorize": authorize})


@pytest.mark.parametrize("endpoint", [Guarded, Open])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_route_that_gives_no_dependency_opens_nothing(endpoint: type[SSEEndpoint], method: str) -> None:
    """Nobody has asked for what may have been a guard, so nobody is let in."""
    name = "user" if endpoint is Guarded else "name"
    told = rf"{endpoint.__name__}\.{name} is annotated as a dependency.*EndpointResponse\({endpoint.__name__}, {name}="
    async with SSETestClient(app_of(endpoint)) as client:
        with pytest.raises(ConfigurationError, match=told):
            await client.request(method, "/")
    assert vars(endpoint)["notes"] == []


async def test_a_function_gives_it() -> None:
    """What it does not give is told where it makes the response."""

    async def read(request: Request) -> Response:
        return EndpointResponse(Guarded, user="ann")

    async with SSETestClient(app_of(read)) as client, client.stream("/") as stream:  # type: ignore[arg-type]
        await stream.expect("for ann")
    with pytest.raises(ConfigurationError, match=r"Guarded\.user is annotated as a dependency"):
        EndpointResponse(Guarded)


@pytest.mark.parametrize(
    "names",
    [{"user": "me"}, {"user": property(lambda self: "me")}, {"user": "me", "__annotations__": {"user": str}}],
    ids=["value", "property", "annotation"],
)
def test_a_subclass_may_bring_it_itself(names: dict[str, Any]) -> None:
    """It has been thought of."""
    EndpointResponse(type("Mine", (Guarded,), names))


def test_a_hook_may_get_it_by_its_decorator() -> None:
    """What is called takes the request alone, whatever it is annotated with."""

    def injecting(function: Any) -> Any:
        @wraps(function)
        async def hook(self: Any, request: Request) -> None:
            await function(self, request, user="me")

        return hook

    async def authorize(self: Any, request: Request, user: CurrentUser) -> None: ...

    type("Right", (SSEEndpoint,), {"authorize": injecting(authorize)})
