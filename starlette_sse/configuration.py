"""What an endpoint's attributes and hooks come to, checked and worked out once for each class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from inspect import iscoroutinefunction
from typing import Any

from starlette_sse.attributes import (
    check_choice,
    check_count,
    check_headers,
    check_methods,
    check_milliseconds,
    check_seconds,
)
from starlette_sse.deadlines import StreamSettings
from starlette_sse.events import ServerSentEvent, as_frame
from starlette_sse.exceptions import ConfigurationError
from starlette_sse.fields import SEPARATORS
from starlette_sse.headers import Headers
from starlette_sse.limits import StreamLimit

__all__ = ["Configuration"]

VERBS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY")

#: Hooks that are awaited; written as plain functions they run in a worker thread.
AWAITED_HOOKS = ("authorize", "on_connect", "on_disconnect", "on_error", "on_drain", "channels")

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
    "authorize_interval": check_seconds,
    "headers": check_headers,
    "sep": partial(check_choice, choices=SEPARATORS),
}

#: What may be set on an instance as well; the others decide before there is a stream.
PER_INSTANCE = CHECKS.keys() - {"methods", "max_connections", "max_connections_per_client"}


@dataclass(frozen=True, slots=True)
class Configuration:
    """The worked-out attributes of an endpoint class, or of one instance that overrides some."""

    methods: frozenset[str]
    allow: tuple[str, ...]
    sync_hooks: frozenset[str]
    settings: StreamSettings
    headers: Headers
    limit: StreamLimit | None
    encode: Callable[[Any], bytes]

    @classmethod
    def of_class(cls, endpoint: type[Any]) -> Configuration:
        """Check and work out the attributes of an endpoint class.

        :raises ConfigurationError: one of them cannot work.
        """
        for name, check in CHECKS.items():
            check(f"{endpoint.__qualname__}.{name}", getattr(endpoint, name))
        check_hooks(endpoint)
        methods = frozenset(endpoint.methods)
        verbs = [verb for verb in VERBS if verb in methods or hasattr(endpoint, verb.lower())]
        total, per_client = endpoint.max_connections, endpoint.max_connections_per_client
        return cls(
            methods=methods,
            allow=(*sorted(methods - set(VERBS)), *verbs, "HEAD"),
            sync_hooks=frozenset(
                hook for hook in AWAITED_HOOKS if not iscoroutinefunction(getattr(endpoint, hook, None))
            ),
            settings=settings_of(endpoint),
            headers=Headers(endpoint.headers),
            limit=StreamLimit(total, per_client) if total or per_client else None,
            encode=encoder_of(endpoint),
        )

    def of_instance(self, endpoint: Any) -> Configuration:
        """Return this, or what it comes to with the attributes that were set on the instance.

        :raises ConfigurationError: one of those cannot work.
        """
        own = PER_INSTANCE & vars(endpoint).keys()
        if not own and "event_class" not in vars(endpoint):
            return self
        for name in own:
            CHECKS[name](f"{type(endpoint).__qualname__}().{name}", getattr(endpoint, name))
        return Configuration(
            methods=self.methods,
            allow=self.allow,
            sync_hooks=self.sync_hooks,
            settings=settings_of(endpoint),
            headers=Headers(endpoint.headers),
            limit=self.limit,
            encode=encoder_of(endpoint),
        )


def sync_hooks_of(endpoint: type[Any]) -> frozenset[str]:
    """Return the hooks that were written as plain functions."""
    return frozenset(hook for hook in AWAITED_HOOKS if not iscoroutinefunction(getattr(endpoint, hook, None)))


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


def encoder_of(endpoint: Any) -> Callable[[Any], bytes]:
    """Return the function from what ``events()`` yields to a frame."""
    sep, event_class = endpoint.sep, endpoint.event_class

    def encode(item: Any) -> bytes:
        if isinstance(item, ServerSentEvent):
            return item.encode(sep)
        return as_frame(item, sep, event_class)

    return encode


def check_hooks(endpoint: type[Any]) -> None:
    """Check what can be told of hooks from their definition."""
    name = endpoint.__qualname__
    if iscoroutinefunction(endpoint.events):
        raise ConfigurationError(f"{name}.events has no yield; write it as an async generator")
    for verb in endpoint.methods:
        if hasattr(endpoint, verb.lower()):
            raise ConfigurationError(
                f"{name}.{verb.lower()} would never be called, because {verb} opens the stream; "
                f"remove it, or remove {verb!r} from {name}.methods"
            )
    if not (isinstance(endpoint.event_class, type) and issubclass(endpoint.event_class, ServerSentEvent)):
        raise ConfigurationError(f"{name}.event_class must be a subclass of ServerSentEvent")
