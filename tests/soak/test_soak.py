"""Everything goes wrong at random, and every promise holds.

A short run stands for the many minutes by which faults are found that nobody has thought of::

    scripts/test tests/soak -s --soak-minutes 30 --soak-seed 7
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import pytest

from tests.soak.broadcast import soak as broadcast
from tests.soak.lifecycle import soak as lifecycle

Soak = Callable[[int, float, Callable[[str], None]], Awaitable[list[str]]]


@pytest.mark.parametrize("soak", [broadcast, lifecycle], ids=["broadcast", "lifecycle"])
def test_every_promise_holds_whatever_goes_wrong(soak: Soak, pytestconfig: pytest.Config) -> None:
    """What was published comes, in order and once, or a reset; every stream ends, once, and leaves nothing."""
    seed, seconds = pytestconfig.getoption("--soak-seed"), 60 * pytestconfig.getoption("--soak-minutes")
    assert anyio.run(soak, seed, seconds, print) == []
