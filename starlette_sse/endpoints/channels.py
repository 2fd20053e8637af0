"""Broadcast as a class: what a broker's channels bring, with resume, to every client."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from inspect import isasyncgenfunction
from typing import Any, get_args

from anyio import to_thread
from starlette.exceptions import HTTPException
from starlette.requests import Request

from starlette_sse.attributes import check_choice
from starlette_sse.broker import Broker
from starlette_sse.broker.names import channel_names
from starlette_sse.broker.resets import items_of
from starlette_sse.broker.subscription import OnLag
from starlette_sse.endpoints.endpoint import SSEEndpoint
from starlette_sse.endpoints.hooks import call_hook
from starlette_sse.events import FRAME, as_event
from starlette_sse.exceptions import ConfigurationError
from starlette_sse.streams import FrameSource

__all__ = ["ChannelEndpoint"]


class ChannelEndpoint(SSEEndpoint):
    """A stream of what is published to channels of a broker; set :attr:`broker` and :attr:`channels`.

    A client that comes back with the id of its last event gets every event that it missed, or one event
    ``stream-reset`` that says why it cannot.
    """

    broker: Broker
    """Where the channels are, unless :meth:`find_broker` says otherwise."""

    on_lag: OnLag = "disconnect"
    """What happens to a client that is slower than the broker's retention.

    ``"disconnect"``: its stream ends. What it missed is gone, so when it comes back it is told by a ``stream-reset``,
    and gets the snapshot. ``"reset"``: it is told at once, gets the snapshot and goes on. ``"latest"``: it gets the
    newest event of each ``key`` instead of all of them.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        name = cls.__qualname__
        if cls.events is not SSEEndpoint.events:
            raise ConfigurationError(f"{name}.events would never be called; publish to the broker's channels instead")
        # A base that is not of channels may have one.
        check_event_limit(f"{name}.max_event_bytes", vars(cls).get("max_event_bytes"))
        broker = getattr(cls, "broker", None)
        # A property finds it by request, such as that of the app.
        if broker is not None and not hasattr(broker, "__get__"):
            broker_of(name, broker)
        if not callable(cls.channels):
            cls.channels = names_of(f"{name}.channels", cls.channels)
        if not callable(cls.snapshot):
            raise ConfigurationError(f"{name}.snapshot must be a function of the request, not {cls.snapshot!r}")
        check_choice(f"{name}.on_lag", cls.on_lag, get_args(OnLag))
        check_line_end(f"{name}.sep", cls.sep)

    async def _sse_no_channels(self, request: Request) -> Iterable[str]:
        return ()

    channels: Callable[..., Any] | Iterable[str] = _sse_no_channels
    """The names of the channels that a client may read, if all may read the same.

    Else override it as a hook, ``async def channels(self, request)``, that returns those of this client. Without any
    the client gets 403: it never names a channel by itself.
    """

    def snapshot(self, request: Request) -> Any:
        """Return the events that a client starts with; override it as an ``async`` function or an async generator.

        Asked for a client that comes without an id, and after a reset. The position in the log was taken before, so
        nothing is missed between the snapshot and what follows. The events have no ids, which belong to the log, and
        bytes among them are whole frames.
        """
        return ()

    def find_broker(self, request: Request) -> Broker:
        """Return where the channels are; override it for a broker that belongs to the app or to the request.

        Such as ``return request.app.state.broker``. The default is :attr:`broker`.
        """
        if not (hasattr(type(self), "broker") or "broker" in vars(self)):
            raise ConfigurationError(f"{type(self).__qualname__}.broker is not set; give it a Broker")
        return self.broker

    @classmethod
    def _sse_check_preset(cls, where: str, name: str, value: Any) -> None:
        super()._sse_check_preset(where, name, value)
        if name == "broker":
            if not isinstance(value, Broker):
                raise ConfigurationError(f"{where}: broker must be a Broker, not {value!r}")
        elif name == "on_lag":
            check_choice(where, value, get_args(OnLag))
        elif name == "sep":
            check_line_end(where, value)
        elif name == "max_event_bytes":
            check_event_limit(where, value)
        elif name == "channels" and (value or not isinstance(value, Collection)) and not isinstance(value, Iterator):
            names_of(where, value)

    async def _sse_subscribe(self, request: Request) -> FrameSource:
        name = type(self).__qualname__
        broker = broker_of(name, self.find_broker(request))
        check_line_end(f"{name}.sep", self.sep)
        check_event_limit(f"{name}().max_event_bytes", vars(self).get("max_event_bytes"))
        names: Any = self.channels
        if callable(names):
            names = await call_hook(self, self._sse_configuration.sync_hooks, "channels", request)
        if names is not type(self).channels:
            names = list(names) if isinstance(names, Iterator) else names
            if isinstance(names, Collection) and not names:
                raise HTTPException(403, "no channel is open to this client")
            names = names_of(f"{name}.channels()", names)
        snapshot = None if type(self).snapshot is ChannelEndpoint.snapshot else partial(self._sse_snapshot, request)
        subscription = broker.subscribe(names, self.last_event_id, on_lag=self.on_lag, snapshot=snapshot)
        return await subscription.enter()

    async def _sse_snapshot(self, request: Request) -> list[Any]:
        if isasyncgenfunction(self.snapshot):
            result = self.snapshot(request)
        else:
            result = await call_hook(self, self._sse_configuration.sync_hooks, "snapshot", request)
        if isinstance(result, Iterator) and "snapshot" in self._sse_configuration.sync_hooks:
            # As the plain function that has made it.
            result = await to_thread.run_sync(list, result)
        return [
            item if isinstance(item, FRAME) else as_event(item, self.event_class) for item in await items_of(result)
        ]


def broker_of(endpoint: str, broker: Any) -> Broker:
    """Return what the channels are of, if it is a broker."""
    if broker is None:
        raise ConfigurationError(f"{endpoint} has no broker: set {endpoint}.broker, or return one from find_broker")
    if not isinstance(broker, Broker):
        raise ConfigurationError(f"{endpoint}.broker must be a Broker, or find_broker return one; not {broker!r}")
    return broker


def check_line_end(name: str, sep: Any) -> None:
    """Check that a stream would not mix two line ends."""
    if sep != "\r\n":
        raise ConfigurationError(
            f"{name} must be CR LF, not {sep!r}: a broker encodes each event once, for all endpoints"
        )


def check_event_limit(name: str, most: Any) -> None:
    """Check that nobody relies on a limit that is not there."""
    if most is not None:
        raise ConfigurationError(
            f"{name} would hold nothing back; the broker's max_bytes does, as events are published"
        )


def names_of(where: str, channels: Any) -> tuple[str, ...]:
    """Return the names of the channels that an app has given."""
    try:
        return channel_names(channels)
    except ConfigurationError as exc:
        raise ConfigurationError(f"{where}: {exc}") from exc
