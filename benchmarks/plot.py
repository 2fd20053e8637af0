"""The figures as a picture; matplotlib is imported only here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.results import Result
from benchmarks.rows import Row

__all__ = ["draw"]


OURS, OTHERS = "#1f77b4", "#b0b0b0"


def draw(results: Mapping[str, tuple[Row, Result]], path: Path) -> list[Path]:
    """Draw a panel for each row that compares, its headline for each contestant, as ``path`` with both suffixes.

    :raises ValueError: there is no row to draw.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    # Text stays text in the SVG, and the same figures make the same file.
    plt.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "starlette_sse"}
    drawn = [(row, result) for row, result in results.values() if compares(row, result)]
    if not drawn:
        raise ValueError("none of the rows compares anybody; there is nothing to draw")
    # Each line of two panels is as high as the fuller of them needs.
    bars = [max(len(result.contestants) for _, result in drawn[place : place + 2]) for place in range(0, len(drawn), 2)]
    heights = [1.1 + 0.2 * count for count in bars]
    figure, axes = plt.subplots(
        len(bars),
        min(2, len(drawn)),
        figsize=(13, sum(heights)),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat[len(drawn) :]:
        axis.set_axis_off()
    for axis, (row, result) in zip(axes.flat, drawn, strict=False):
        panel(axis, row, result)
    paths = [path.with_suffix(".svg"), path.with_suffix(".png")]
    figure.savefig(paths[0], metadata={"Date": None})
    figure.savefig(paths[1], dpi=96)
    plt.close(figure)
    return paths


def compares(row: Row, result: Result) -> bool:
    """Tell whether contestants were measured against each other, and not one in several situations."""
    return len(result.contestants) > 1 and (bool(row.targets) or row.load is not None)


def panel(axis: Any, row: Row, result: Result) -> None:
    """Draw one row: a bar from nothing to the median, and a line from the least to the most."""
    names = result.contestants[::-1]
    spreads = [result.spread(name, row.headline) for name in names]
    reach = [
        [spread.middle - spread.least for spread in spreads],
        [spread.most - spread.middle for spread in spreads],
    ]
    axis.barh(
        names,
        [spread.middle for spread in spreads],
        xerr=reach,
        color=[OURS if name.startswith("ours") else OTHERS for name in names],
        ecolor="#404040",
        capsize=3,
    )
    for place, spread in enumerate(spreads):
        axis.text(spread.most, place, f"  {short(spread.middle)}", va="center", fontsize=7)
    axis.margins(x=0.1)
    axis.set_title(row.title, loc="left", fontsize=9)
    axis.set_xlabel(row.unit(row.headline) + " (less is better)", fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)


def short(value: float) -> str:
    """Return three digits of a figure, or all of a large one."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
