"""What looks in an endpoint class like a guard and guards nothing.

Names with a slip of the pen, hooks that are hidden, and dependencies that FastAPI is never asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Sequence
from difflib import get_close_matches
from functools import partialmethod
from types import FunctionType
from typing import Any

from starlette_sse.attributes import annotations_of
from starlette_sse.endpoints.hooks import HOOKS
from starlette_sse.exceptions import ConfigurationError

__all__ = ["check_names", "dependencies_of"]

#: What an endpoint of channels has besides.
ATTRIBUTES = ("channels", "on_lag")

#: What one of some is called, which is no slip.
ITEMS = frozenset({"header", "method", "observer", "channel"})

#: How much a name has in common with a hook's, or with an attribute's, that is taken for a slip.
HOOK_LIKENESS = 0.88
LIKENESS = 0.9


def check_names(endpoint: type[Any], defaults: type[Any], attributes: Collection[str]) -> None:
    """Check that what guards a stream does: no name is a hook's or an attribute's with a slip, no hook is hidden.

    Mixins of the same package are looked at as well; names of others are not its author's.
    """
    hooks = [hook for hook in HOOKS if hasattr(endpoint, hook)]
    settings = [*attributes, *(name for name in ATTRIBUTES if hasattr(endpoint, name))]
    known = {*hooks, *settings}
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
            check_dependencies(f"{kind.__qualname__}.{name}", value, is_hook=name in hooks)
            if name.startswith("_") or name in known or name in foreign:
                continue
            like = slip(name, value, hooks, settings)
            # Beside a hook of its own a class may well have a helper that is called alike.
            if like and (like not in hooks or kind is endpoint or is_default(endpoint, defaults, like)):
                raise ConfigurationError(
                    f"{kind.__qualname__}.{name} is so like {like} that it looks like a slip, and has no meaning; "
                    f"name it {like}, or otherwise, such as _{name}"
                )


def check_dependencies(name: str, value: Any, *, is_hook: bool) -> None:
    """Check that nobody waits for what FastAPI gives to its functions alone: ``authorize`` would let everybody in."""
    given: list[Any] = [value]
    if is_hook and isinstance(value, FunctionType):
        given += [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
        # A decorator's function may have the annotations of the one that it is around.
        own = value.__code__.co_varnames[: value.__code__.co_argcount + value.__code__.co_kwonlyargcount]
        given += [each for parameter, metadata in metadata_of(value) if parameter in own for each in metadata]
    for each in given:
        if is_of_fastapi(each):
            raise ConfigurationError(
                f"{name}: FastAPI does not fill in {type(each).__name__}() here; ask for it in a function that "
                "returns an EndpointResponse with it"
            )


def dependencies_of(endpoint: type[Any], defaults: type[Any]) -> frozenset[str]:
    """Return the attributes that are annotated as dependencies: a function has to give them, for nobody else will."""
    annotated: dict[str, bool] = {}
    for kind in endpoint.__mro__:
        if kind not in defaults.__mro__:
            for name, metadata in metadata_of(kind):
                annotated.setdefault(name, any(map(is_of_fastapi, metadata)))
            # What a subclass brings by itself needs nobody else.
            annotated = dict.fromkeys(vars(kind), False) | annotated
    return frozenset(name for name, is_dependency in annotated.items() if is_dependency)


def metadata_of(owner: Any) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield what is ``Annotated`` in a class or a function, and with what; as far as the names in it are known yet."""
    names = {**vars(owner), **{each.__name__: each for each in getattr(owner, "__type_params__", ())}}
    module = sys.modules.get(owner.__module__)
    for name, annotation in annotations_of(owner).items():
        if isinstance(annotation, str):
            try:
                # As typing.get_type_hints does, which gives up all of them for one that is for type checkers alone.
                annotation = eval(annotation, {**vars(module)}, names)  # noqa: PLW2901, S307
            except Exception:  # noqa: BLE001 - whatever its author may have written there
                annotation = None  # noqa: PLW2901
        yield name, getattr(annotation, "__metadata__", ())


def is_of_fastapi(value: Any) -> bool:
    """Tell whether it is a ``Depends()``, ``Header()`` or the like; the package does without FastAPI."""
    return any(kind.__module__ == "fastapi.params" for kind in type(value).__mro__)


def is_default(endpoint: type[Any], defaults: type[Any], hook: str) -> bool:
    return getattr(endpoint, hook) is getattr(defaults, hook, None)


def is_hidden(endpoint: type[Any], defaults: type[Any], name: str, value: Any) -> bool:
    """Tell whether a hook behind the default ones was meant to be called; an interface's was not."""
    abstract = getattr(value, "__isabstractmethod__", False)
    return name in HOOKS and hasattr(defaults, name) and not abstract and is_default(endpoint, defaults, name)


def package_of(kind: type[Any]) -> str:
    return kind.__module__.partition(".")[0]


def slip(name: str, value: Any, hooks: Sequence[str], attributes: Sequence[str]) -> str | None:
    """Return the hook or the attribute that a name was meant to be, by what it stands for."""
    if isinstance(value, (FunctionType, partialmethod)):
        like = get_close_matches(name, hooks, 1, HOOK_LIKENESS)
    elif hasattr(value, "__get__") or name in ITEMS:
        like = []
    else:
        like = get_close_matches(name, attributes, 1, LIKENESS)
    return like[0] if like else None
