"""Whether an asyncio task stands behind a shield of anyio's, which anyio itself tells nobody."""

from __future__ import annotations

import asyncio
from typing import Any

from anyio._backends import _asyncio as backend

__all__ = ["SCOPES_ARE_KNOWN", "is_shielded"]

_states: Any = getattr(backend, "_task_states", None)

SCOPES_ARE_KNOWN = _states is not None and hasattr(backend.CancelScope(), "_parent_scope")
"""Whether this anyio keeps its scopes where :func:`is_shielded` looks."""


def is_shielded(task: asyncio.Task[Any]) -> bool:
    """Tell whether a task is in a shielded cancel scope."""
    state = _states.get(task)
    scope = None if state is None else state.cancel_scope
    while scope is not None and not scope.shield:
        scope = scope._parent_scope  # noqa: SLF001
    return scope is not None
