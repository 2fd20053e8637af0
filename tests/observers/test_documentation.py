"""The document has a row for each metric, with the name and the labels that it really has."""

from __future__ import annotations

from docutils import nodes

from tests.observers.sinks import NAMES
from tests.package.test_documents import rendered
from tests.servers.processes import ROOT


def table(heading: str) -> list[list[str]]:
    """Return the rows of the table whose first column has this heading."""
    for found in rendered(ROOT / "docs" / "metrics.rst").findall(nodes.table):
        head, *rows = ([entry.astext() for entry in row.findall(nodes.entry)] for row in found.findall(nodes.row))
        if head[0] == heading:
            return rows
    raise AssertionError(f"no table has the heading {heading!r}")


def test_every_metric_of_prometheus_has_a_row() -> None:
    """With its labels."""
    told = [(f"starlette_sse_{name}", labels) for name, labels, _ in table("Metric of Prometheus")]
    assert told == [
        (name, ", ".join(label.rpartition(".")[2] for label in labels)) for name, _, _, labels in NAMES.values()
    ]


def test_every_metric_of_opentelemetry_has_a_row() -> None:
    """With its unit and attributes."""
    told = [(f"starlette_sse.{name}", unit, labels) for name, unit, labels in table("Metric of OpenTelemetry")]
    assert told == [(name, unit, ", ".join(labels)) for _, name, unit, labels in NAMES.values()]
