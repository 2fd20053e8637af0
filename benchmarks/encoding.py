"""CPU time of one event to bytes, against sse-starlette's: ``python -m benchmarks.encoding``.

Both are timed in turns, so what else the machine does meets both alike; each line is the median of the rounds'
ratios with the smallest and the largest. Events are made first and only their encoding is timed, but for the lines
that say ``made and encoded``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from timeit import Timer
from typing import Any

import sse_starlette

import starlette_sse.events as ours

__all__ = ["WORK", "Ratio", "compare", "cpu", "main"]

ROUND = 0.02
"""Seconds of CPU that one side gets in a round."""
SMALL: dict[str, Any] = {"data": "hello world", "event": "tick", "id": "12"}
LINES: dict[str, Any] = {"data": "\n".join(f"line {number:04} {'x' * 40}" for number in range(260))}
"""13 KB in 260 lines."""
BEYOND_ASCII: dict[str, Any] = {"data": "héllo wörld …", "event": "tick", "id": "12"}


@dataclass(frozen=True)
class Ratio:
    """Their CPU time over ours in each round: 6 means that ours takes a sixth."""

    rounds: list[float]

    def __str__(self) -> str:
        middle = statistics.median(self.rounds)
        return f"1/{middle:.1f} (1/{min(self.rounds):.1f} to 1/{max(self.rounds):.1f})"


def encoding(fields: dict[str, Any]) -> tuple[Callable[[], bytes], Callable[[], bytes]]:
    """Return ours and theirs for an event that exists."""
    return ours.ServerSentEvent(**fields).encode, sse_starlette.ServerSentEvent(**fields).encode


def making(fields: dict[str, Any]) -> tuple[Callable[[], bytes], Callable[[], bytes]]:
    """Return ours and theirs for an event that is made first."""
    return (
        lambda: ours.ServerSentEvent(**fields).encode(),
        lambda: sse_starlette.ServerSentEvent(**fields).encode(),
    )


WORK = {
    "a small event": encoding(SMALL),
    "a small event, data only": encoding({"data": "hello world"}),
    "a small event beyond ASCII": encoding(BEYOND_ASCII),
    "13 KB of lines": encoding(LINES),
    "a small event, made and encoded": making(SMALL),
    "a small event beyond ASCII, made and encoded": making(BEYOND_ASCII),
    "13 KB of lines, made and encoded": making(LINES),
}


def timed(work: str, rounds: int) -> list[tuple[float, float]]:
    """Time ours and theirs in turns; seconds of CPU for one event, for each round."""
    sides = [Timer(side, timer=time.process_time) for side in WORK[work]]
    repeats = [max(1, int(100 * ROUND / max(side.timeit(100), 1e-9))) for side in sides]
    times = [[side.timeit(count) / count for side, count in zip(sides, repeats, strict=True)] for _ in range(rounds)]
    return [(mine, theirs) for mine, theirs in times]


def cpu(work: str, rounds: int) -> tuple[float, float]:
    """Return ours and theirs in the round of the median ratio."""
    ranked = sorted(timed(work, rounds), key=lambda pair: pair[0] / pair[1])
    return ranked[len(ranked) // 2]


def compare(work: str, rounds: int) -> Ratio:
    """Time both sides of ``work`` in turns."""
    return Ratio([theirs / mine for mine, theirs in timed(work, rounds)])


def main(arguments: list[str] | None = None) -> None:
    """Print one line for each piece of work."""
    parser = argparse.ArgumentParser(description="CPU time of one event to bytes, against sse-starlette's.")
    parser.add_argument("--rounds", type=int, default=25, help="how often each side is timed (default: 25)")
    options: Any = parser.parse_args(arguments)
    print("starlette_sse's CPU time as a part of sse-starlette's, median of the rounds (smallest to largest gain)")
    for work, (mine, theirs) in WORK.items():
        assert mine() == theirs()
        print(f"  {work:45} {compare(work, options.rounds)}")


if __name__ == "__main__":
    main()
