"""Real browsers, each new and headless, and one way to use them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from playwright.async_api import Page, async_playwright

from tests.chromium import FLAGS
from tests.conftest import require
from tests.firefox import FirefoxPage, firefox
from tests.webkit import WebKitPage, webkit

__all__ = ["BROWSERS", "Tab", "browsing"]

Tab = Page | FirefoxPage | WebKitPage


@asynccontextmanager
async def browsing(browser: str, directory: Path, url: str) -> AsyncIterator[Tab]:
    """Open a page in a browser, whose profile is in a folder."""
    start = STARTS[browser]
    async with start(directory / browser) as page:
        await page.goto(url)
        yield page


@asynccontextmanager
async def chromium(_: Path) -> AsyncIterator[Page]:
    """Run a Chromium, whose profile Playwright makes."""
    program = require("chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=FLAGS)
        try:
            yield await browser.new_page()
        finally:
            await browser.close()


STARTS: dict[str, Callable[[Path], AbstractAsyncContextManager[Tab]]] = {
    "chromium": chromium,
    "firefox": firefox,
    "webkit": webkit,
}
BROWSERS = tuple(STARTS)
