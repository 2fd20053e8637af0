"""How far a measurement is and about how long it will take, on the standard error."""

from __future__ import annotations

import sys
import time

__all__ = ["Progress"]

WIDTH = 24


class Progress:
    """A bar on a terminal; elsewhere nothing, so that logs stay readable."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._done = 0
        self._began = time.monotonic()
        self._shown = sys.stderr.isatty()

    def step(self, doing: str) -> None:
        """Say what is done next."""
        self._show(doing)
        self._done += 1

    def end(self) -> None:
        """Show that all is done, and leave the line."""
        self._show("done")
        if self._shown:
            sys.stderr.write("\n")

    def _left(self, seconds: float) -> str:
        """Tell how long the rest takes if its steps are like those that are done."""
        left = self._steps - self._done
        return f", about {seconds / self._done * left:.0f} s left" if self._done and left else ""

    def _show(self, doing: str) -> None:
        if self._shown:
            full = WIDTH * self._done // max(1, self._steps)
            seconds = time.monotonic() - self._began
            bar = f"[{'#' * full}{'.' * (WIDTH - full)}] {self._done}/{self._steps}"
            line = f"{bar} {seconds:.0f} s{self._left(seconds)}  {doing}"
            sys.stderr.write(f"\r{line:100.100}")
            sys.stderr.flush()
