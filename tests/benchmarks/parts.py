"""What contestants run on, which is never silently missing."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from benchmarks.catalogue import missing
from tests.conftest import on_ci

__all__ = ["require_parts_of"]


def require_parts_of(contestants: Iterable[str]) -> None:
    """See that all of them can run; where one cannot, the test fails under ``CI=true`` and is skipped elsewhere."""
    reasons = missing(contestants)
    if reasons and on_ci():
        pytest.fail(f"{reasons}")
    if reasons:
        pytest.skip(f"{'; '.join(dict.fromkeys(reasons.values()))}; scripts/test installs it where it may")
