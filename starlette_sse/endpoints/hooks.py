"""The hooks of an endpoint class: what each is called with, and whether a call runs what its author has written."""

from __future__ import annotations

from inspect import getattr_static, isasyncgenfunction, iscoroutinefunction, isgeneratorfunction, signature
from types import FunctionType
from typing import Any

from starlette_sse.exceptions import ConfigurationError

__all__ = ["PARAMETERS", "check_hooks", "sync_hooks_of"]

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

#: Hooks that may have a yield.
ITERATED_HOOKS = frozenset({"events", "snapshot"})


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
        # Channels may be an attribute as well.
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


def sync_hooks_of(endpoint: type[Any]) -> frozenset[str]:
    """Return the hooks that were written as plain functions."""
    functions = {hook: getattr(endpoint, hook, None) for hook in AWAITED_HOOKS}
    return frozenset(
        hook
        for hook, function in functions.items()
        if not (iscoroutinefunction(function) or isasyncgenfunction(function))
    )
