"""What an exception tells of why something beside the stream's own task has ended."""

from __future__ import annotations

__all__ = ["bare", "foreign_cancellation", "genuine"]


def foreign_cancellation(what: str, error: BaseException | None = None) -> Exception:
    """Return what is raised for a cancellation of something that the stream needs."""
    foreign = RuntimeError(f"{what} was cancelled, and not the stream")
    foreign.__cause__ = error
    return foreign


def genuine(error: BaseException, cancelled: type[BaseException]) -> BaseException | None:
    """Return what is left of ``error`` without being stopped: cancellation, and ``GeneratorExit`` in a group.

    An async generator that holds a task group open across a ``yield`` answers ``aclose()`` with a group of its
    ``GeneratorExit`` and what its tasks raised.
    """
    stopped = (GeneratorExit, cancelled)
    if isinstance(error, BaseExceptionGroup):
        return bare(error.split(stopped)[1])
    return None if isinstance(error, stopped) else error


def bare(error: BaseException | None) -> BaseException | None:
    """Return the one exception that a group holds, so that handlers for its type apply; others as they are."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
