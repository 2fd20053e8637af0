"""An endpoint as the answer of a function, which was given dependencies, or a body that is parsed already."""

from __future__ import annotations

import inspect
from types import FunctionType
from typing import Any

from starlette.background import BackgroundTask
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from starlette_sse.attributes import annotations_of, check_status
from starlette_sse.endpoints.configuration import check_given
from starlette_sse.endpoints.endpoint import SSEEndpoint
from starlette_sse.endpoints.hooks import HOOKS
from starlette_sse.exceptions import ConfigurationError

__all__ = ["EndpointResponse"]

#: What an endpoint is made with.
REQUEST = frozenset({"scope", "receive", "send"})


class EndpointResponse(Response):
    """Answers a request by an endpoint class; return it from a function, such as a route of FastAPI's.

    What the function was given goes on to the endpoint as attributes of its instance::

        class News(ChannelEndpoint):
            broker = broker
            user: User

            async def channels(self, request):
                return [f"user.{self.user.id}"]

        @api.get("/news")
        async def news(user: Annotated[User, Depends(current_user)]) -> EndpointResponse:
            return EndpointResponse(News, user=user)

    All that the class promises holds as if it were a route itself, but for two things: the function's route says which
    methods there are, and a body is what the function has read of it, so that ``request.body()`` raises in the hooks.

    :param endpoint: the class.
    :param status_code: that of the stream; an ``EventSource`` takes 200 alone.
    :param background: runs after the stream, unless that raised.
    :param attributes: set on the instance before its first hook is called: attributes that the class has or annotates,
        its own and those of :class:`~starlette_sse.SSEEndpoint`.
    :raises ConfigurationError: ``endpoint`` is no endpoint class, or ``status_code`` one without a body; or the class
        does not know an attribute, or that is a hook, decides before there is an instance, is what the endpoint works
        by, or has a value that cannot work.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        endpoint: type[SSEEndpoint],
        /,
        *,
        status_code: int = 200,
        background: BackgroundTask | None = None,
        **attributes: Any,
    ) -> None:
        given: Any = endpoint
        if not (isinstance(given, type) and issubclass(given, SSEEndpoint)):
            raise ConfigurationError(f"EndpointResponse takes a subclass of SSEEndpoint, not {given!r:.100}")
        check_status("status_code", status_code)
        if background is not None and not callable(background):
            raise ConfigurationError(f"background must be a BackgroundTask, or None; not {background!r:.100}")
        for name, is_given in (("status_code", status_code != 200), ("background", background is not None)):
            if is_given and knows(endpoint, name):
                raise ConfigurationError(
                    f"{endpoint.__qualname__}.{name} cannot be given, because EndpointResponse has its own; name the "
                    "attribute otherwise"
                )
        check_given(endpoint, attributes)
        for name, value in attributes.items():
            check_attribute(f"EndpointResponse({endpoint.__qualname__}, {name}=...)", endpoint, name, value)
        self.status_code = status_code
        self.background = background
        self.body = b""
        self.raw_headers: list[tuple[bytes, bytes]] = []
        self._endpoint = endpoint
        self._attributes = attributes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, and then run the background task."""
        endpoint = self._endpoint(scope, receive, send)
        for name, value in self._attributes.items():
            setattr(endpoint, name, value)
        endpoint._sse_response = self  # noqa: SLF001 - this class is a way into the endpoint
        await endpoint.dispatch()
        if self.background is not None:
            await self.background()


def check_attribute(where: str, endpoint: type[SSEEndpoint], name: str, value: Any) -> None:
    """Check that an attribute can be set on an instance, and means something there."""
    if name.startswith("_") or not knows(endpoint, name):
        raise ConfigurationError(f"{where}: the class has no such attribute; annotate it, as in {name}: str")
    if name in HOOKS and (name != "channels" or callable(value)):
        raise ConfigurationError(f"{where}: {name} is a hook; override it in a subclass")
    held = inspect.getattr_static(endpoint, name, None)
    is_method = isinstance(held, FunctionType) and name not in HOOKS
    if name in REQUEST or is_method or (isinstance(held, property) and held.fset is None):
        raise ConfigurationError(f"{where}: the endpoint needs its own {name}; name the attribute otherwise")
    endpoint._sse_check_preset(where, name, value)  # noqa: SLF001


def knows(endpoint: type[SSEEndpoint], name: str) -> bool:
    """Tell whether a class has or annotates an attribute."""
    # Not hasattr, as a class answers to what its metaclass has as well.
    return any(name in vars(kind) or name in annotations_of(kind) for kind in endpoint.__mro__)
