"""``python -m benchmarks``: every row, every contestant, as ratios with their spread."""

from __future__ import annotations

import argparse
import json
import resource
import signal
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.catalogue import missing
from benchmarks.progress import Progress
from benchmarks.report import absences, as_json, machine, notes, table
from benchmarks.results import Result
from benchmarks.rows import ROWS, Row, Scale, measure
from benchmarks.servers import ServerOptions

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is asked for, and print it."""
    options = parser().parse_args(arguments)
    allow_many_files()
    scale = scale_of(options)
    served = ServerOptions(options.loop, options.http)
    chosen, left_out = choose(options, scale)
    names = list(dict.fromkeys(name for contestants in chosen.values() for name in contestants))
    rows = [row for row in ROWS if chosen.get(row.name)]
    progress = Progress(sum(steps(row, chosen[row.name]) for row in rows) * options.runs)
    results: dict[str, tuple[Row, Result]] = {}
    print("\n".join([heading(served, options.runs, names), *absences(left_out)]), flush=True)
    for row in rows:
        result = measure(row, chosen[row.name], options.runs, scale, served, progress)
        results[row.name] = row, result
        print("\n" + table(row, result), flush=True)
    progress.end()
    print("\n" + notes(names, left_out))
    if options.json is not None:
        options.json.write_text(json.dumps(as_json(results, served, left_out), indent=1) + "\n")
    if options.plot is not None:
        from benchmarks.plot import draw

        draw(results, options.plot)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    made.add_argument("--quick", action="store_true", help="fewer connections, contestants and rows; under two minutes")
    made.add_argument("--tiny", action="store_true", help="only see that everything works; the figures mean nothing")
    made.add_argument("--only", action="append", choices=[row.name for row in ROWS], help="this row; may be repeated")
    made.add_argument("--runs", type=positive, help="interleaved runs (default: 5; with --quick 2)")
    made.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio", help="the servers' event loop")
    made.add_argument("--http", choices=["httptools", "h11"], default="httptools", help="uvicorn's HTTP parser")
    made.add_argument("--connections", type=positive, help="connections of the fan-out and the burst")
    made.add_argument("--json", type=new_file, metavar="FILE", help="write every run's figures")
    made.add_argument("--plot", type=drawing, metavar="FILE", help="draw FILE.svg and FILE.png; needs matplotlib")
    return made


def positive(text: str) -> int:
    """Return a number that is at least 1."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def new_file(text: str) -> Path:
    """Return a path that can be written to, as is better known before the measurement than after it."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} cannot be written: give a file in a directory that exists")
    return path


def drawing(text: str) -> Path:
    """Return the same for a picture, if there is what draws it."""
    if find_spec("matplotlib") is None:
        raise argparse.ArgumentTypeError("a plot needs matplotlib: pip install matplotlib")
    return new_file(text)


def scale_of(options: Any) -> Scale:
    """Return how much is asked for, and fill in the number of runs."""
    from dataclasses import replace

    scale = Scale.tiny() if options.tiny else Scale.quick() if options.quick else Scale()
    if options.runs is None:
        options.runs = 1 if options.tiny else 2 if options.quick else 5
    return scale if options.connections is None else replace(scale, connections=options.connections)


def choose(options: Any, scale: Scale) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Return each row's contestants, and what cannot take part here with the reason."""
    rows = wanted(options)
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    left_out = {
        row.name: f"it needs {row.files(scale)} open files and {files} are allowed (see ulimit -Hn)"
        for row in rows
        if row.files(scale) > files
    }
    quick = options.quick or options.tiny
    chosen = {row.name: contestants_of(row, quick=quick) for row in rows if row.name not in left_out}
    absent = missing(dict.fromkeys(name for names in chosen.values() for name in names))
    return {row: [name for name in names if name not in absent] for row, names in chosen.items()}, left_out | absent


def wanted(options: Any) -> list[Row]:
    """Return the rows that are asked for by name, or else those that are measured by default."""
    if options.only:
        return [row for row in ROWS if row.name in options.only]
    return [row for row in ROWS if not row.extra and not (row.slow and options.quick)]


def contestants_of(row: Row, *, quick: bool) -> list[str]:
    return [*row.contestants] if quick else [*row.contestants, *row.more]


def steps(row: Row, contestants: Sequence[str]) -> int:
    return 1 if row.in_process is not None else len(contestants)


def heading(served: ServerOptions, runs: int, contestants: Sequence[str]) -> str:
    told = machine(served, contestants)
    libraries = ", ".join(f"{name} {version}" for name, version in told["libraries"].items() if version)
    return (
        f"{told['processors']} x {told['processor']}, {told['system']}, load {told['load']:.1f}; "
        f"Python {told['python']}; "
        f"uvicorn on {told['loop']} and {told['http']}; {libraries}; {runs} interleaved runs, medians (least to most)"
    )


def allow_many_files() -> None:
    """Raise this process's limit of open files, which its servers inherit, to what it may."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    # Whoever ends this ends the servers, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main()
