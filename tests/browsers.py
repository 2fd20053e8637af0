"""Real browsers, each new and headless, and one way to use them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import Page, async_playwright

from tests.chromium import FLAGS
from tests.conftest import require
from tests.firefox import FirefoxPage, firefox

__all__ = ["BROWSERS", "Tab", "browsing"]

BROWSERS = ("chromium", "firefox")

Tab = Page | FirefoxPage


@asynccontextmanager
async def browsing(browser: str, directory: Path, url: str) -> AsyncIterator[Tab]:
    """Open a page in a browser, whose profile is in a folder."""
    async with chromium() if browser == "chromium" else firefox(directory / "firefox") as page:
        await page.goto(url)
        yield page


@asynccontextmanager
async def chromium() -> AsyncIterator[Page]:
    program = require("chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=FLAGS)
        try:
            yield await browser.new_page()
        finally:
            await browser.close()
