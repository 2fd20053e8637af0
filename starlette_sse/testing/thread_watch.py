"""Which worker threads virtual time has to wait for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable

__all__ = ["PATIENCE", "ThreadWatch"]

#: Seconds of real time that threads may take in which nothing else happens; then they are taken to wait for the test.
PATIENCE = 3.0


class ThreadWatch:
    """Knows which threads are at work, and which of them are waited for no longer.

    :param busy: returns what stands for each piece of work that a thread has in hand.
    """

    def __init__(self, busy: Callable[[], Iterable[Hashable]]) -> None:
        self._busy = busy
        self._given_up: frozenset[Hashable] = frozenset()

    def are_awaited(self) -> bool:
        """Tell whether a thread is at work that was not given up."""
        busy = frozenset(self._busy())
        self._given_up &= busy
        return busy > self._given_up

    def give_up(self) -> None:
        """Wait no longer for the threads that are at work."""
        self._given_up = frozenset(self._busy())
        logging.getLogger(__name__).warning(
            "virtual time goes on without %d threads that have taken %g s of real time, or wait for it themselves",
            len(self._given_up),
            PATIENCE,
        )
