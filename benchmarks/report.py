"""The table, and the same as JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.catalogue import CATALOGUE, Entry, versions
from benchmarks.results import Result, Spread, Verdict
from benchmarks.rows import Row
from benchmarks.servers import ServerOptions

__all__ = ["as_json", "machine", "notes", "ratio_text", "table"]

LIBRARIES = (
    "starlette",
    "anyio",
    "uvicorn",
    "httptools",
    "uvloop",
    "sse-starlette",
    "fastapi",
    "litestar",
    "structlog",
    "redis",
)


def ratio_text(value: float) -> str:
    """Return a ratio as it is spoken of: ``1/2.6``, or ``1.9 x``."""
    return f"1/{1 / value:.1f}" if 0 < value < 1 else f"{value:.2f} x"


def spread_text(verdict: Verdict, spread: Spread) -> str:
    write = ratio_text if verdict.target.against is not None else "{:.1f} KiB".format
    return f"{write(spread.middle)}  ({write(spread.least)} to {write(spread.most)})"


def verdict_text(verdict: Verdict) -> str:
    target = verdict.target
    write = ratio_text if target.against is not None else "{:.1f} KiB".format
    against = "" if target.against is None else f" against {target.against}"
    return (
        f"    {target.ours}{against}, {target.metric}: {spread_text(verdict, verdict.ratio)}"
        f"  bar {write(target.bar)}, goal {write(target.goal)}: {verdict.word}"
    )


def table(row: Row, result: Result) -> str:
    """Return a row's figures and what became of its targets."""
    reference = result.contestants[0]
    metrics = list(dict.fromkeys([row.headline, *result.metrics(reference)]))
    lines = [row.title, cells("", [row.unit(row.headline) + " (least to most)", *map(row.unit, metrics[1:]), "ratio"])]
    for name in result.contestants:
        head = result.spread(name, row.headline)
        middles = [f"{result.spread(name, metric).middle:.1f}" for metric in metrics[1:]]
        ratio = result.ratio(row.headline, name, reference)
        first = f"{head.middle:.2f} ({head.least:.2f} to {head.most:.2f})"
        lines.append(cells(name, [first, *middles, "1" if name == reference else ratio_text(ratio.middle)]))
    lines += [
        verdict_text(result.verdict(target)) for target in row.targets if present(target.ours, target.against, result)
    ]
    return "\n".join(lines)


def present(ours: str, against: str | None, result: Result) -> bool:
    """Tell whether both sides of a target took part."""
    return ours in result.contestants and (against is None or against in result.contestants)


def cells(name: str, values: Sequence[str]) -> str:
    return f"  {name:25}" + f"{values[0]:>28}" + "".join(f"{value:>19}" for value in values[1:])


def notes(contestants: Sequence[str], left_out: Mapping[str, str]) -> str:
    """Return what each contestant does and does not do, and who should have taken part and why they did not."""
    known = {name: CATALOGUE[name] for name in contestants if name in CATALOGUE}
    lines = ["Who takes part:", *(f"  {name}: {told_of(entry)}" for name, entry in known.items())]
    return "\n".join([*lines, *map("  ".__add__, absences(left_out))])


def absences(left_out: Mapping[str, str]) -> list[str]:
    """Return a line for each contestant or row that is left out."""
    return [f"Left out: {name}, because {reason}." for name, reason in left_out.items()]


def told_of(entry: Entry) -> str:
    lacks = f"It has {entry.lacks}." if entry.lacks else ""
    return " ".join(filter(None, [f"{entry.does}.", lacks, entry.note]))


def machine(options: ServerOptions, contestants: Sequence[str] = ()) -> dict[str, Any]:
    """Return what the figures depend on, with what these contestants run on."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "processor": processor(),
        "processors": os.cpu_count(),
        "load": os.getloadavg()[0],
        "loop": options.loop,
        "http": options.http,
        "libraries": {name: installed(name) for name in LIBRARIES} | versions(contestants),
    }


def processor() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def as_json(
    results: Mapping[str, tuple[Row, Result]], options: ServerOptions, left_out: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return everything that was measured."""
    contestants = [name for _, result in results.values() for name in result.contestants]
    return {
        "machine": machine(options, contestants),
        "left_out": dict(left_out or {}),
        "rows": [
            {
                "name": row.name,
                "title": row.title,
                "headline": row.headline,
                "runs": [dict(run) for run in result.runs],
                "verdicts": [
                    verdict_json(result.verdict(target))
                    for target in row.targets
                    if present(target.ours, target.against, result)
                ],
            }
            for row, result in results.values()
        ],
    }


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    target, ratio = verdict.target, verdict.ratio
    return {
        "metric": target.metric,
        "ours": target.ours,
        "against": target.against,
        "bar": target.bar,
        "goal": target.goal,
        "least": ratio.least,
        "median": ratio.middle,
        "most": ratio.most,
        "reached": verdict.word,
    }
