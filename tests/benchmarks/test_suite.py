"""The benchmarks as a whole, in their smallest size: that they run and count, never how fast."""

from __future__ import annotations

import json
import re
from pathlib import Path
from shutil import which

import pytest

from benchmarks.__main__ import main, parser, wanted
from benchmarks.catalogue import CATALOGUE, running
from benchmarks.progress import Progress
from benchmarks.rows import ROWS, Row, Scale, measure
from benchmarks.servers import ServerError, ServerOptions
from tests.benchmarks.parts import require_parts_of


def name_of(row: Row) -> str:
    return row.name


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_every_row_measures_each_of_its_contestants(
    row: Row, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each row runs with real servers and clients, prints a line for each contestant and writes its figures."""
    require_parts_of(row.contestants)
    written = tmp_path / "figures.json"
    main(["--tiny", "--only", row.name, "--json", str(written)])
    printed = capsys.readouterr().out
    everything = json.loads(written.read_text())
    [told] = everything["rows"]
    [run] = told["runs"]
    assert everything["left_out"] == {}
    assert told["name"] == row.name
    assert list(run) == [*row.contestants]
    for contestant, metrics in run.items():
        assert re.search(rf"^  {re.escape(contestant)} +-?\d", printed, re.MULTILINE)
        assert row.headline in metrics
    assert len(told["verdicts"]) == len(row.targets)


@pytest.mark.parametrize(
    ("row", "contestant"),
    [pytest.param(row, name, id=f"{row.name}-{name}") for row in ROWS for name in row.more],
)
def test_the_contestants_that_quick_leaves_out_deliver_too(row: Row, contestant: str) -> None:
    """Every contestant of the full run gives its clients every event, in order, or the measurement fails."""
    require_parts_of([contestant])
    result = measure(row, [contestant], 1, Scale.tiny(), ServerOptions(), Progress(0))
    assert result.contestants == [contestant]


def test_every_contestant_takes_part_and_is_told_of() -> None:
    """Nobody is listed who is never measured, and the report has a line about everyone who is served."""
    served = {name for row in ROWS if row.load for name in (*row.contestants, *row.more)}
    assert served == set(CATALOGUE)


def test_the_plot_shows_each_row(tmp_path: Path) -> None:
    """``--plot`` writes a picture that scales and one that any page shows."""
    main(["--tiny", "--only", "encoding", "--plot", str(tmp_path / "speed")])
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")
    assert "</svg>" in (tmp_path / "speed.svg").read_text()


def lack_redis(program: str, path: str) -> str | None:
    return None if program == "redis-server" else which(program, path=path)


def test_who_lacks_a_part_is_left_out_and_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where something is not installed, the rest is measured, and the reader is told twice what to install."""
    monkeypatch.setattr("shutil.which", lack_redis)
    written = tmp_path / "figures.json"
    main(["--tiny", "--only", "workers", "--only", "encoding", "--json", str(written)])
    reason = "redis-server is not installed (Debian: apt-get install redis-server)"
    line = f"Left out: ours: 2 workers, because {reason}."
    head, _, rest = capsys.readouterr().out.partition("encoding one event")
    assert line in head
    assert line in rest
    told = json.loads(written.read_text())
    assert [row["name"] for row in told["rows"]] == ["encoding"]
    assert told["left_out"] == dict.fromkeys(["ours: 2 workers", "sse-starlette: 2 workers"], reason)


@pytest.mark.parametrize(
    ("option", "value", "remedy"),
    [
        ("--runs", "0", "'0' is no number from 1 on"),
        ("--connections", "-5", "'-5' is no number from 1 on"),
        ("--json", "nowhere/figures.json", "give a file in a directory that exists"),
        ("--plot", ".", "give a file in a directory that exists"),
        ("--only", "everything", "invalid choice: 'everything'"),
    ],
    ids=str,
)
def test_what_cannot_work_is_told_before_anything_is_measured(
    option: str, value: str, remedy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody waits twenty minutes to read that the figures cannot be written."""
    with pytest.raises(SystemExit):
        main(["--tiny", f"{option}={value}"])
    told = capsys.readouterr()
    assert remedy in told.err
    assert told.out == ""


def test_a_plot_without_what_draws_it_is_told_at_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the remedy."""
    monkeypatch.setattr("benchmarks.__main__.find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        main(["--tiny", "--plot", "speed"])
    assert "pip install matplotlib" in capsys.readouterr().err


def test_a_row_of_more_connections_than_files_is_left_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit that is too low is told of at the start, not found by a failure in the middle."""
    monkeypatch.setattr("resource.getrlimit", lambda what: (109, 109))
    monkeypatch.setattr("resource.setrlimit", lambda what, limits: None)
    main(["--tiny", "--only", "fan-out 10000", "--only", "encoding"])
    told = capsys.readouterr().out
    assert "Left out: fan-out 10000, because it needs 110 open files and 109 are allowed (see ulimit -Hn)." in told
    assert "encoding one event" in told


def test_quick_leaves_out_the_rows_that_take_long() -> None:
    """Rows marked as slow are measured by default or when asked for, and those that are extra only when asked for."""
    slow, extra = ({row.name for row in ROWS if getattr(row, mark)} for mark in ("slow", "extra"))
    names = {row.name for row in ROWS}
    assert chosen("--quick") == names - slow - extra
    assert chosen() == names - extra
    assert chosen("--quick", "--only", "workers", "--only", "crowd") == {"workers", "crowd"}


def chosen(*arguments: str) -> set[str]:
    options = parser().parse_args(arguments)
    return {row.name for row in wanted(options)}


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("contestant", ["raw: direct", "ours: 2 workers", "better-sse", "nchan"])
async def test_a_server_that_dies_is_an_error_and_not_a_hang(contestant: str) -> None:
    """A contestant that cannot start, or is killed meanwhile, ends the measurement with its name."""
    require_parts_of([contestant])
    async with running(contestant, ServerOptions()) as server:
        server.kill()
        with pytest.raises(ServerError, match=f"{contestant} has died"):
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
