"""The arithmetic: what was measured in each run, and what it is as a ratio."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Metrics", "Result", "Run", "Spread", "Target", "Verdict"]

Metrics = Mapping[str, float]
"""What one contestant took in one run, by the metric's name."""

Run = Mapping[str, Metrics]
"""One run: every contestant's metrics, taken one after the other."""


@dataclass(frozen=True)
class Spread:
    """The smallest, the median and the largest of some runs."""

    least: float
    middle: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of at least one value.

        :raises ValueError: there is none.
        """
        if not values:
            raise ValueError("a spread needs at least one value")
        return cls(min(values), statistics.median(values), max(values))


@dataclass(frozen=True)
class Target:
    """What a row promises: a metric of ours is at most ``bar``, and hopefully ``goal``, of what ``against`` takes."""

    metric: str
    ours: str
    against: str | None
    """None: the figure itself is promised, not a ratio."""
    bar: float
    goal: float


@dataclass(frozen=True)
class Verdict:
    """What became of a target."""

    target: Target
    ratio: Spread

    @property
    def word(self) -> str:
        """Tell what the median reaches: ``goal``, ``bar`` or ``missed``."""
        if self.ratio.middle <= self.target.goal:
            return "goal"
        return "bar" if self.ratio.middle <= self.target.bar else "missed"


@dataclass(frozen=True)
class Result:
    """A row's runs."""

    runs: Sequence[Run]

    @property
    def contestants(self) -> list[str]:
        """Return who took part."""
        return list(self.runs[0])

    def metrics(self, contestant: str) -> list[str]:
        """Return what was measured of a contestant."""
        return list(self.runs[0][contestant])

    def spread(self, contestant: str, metric: str) -> Spread:
        """Return what a contestant took."""
        return Spread.of([run[contestant][metric] for run in self.runs])

    def ratio(self, metric: str, ours: str, against: str | None) -> Spread:
        """Return ours over theirs, taken in each run by itself; the figure itself if there is nobody to compare to."""
        return Spread.of(
            [divide(run[ours][metric], 1.0 if against is None else run[against][metric]) for run in self.runs]
        )

    def verdict(self, target: Target) -> Verdict:
        """Return what became of ``target``."""
        return Verdict(target, self.ratio(target.metric, target.ours, target.against))


def divide(mine: float, theirs: float) -> float:
    return mine / theirs if theirs else math.inf
