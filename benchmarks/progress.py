"""How far a measurement is, on the standard error."""

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

    def _show(self, doing: str) -> None:
        if self._shown:
            full = WIDTH * self._done // max(1, self._steps)
            seconds = time.monotonic() - self._began
            line = f"[{'#' * full}{'.' * (WIDTH - full)}] {self._done}/{self._steps} {seconds:4.0f} s  {doing}"
            sys.stderr.write(f"\r{line:100.100}")
            sys.stderr.flush()
