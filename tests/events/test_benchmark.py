"""The benchmark of encoding runs as the README says it does."""

from __future__ import annotations

import re

import pytest

from benchmarks.encoding import WORK, main


def test_the_benchmark_prints_a_ratio_with_its_spread(capsys: pytest.CaptureFixture[str]) -> None:
    """One line for each piece of work, for which both sides send the same bytes."""
    main(["--rounds", "3"])
    _, *lines = capsys.readouterr().out.splitlines()
    number = r"1/\d+\.\d"
    assert len(lines) == len(WORK)
    for line, work in zip(lines, WORK, strict=True):
        assert re.fullmatch(rf"  {re.escape(work)} +{number} \({number} to {number}\)", line)
