"""The hooks of an endpoint class: what each is called with, and whether a call runs what its author has written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from inspect import (
    Parameter,
    getattr_static,
    isasyncgenfunction,
    isawaitable,
    iscoroutinefunction,
    isgeneratorfunction,
    signature,
)
from types import FunctionType
from typing import Any

from anyio import to_thread
from starlette.requests import Request

from starlette_sse.eventloop.threads import threads_of_closing
from starlette_sse.exceptions import ConfigurationError

__all__ = ["HOOKS", "call_hook", "check_hooks", "settled", "sync_hooks_of"]

#: What takes what a hook is called with.
POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """How one hook is written and called."""

    parameters: tuple[str, ...] = ("request",)
    """What it is called with."""
    awaited: bool = False
    """Written as a plain function it runs in a worker thread."""
    iterated: bool = False
    """It may have a yield."""
    timed: bool = False
    """It has a time limit, which a plain function would outlast: it is left to its thread."""
    ending: bool = False
    """It ends a stream: as a plain function it has a thread however many others are busy."""
    plain: str = ""
    """Why it can only be a plain function, which is not awaited, and what to do instead."""


HOOKS: Mapping[str, Hook] = {
    "authorize": Hook(awaited=True, timed=True),
    "on_connect": Hook(awaited=True),
    "events": Hook(iterated=True),
    "on_disconnect": Hook(parameters=("request", "reason"), awaited=True, timed=True, ending=True),
    "ping_message": Hook(plain="a ping does not wait for anything"),
    "on_error": Hook(parameters=("request", "error"), awaited=True, timed=True, ending=True),
    "on_drain": Hook(awaited=True, timed=True, ending=True),
    "client_key": Hook(plain="what it has to wait for belongs into a middleware, which leaves it in request.state"),
    # Those of endpoints of channels.
    "channels": Hook(awaited=True),
    "snapshot": Hook(awaited=True, iterated=True),
    "find_broker": Hook(plain="open the broker in the app's lifespan"),
}


async def call_hook(endpoint: Any, sync_hooks: frozenset[str], name: str, request: Request, *args: Any) -> Any:
    """Call one of an endpoint's hooks that are awaited, a plain function in a worker thread."""
    function = getattr(endpoint, name)
    if name not in sync_hooks:
        return await function(request, *args)
    hook = HOOKS[name]
    limiter = threads_of_closing() if hook.ending else None

    def call() -> tuple[Any]:
        # In a tuple, as trio takes a coroutine that comes from a thread for a mistake.
        return (function(request, *args),)

    (result,) = await to_thread.run_sync(call, abandon_on_cancel=hook.timed, limiter=limiter)
    return await settled(result)


async def settled(result: Any) -> Any:
    """Return what a plain function returned, which may have been written around a coroutine function."""
    return await result if isawaitable(result) else result


def sync_hooks_of(endpoint: type[Any]) -> frozenset[str]:
    """Return the hooks that are awaited and were written as plain functions."""
    functions = {name: getattr(endpoint, name, None) for name, hook in HOOKS.items() if hook.awaited}
    return frozenset(
        name
        for name, function in functions.items()
        if not (iscoroutinefunction(function) or isasyncgenfunction(function))
    )


def check_hooks(endpoint: type[Any]) -> None:
    """Check what can be told of hooks from their definition."""
    name = endpoint.__qualname__
    if iscoroutinefunction(endpoint.events) and not getattr(endpoint.events, "__isabstractmethod__", False):
        raise ConfigurationError(f"{name}.events has no yield; write it as an async generator")
    for hook_name, hook in HOOKS.items():
        if hook.plain and iscoroutinefunction(getattr(endpoint, hook_name, None)):
            raise ConfigurationError(f"{name}.{hook_name} must be a plain function; {hook.plain}")
        # Channels may be an attribute as well.
        if hasattr(endpoint, hook_name) and (hook_name != "channels" or callable(endpoint.channels)):
            check_hook(f"{name}.{hook_name}", getattr_static(endpoint, hook_name), hook)
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


def check_hook(name: str, function: Any, hook: Hook) -> None:
    """Check that a hook can be called, and that calling it runs it; what is no plain function may be anything."""
    if not isinstance(function, FunctionType):
        if not (callable(function) or hasattr(function, "__get__")):
            raise ConfigurationError(f"{name} must be a function of ({', '.join(hook.parameters)}), not {function!r}")
        return
    if not hook.iterated and (isgeneratorfunction(function) or isasyncgenfunction(function)):
        raise ConfigurationError(f"{name} has a yield, so that calling it would not run it; return its result")
    found = signature(function, follow_wrapped=False)
    try:
        found.bind("self", *hook.parameters)
    except TypeError as exc:
        raise ConfigurationError(f"{name} must take (self, {', '.join(hook.parameters)}): {exc}") from None
    names = [name for name, each in found.parameters.items() if each.kind in POSITIONAL][1:]
    if any(known in names and names.index(known) != place for place, known in enumerate(hook.parameters)):
        raise ConfigurationError(f"{name} must take (self, {', '.join(hook.parameters)}), in this order")
