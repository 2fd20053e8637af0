"""The figures as a picture; matplotlib is imported only here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks.results import Result
from benchmarks.rows import Row

__all__ = ["draw"]


def draw(results: Mapping[str, tuple[Row, Result]], path: Path) -> list[Path]:
    """Draw a panel for each row, its headline for each contestant, as ``path`` with ``.svg`` and with ``.png``."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(len(results), 1, figsize=(9, 2.2 * len(results)), squeeze=False, layout="constrained")
    for axis, (row, result) in zip(axes[:, 0], results.values(), strict=True):
        names = result.contestants[::-1]
        spreads = [result.spread(name, row.headline) for name in names]
        middles = [spread.middle for spread in spreads]
        reach = [
            [spread.middle - spread.least for spread in spreads],
            [spread.most - spread.middle for spread in spreads],
        ]
        colours = ["#1f77b4" if name.startswith("ours") else "#b0b0b0" for name in names]
        axis.barh(names, middles, xerr=reach, color=colours, ecolor="#404040", capsize=3)
        axis.set_title(row.title, loc="left", fontsize=10)
        axis.set_xlabel(row.unit(row.headline) + " (less is better)", fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    paths = [path.with_suffix(".svg"), path.with_suffix(".png")]
    for each in paths:
        figure.savefig(each, dpi=144)
    plt.close(figure)
    return paths
