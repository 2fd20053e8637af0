"""What an endpoint's attributes and hooks come to, checked and worked out once for each class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from inspect import getattr_static, isasyncgenfunction, iscoroutinefunction, isgeneratorfunction, signature
from types import FunctionType
from typing import Any

from starlette_sse.attributes import (
    check_choice,
    check_count,
    check_headers,
    check_methods,
    check_milliseconds,
    check_rate,
    check_seconds,
)
from starlette_sse.events import ServerSentEvent, frame_encoder
from starlette_sse.exceptions import ConfigurationError, InvalidEventError
from starlette_sse.fields import SEPARATORS
from starlette_sse.headers import Headers
from starlette_sse.limits import ConnectRate, StreamLimit
from starlette_sse.observers import check_observers
from starlette_sse.streams import StreamSettings

__all__ = ["Configuration", "opening_of"]

VERBS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY")

#: Hooks that are awaited; written as plain functions they run in a worker thread.
AWAITED_HOOKS = ("authorize", "on_connect", "on_disconnect", "on_error", "on_drain", "channels", "snapshot")

#: What each hook is called with.
PARAMETERS = {
    "authorize": ("request",),
    "on_connect": ("request",),
    "events": ("request",),
    "on_disconnect": ("request", "reason"),
    "ping_message": ("request",),
    "on_error": ("request", "error"),
    "on_drain": ("request",),
    "client_key": ("request",),
    "find_broker": ("request",),
    "channels": ("request",),
    "snapshot": ("request",),
}

#: What an endpoint of channels has besides.
ATTRIBUTES = ("channels", "on_lag")

#: What one of some is called, which is no slip.
ITEMS = frozenset({"header", "method", "observer", "channel"})

#: How much a name has in common with a hook's, or with an attribute's, that is taken for a slip.
HOOK_LIKENESS = 0.88
LIKENESS = 0.9

#: Hooks that may have a yield.
ITERATED_HOOKS = frozenset({"events", "snapshot"})


def check_event_class(name: str, value: Any) -> None:
    """Check what events are made of."""
    if not (isinstance(value, type) and issubclass(value, ServerSentEvent)):
        raise ConfigurationError(f"{name} must be a subclass of ServerSentEvent; not {value!r}")


CHECKS: dict[str, Callable[[str, Any], None]] = {
    "methods": check_methods,
    "ping_interval": check_seconds,
    "send_timeout": check_seconds,
    "max_lifetime": check_seconds,
    "cleanup_timeout": check_seconds,
    "retry": check_milliseconds,
    "drain_policy": partial(check_choice, choices=("close", "finish")),
    "drain_grace": partial(check_seconds, optional=False),
    "max_connections": check_count,
    "max_connections_per_client": check_count,
    "connect_rate": check_rate,
    "connect_burst": partial(check_count, optional=False),
    "max_event_bytes": check_count,
    "max_body_bytes": check_count,
    "authorize_interval": check_seconds,
    "headers": check_headers,
    "sep": partial(check_choice, choices=SEPARATORS),
    "event_class": check_event_class,
    "observers": check_observers,
}

#: What decides before there is an instance; the others may be set on that as well.
PER_CLASS = frozenset({"methods", "max_connections", "max_connections_per_client", "connect_rate", "connect_burst"})


@dataclass(frozen=True, slots=True)
class Configuration:
    """The worked-out attributes of an endpoint class, or of one instance that overrides some."""

    defaults: type[Any]
    """The class whose ``authorize``, ``on_connect`` and ``on_disconnect`` do nothing."""
    methods: frozenset[str]
    allow: tuple[str, ...]
    sync_hooks: frozenset[str]
    settings: StreamSettings
    headers: Headers
    limit: StreamLimit | None
    opening: bytes
    encode: Callable[[Any], bytes]

    @classmethod
    def of_class(cls, endpoint: type[Any], defaults: type[Any]) -> Configuration:
        """Check and work out the attributes of an endpoint class.

        :raises ConfigurationError: one of them cannot work.
        """
        for name, check in CHECKS.items():
            check(f"{endpoint.__qualname__}.{name}", getattr(endpoint, name))
        check_names(endpoint, defaults)
        check_hooks(endpoint)
        methods = frozenset(endpoint.methods)
        verbs = [verb for verb in VERBS if verb in methods or hasattr(endpoint, verb.lower())]
        return cls(
            defaults=defaults,
            methods=methods,
            allow=(*sorted(methods - set(VERBS)), *verbs, "HEAD"),
            sync_hooks=sync_hooks_of(endpoint),
            settings=settings_of(endpoint),
            headers=Headers(endpoint.headers),
            limit=limit_of(endpoint),
            opening=opening_of(endpoint),
            encode=encoder_of(endpoint),
        )

    def of_instance(self, endpoint: Any) -> Configuration:
        """Return this, or what it comes to with the attributes that were set on the instance.

        :raises ConfigurationError: one of those cannot work.
        """
        own = vars(endpoint)
        # Asked for each stream, and almost always true.
        if CHECKS.keys().isdisjoint(own):
            return self
        for name in CHECKS.keys() & own.keys():
            check_own(endpoint, name)
        return replace(
            self,
            settings=settings_of(endpoint),
            headers=Headers(endpoint.headers),
            opening=opening_of(endpoint),
            encode=encoder_of(endpoint),
        )


def sync_hooks_of(endpoint: type[Any]) -> frozenset[str]:
    """Return the hooks that were written as plain functions."""
    functions = {hook: getattr(endpoint, hook, None) for hook in AWAITED_HOOKS}
    return frozenset(
        hook
        for hook, function in functions.items()
        if not (iscoroutinefunction(function) or isasyncgenfunction(function))
    )


def settings_of(endpoint: Any) -> StreamSettings:
    """Return the times and policies of an endpoint class or instance."""
    return StreamSettings(
        ping_interval=endpoint.ping_interval,
        send_timeout=endpoint.send_timeout,
        max_lifetime=endpoint.max_lifetime,
        cleanup_timeout=endpoint.cleanup_timeout,
        drain_policy=endpoint.drain_policy,
        drain_grace=endpoint.drain_grace,
        authorize_interval=endpoint.authorize_interval,
    )


def limit_of(endpoint: type[Any]) -> StreamLimit | None:
    """Return what counts the streams of an endpoint class, if they are limited."""
    total, per_client, rate = endpoint.max_connections, endpoint.max_connections_per_client, endpoint.connect_rate
    if total is None and per_client is None and rate is None:
        return None
    return StreamLimit(total, per_client, None if rate is None else ConnectRate(rate, endpoint.connect_burst))


def check_own(endpoint: Any, name: str) -> None:
    """Check an attribute that was set on an instance."""
    where = f"{type(endpoint).__qualname__}().{name}"
    if name in PER_CLASS:
        raise ConfigurationError(f"{where} was set too late: it decides before there is a stream; set it on the class")
    CHECKS[name](where, getattr(endpoint, name))


def opening_of(endpoint: Any, position: str | None = None) -> bytes:
    """Return the frame that opens a stream, so that its client sees at once that it is open, and where it is."""
    return ServerSentEvent(comment="open", retry=endpoint.retry, id=position).encode(endpoint.sep)


def encoder_of(endpoint: Any) -> Callable[[Any], bytes]:
    """Return the function from what ``events()`` yields to a frame."""
    encode, most = frame_encoder(endpoint.sep, endpoint.event_class), endpoint.max_event_bytes
    if most is None:
        return encode

    def encode_within(item: Any) -> bytes:
        frame = encode(item)
        if len(frame) > most:
            raise InvalidEventError(
                f"an event of {len(frame)} bytes is more than {where}.max_event_bytes = {most} allows; "
                "send a reference to what it holds, or allow more"
            )
        return frame

    where = (endpoint if isinstance(endpoint, type) else type(endpoint)).__qualname__
    return encode_within


def check_hooks(endpoint: type[Any]) -> None:
    """Check what can be told of hooks from their definition."""
    name = endpoint.__qualname__
    if iscoroutinefunction(endpoint.events) and not getattr(endpoint.events, "__isabstractmethod__", False):
        raise ConfigurationError(f"{name}.events has no yield; write it as an async generator")
    if iscoroutinefunction(endpoint.client_key):
        raise ConfigurationError(
            f"{name}.client_key must be a plain function; what it has to wait for belongs into a middleware, "
            "which leaves it in request.state"
        )
    if iscoroutinefunction(endpoint.ping_message):
        raise ConfigurationError(f"{name}.ping_message must be a plain function: a ping does not wait for anything")
    if iscoroutinefunction(getattr(endpoint, "find_broker", None)):
        raise ConfigurationError(f"{name}.find_broker must be a plain function; open the broker in the app's lifespan")
    for hook, parameters in PARAMETERS.items():
        # The names of channels are a hook or an attribute.
        if hasattr(endpoint, hook) and (hook != "channels" or callable(endpoint.channels)):
            check_hook(f"{name}.{hook}", getattr_static(endpoint, hook), parameters, iterated=hook in ITERATED_HOOKS)
    for verb in endpoint.methods:
        if hasattr(endpoint, verb.lower()):
            raise ConfigurationError(
                f"{name}.{verb.lower()} would never be called, because {verb} opens the stream; "
                f"remove it, or remove {verb!r} from {name}.methods"
            )
    if hasattr(endpoint, "head"):
        raise ConfigurationError(
            f"{name}.head would never be called, because HEAD is answered with the headers alone; remove it"
        )


def check_names(endpoint: type[Any], defaults: type[Any]) -> None:
    """Check that what guards a stream does: no name is a hook's or an attribute's with a slip, no hook is hidden.

    Mixins of the same package are looked at as well; names of others are not its author's.
    """
    hooks = [hook for hook in PARAMETERS if hasattr(endpoint, hook)]
    attributes = [*CHECKS, *(name for name in ATTRIBUTES if hasattr(endpoint, name))]
    known = {*hooks, *attributes}
    order = endpoint.__mro__
    others = [kind for kind in order if kind not in defaults.__mro__]
    foreign = {name for kind in others if package_of(kind) != package_of(endpoint) for name in vars(kind)}
    for kind in others:
        hidden = order.index(kind) > order.index(defaults) and not getattr(kind, "_is_protocol", False)
        for name, value in vars(kind).items():
            if hidden and is_hidden(endpoint, defaults, name, value):
                raise ConfigurationError(
                    f"{kind.__qualname__}.{name} would never be called, because {defaults.__name__} comes before it; "
                    f"write {kind.__name__} first: class {endpoint.__name__}({kind.__name__}, ...)"
                )
            if name.startswith("_") or name in known or name in foreign:
                continue
            like = slip(name, value, hooks, attributes)
            # Beside a hook of its own a class may well have a helper that is called alike.
            if like and (like not in hooks or kind is endpoint or is_default(endpoint, defaults, like)):
                raise ConfigurationError(
                    f"{kind.__qualname__}.{name} is so like {like} that it looks like a slip, and has no meaning; "
                    f"name it {like}, or otherwise, such as _{name}"
                )


def is_default(endpoint: type[Any], defaults: type[Any], hook: str) -> bool:
    return getattr(endpoint, hook) is getattr(defaults, hook, None)


def is_hidden(endpoint: type[Any], defaults: type[Any], name: str, value: Any) -> bool:
    """Tell whether a hook behind the default ones was meant to be called; an interface's was not."""
    abstract = getattr(value, "__isabstractmethod__", False)
    return name in PARAMETERS and hasattr(defaults, name) and not abstract and is_default(endpoint, defaults, name)


