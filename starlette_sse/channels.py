"""Broadcast as a class: what a broker's channels bring, with resume, to every client."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal

from starlette.exceptions import HTTPException
from starlette.requests import Request

from starlette_sse.attributes import check_choice
from starlette_sse.broker import Broker, Subscription
from starlette_sse.broker.names import channel_names
from starlette_sse.configuration import Configuration
from starlette_sse.endpoints import Answer, SSEEndpoint
from starlette_sse.events import ServerSentEvent
from starlette_sse.exceptions import BrokerUnavailableError, ConfigurationError
from starlette_sse.limits import BROKER_AWAY
from starlette_sse.sources import FrameSource

__all__ = ["ChannelEndpoint"]


class ChannelEndpoint(SSEEndpoint):
    """A stream of what is published to channels of a broker; set :attr:`broker` and :attr:`channels`.

    A client that comes back with the id of its last event gets every event that it missed, or one event
    ``stream-reset`` that says why it cannot.
    """

    broker: Broker
    """Where the channels are."""

    on_lag: Literal["disconnect", "reset", "latest"] = "disconnect"
    """What happens to a client that is slower than the broker's retention.

    ``"disconnect"``: its stream ends, and it comes back and resumes by its last id. ``"reset"``: it is told by a
    ``stream-reset`` and goes on. ``"latest"``: it gets the newest event of each ``key`` instead of all of them.
    """

    _subscription: Subscription | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        name = cls.__qualname__
        if cls.events is not SSEEndpoint.events:
            raise ConfigurationError(f"{name}.events would never be called; publish to the broker's channels instead")
        if not isinstance(getattr(cls, "broker", None), Broker | None):
            raise ConfigurationError(f"{name}.broker must be a Broker, not {cls.broker!r}")
        if not callable(cls.channels):
            try:
                cls.channels = channel_names(cls.channels)
            except ConfigurationError as exc:
                raise ConfigurationError(f"{name}.channels: {exc}") from exc
        check_choice(f"{name}.on_lag", cls.on_lag, ("disconnect", "reset", "latest"))

    async def _closed(self, request: Request) -> Iterable[str]:
        raise HTTPException(403, "this endpoint has no open channels")

    channels: Callable[..., Any] | Iterable[str] = _closed
    """The names of the channels that a client may read, if all may read the same.

    Else override it as a hook, ``async def channels(self, request)``, that returns those of this client. Without either
    the endpoint is closed: a client never names a channel by itself.
    """

    def snapshot(self, request: Request) -> Any:
        """Return the events that a client starts with; a coroutine function or an async generator will do.

        Asked for a client that comes without an id, and after a reset. The position in the log was taken before, so
        nothing is missed between the snapshot and what follows.
        """
        return ()

    def _position(self) -> str | None:
        # On a channel that is silent for long, the client's id stays one that the log can resume behind.
        return None if self._subscription is None else self._subscription.resume_id

    def _opening(self, configuration: Configuration) -> bytes:
        # An id without data is a position, so that a client that has seen no event can resume too.
        return ServerSentEvent(comment="open", retry=self.retry, id=self._position()).encode(self.sep)

    async def _prepare(self, request: Request) -> Answer:
        try:
            return await super()._prepare(request)
        except BrokerUnavailableError:
            return self._refusal(request, BROKER_AWAY)

    async def _subscribe(self, request: Request) -> FrameSource:
        broker: Broker | None = getattr(self, "broker", None)
        if broker is None:
            raise ConfigurationError(f"{type(self).__qualname__}.broker is not set; give it a Broker")
        names: Any = self.channels
        if callable(names):
            names = await self._call("channels", request)
        snapshot = None if type(self).snapshot is ChannelEndpoint.snapshot else partial(self.snapshot, request)
        subscription = broker.subscribe(names, self.last_event_id, on_lag=self.on_lag, snapshot=snapshot)
        self._subscription = await subscription.enter()
        return subscription

    def _release(self) -> None:
        subscription, self._subscription = self._subscription, None
        try:
            if subscription is not None:
                subscription.leave()
        finally:
            super()._release()
