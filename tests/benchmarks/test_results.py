"""The arithmetic from runs to ratios, and how they are written."""

from __future__ import annotations

import math

import pytest

from benchmarks.report import as_json, ratio_text, table
from benchmarks.results import Result, Spread, Target
from benchmarks.rows import Row
from benchmarks.servers import ServerOptions

RESULT = Result(
    [
        {"ours": {"cpu": 10.0}, "theirs": {"cpu": 20.0}},
        {"ours": {"cpu": 30.0}, "theirs": {"cpu": 120.0}},
        {"ours": {"cpu": 20.0}, "theirs": {"cpu": 20.0}},
    ]
)


def test_a_ratio_is_taken_in_each_run_by_itself() -> None:
    """What else the machine did in a run met both sides, so runs are never mixed."""
    assert RESULT.ratio("cpu", "ours", "theirs") == Spread(0.25, 0.5, 1.0)
    assert RESULT.spread("ours", "cpu") == Spread(10.0, 20.0, 30.0)


def test_nothing_compared_to_is_the_figure_itself() -> None:
    """A promise in KiB has nobody to compare to."""
    assert RESULT.ratio("cpu", "ours", None) == Spread(10.0, 20.0, 30.0)


def test_a_ratio_to_nothing_is_infinite() -> None:
    """A peer's figure of zero, as of a very small measurement, breaks no report."""
    assert Result([{"ours": {"cpu": 1.0}, "theirs": {"cpu": 0.0}}]).ratio("cpu", "ours", "theirs").middle == math.inf


@pytest.mark.parametrize(
    ("bar", "goal", "word"), [(1.0, 0.5, "goal"), (0.5, 0.4, "bar"), (0.49, 0.3, "missed")], ids=str
)
def test_the_median_decides(bar: float, goal: float, word: str) -> None:
    """A target is reached by the median run, not by the best."""
    assert RESULT.verdict(Target("cpu", "ours", "theirs", bar, goal)).word == word


def test_a_spread_of_nothing_is_an_error() -> None:
    """No run, no figure."""
    with pytest.raises(ValueError, match="at least one"):
        Spread.of([])


@pytest.mark.parametrize(("value", "written"), [(0.25, "1/4.0"), (1.0, "1.00 x"), (1.846, "1.85 x")])
def test_a_ratio_is_written_as_it_is_spoken_of(value: float, written: str) -> None:
    """Less than one is a fraction, more is a multiple."""
    assert ratio_text(value) == written


def test_the_table_and_the_json_tell_the_same() -> None:
    """Every run is in the JSON; the table has the medians and what became of the target."""
    row = Row("row", "a row", "cpu", ("ours", "theirs"), (Target("cpu", "ours", "theirs", 0.6, 0.4),))
    [told] = as_json({"row": (row, RESULT)}, ServerOptions())["rows"]
    assert told["runs"] == [dict(run) for run in RESULT.runs]
    assert told["verdicts"][0] | {"median": 0.5, "reached": "bar"} == told["verdicts"][0]
    printed = table(row, RESULT)
    assert "ours against theirs, cpu: 1/2.0  (1/4.0 to 1.00 x)  bar 1/1.7, goal 1/2.5: bar" in printed
    assert "20.00 (20.00 to 120.00)" in printed