def package_of(kind: type[Any]) -> str:
    return kind.__module__.partition(".")[0]


def slip(name: str, value: Any, hooks: Sequence[str], attributes: Sequence[str]) -> str | None:
    """Return the hook or the attribute that a name was meant to be, by what it stands for."""
    if isinstance(value, FunctionType):
        like = get_close_matches(name, hooks, 1, HOOK_LIKENESS)
    elif hasattr(value, "__get__") or name in ITEMS:
        like = []
    else:
        like = get_close_matches(name, attributes, 1, LIKENESS)
    return like[0] if like else None


def check_hook(name: str, function: Any, parameters: tuple[str, ...], *, iterated: bool) -> None:
    """Check that a hook can be called, and that calling it runs it; what is no plain function may be anything."""
    if not isinstance(function, FunctionType):
        if not (callable(function) or hasattr(function, "__get__")):
            raise ConfigurationError(f"{name} must be a function of ({', '.join(parameters)}), not {function!r}")
        return
    if not iterated and (isgeneratorfunction(function) or isasyncgenfunction(function)):
        raise ConfigurationError(f"{name} has a yield, so that calling it would not run it; return its result")
    try:
        signature(function, follow_wrapped=False).bind("self", *parameters)
    except TypeError as exc:
        raise ConfigurationError(f"{name} must take (self, {', '.join(parameters)}): {exc}") from None
