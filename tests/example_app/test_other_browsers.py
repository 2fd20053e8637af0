"""The page in the browsers that Playwright does not drive here."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browsers import BROWSERS, Tab, browsing
from tests.example_app.board import PATIENCE
from tests.servers.processes import Program

pytestmark = pytest.mark.anyio

IS_LIVE = """
(names) => names.every((name) => document.querySelector(`[data-stream="${name}"]`)?.dataset.state === "live")
"""
REACHES = "([id, number]) => Number(document.getElementById(id).textContent.replace(/,/g, '')) >= number"
NUMBER = "(id) => Number(document.getElementById(id).textContent.replace(/,/g, ''))"


@pytest.fixture
def anyio_backend() -> str:
    """The drivers are spoken to on asyncio alone."""
    return "asyncio"


async def hears_more(page: Tab) -> None:
    await page.wait_for_function(IS_LIVE, arg=["clock", "live"], timeout=PATIENCE)
    for name, more in (("clock-ticks", 1), ("count-events", 6)):
        heard = await page.evaluate(NUMBER, name)
        await page.wait_for_function(REACHES, arg=[name, heard + more], timeout=PATIENCE)


@pytest.mark.parametrize("browser", [name for name in BROWSERS if name != "chromium"])
async def test_the_page_is_live_and_comes_back_from_a_drain(server: Program, browser: str, tmp_path: Path) -> None:
    """Both streams, an answer by POST and fetch, and the farewells that bring every stream back without a gap."""
    async with browsing(browser, tmp_path, f"http://127.0.0.1:{server.port}/") as page:
        await hears_more(page)
        await page.evaluate("document.getElementById('ask-button').click()")
        await page.wait_for_function(
            "(end) => document.getElementById('verdict').textContent.endsWith(end)", arg=": intact.", timeout=PATIENCE
        )
        await page.evaluate("document.querySelector('[data-chaos=drain]').click()")
        await page.wait_for_function(REACHES, arg=["count-reconnects", 2], timeout=PATIENCE)
        await hears_more(page)
        assert [await page.evaluate(NUMBER, f"count-{what}") for what in ("gaps", "doubled", "resets")] == [0, 0, 0]
