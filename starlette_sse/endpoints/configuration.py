"""What an endpoint's attributes come to, checked and worked out once for each class."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
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
from starlette_sse.endpoints.hooks import check_hooks, sync_hooks_of
from starlette_sse.endpoints.slips import check_names, dependencies_of
from starlette_sse.events import ServerSentEvent, frame_encoder
from starlette_sse.events.fields import SEPARATORS
from starlette_sse.exceptions import ConfigurationError, InvalidEventError
from starlette_sse.headers import StreamHeaders
from starlette_sse.limits import ConnectRate, StreamLimit
from starlette_sse.observers import check_observers
from starlette_sse.streams import StreamSettings

__all__ = ["Configuration", "check_given", "check_own", "check_preset", "opening_of"]

VERBS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY")


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
    headers: StreamHeaders
    limit: StreamLimit | None
    opening: bytes
    encode: Callable[[Any], bytes]
    dependencies: frozenset[str]
    """Attributes that a function must give, because the class leaves them to FastAPI."""

    @classmethod
    def of_class(cls, endpoint: type[Any], defaults: type[Any]) -> Configuration:
        """Check and work out the attributes of an endpoint class.

        :raises ConfigurationError: one of them cannot work.
        """
        for name, check in CHECKS.items():
            check(f"{endpoint.__qualname__}.{name}", getattr(endpoint, name))
        check_names(endpoint, defaults, CHECKS)
        check_hooks(endpoint)
        methods = frozenset(endpoint.methods)
        verbs = [verb for verb in VERBS if verb in methods or hasattr(endpoint, verb.lower())]
        return cls(
            defaults=defaults,
            methods=methods,
            allow=(*sorted(methods - set(VERBS)), *verbs, "HEAD"),
            sync_hooks=sync_hooks_of(endpoint),
            settings=settings_of(endpoint),
            headers=StreamHeaders(endpoint.headers),
            limit=limit_of(endpoint),
            opening=opening_of(endpoint),
            encode=encoder_of(endpoint),
            dependencies=dependencies_of(endpoint, defaults),
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
            headers=StreamHeaders(endpoint.headers),
            opening=opening_of(endpoint),
            encode=encoder_of(endpoint),
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


def check_given(endpoint: type[Any], given: Collection[str]) -> None:
    """Check that an endpoint gets what it leaves to FastAPI, which would guard nothing if nobody asked for it."""
    if missing := sorted(endpoint._sse_configuration.dependencies.difference(given)):  # noqa: SLF001
        name, asked = endpoint.__qualname__, ", ".join(f"{each}={each}" for each in missing)
        raise ConfigurationError(
            f"{name}.{missing[0]} is annotated as a dependency, and nobody fills it in; ask for it in a function that "
            f"returns EndpointResponse({name}, {asked})"
        )


def check_preset(where: str, name: str, value: Any) -> None:
    """Check an attribute that is to be set on an instance, if it is one of the package's."""
    if name in PER_CLASS:
        raise ConfigurationError(f"{where}: {name} decides before there is a stream; set it on the class")
    if name == "max_body_bytes":
        raise ConfigurationError(f"{where}: {name} would hold nothing back; a body is for the function to read")
    if name in CHECKS:
        CHECKS[name](where, value)


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
