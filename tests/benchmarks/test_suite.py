"""The benchmarks as a whole, in their smallest size: that they run and count, never how fast."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.contestants import CATALOGUE
from benchmarks.progress import Progress
from benchmarks.rows import ROWS, Row, Scale, measure
from benchmarks.servers import ServerError, ServerOptions, running


def name_of(row: Row) -> str:
    return row.name


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_every_row_measures_each_of_its_contestants(
    row: Row, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each row runs with real servers and clients, prints a line for each contestant and writes its figures."""
    written = tmp_path / "figures.json"
    main(["--tiny", "--only", row.name, "--json", str(written)])
    printed = capsys.readouterr().out
    [told] = json.loads(written.read_text())["rows"]
    [run] = told["runs"]
    assert told["name"] == row.name
    assert list(run) == [*row.contestants]
    for contestant, metrics in run.items():
        assert re.search(rf"^  {re.escape(contestant)} +-?\d", printed, re.MULTILINE)
        assert row.headline in metrics
    assert len(told["verdicts"]) == len(row.targets)


@pytest.mark.parametrize("row", [row for row in ROWS if row.more], ids=name_of)
def test_the_contestants_that_quick_leaves_out_deliver_too(row: Row) -> None:
    """Every contestant of the full run gives its clients every event, in order, or the measurement fails."""
    result = measure(row, [*row.more], 1, Scale.tiny(), ServerOptions(), Progress(0))
    assert result.contestants == [*row.more]


def test_every_contestant_takes_part_and_is_told_of() -> None:
    """Nobody is listed who is never measured, and the report has a line about everyone who is served."""
    served = {name for row in ROWS if row.load for name in (*row.contestants, *row.more)}
    assert served == set(CATALOGUE)


def test_the_plot_shows_each_row(tmp_path: Path) -> None:
    """``--plot`` writes a picture that scales and one that any page shows."""
    main(["--tiny", "--only", "encoding", "--plot", str(tmp_path / "speed")])
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")
    assert "</svg>" in (tmp_path / "speed.svg").read_text()


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_server_that_dies_is_an_error_and_not_a_hang() -> None:
    """A contestant that cannot start, or is killed meanwhile, ends the measurement with its name."""
    async with running("raw: direct", ServerOptions()) as server:
        server.kill()
        with pytest.raises(ServerError, match="raw: direct has died"):
            await server.tell("publish", count=1, size=1)


def test_the_progress_tells_how_long_the_rest_takes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal, what is left is estimated by the steps that are done; there is nothing left in the end."""
    now = 100.0
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr("time.monotonic", lambda: now)
    progress = Progress(3)
    progress.step("first")
    now += 10
    progress.step("second")
    progress.step("third")
    progress.end()
    first, second, third, end = capsys.readouterr().err.split("\r")[1:]
    assert "left" not in first
    assert "1/3 10 s, about 20 s left  second" in second
    assert "2/3 10 s, about 5 s left  third" in third
    assert "3/3 10 s  done" in end
