"""The page as a test holds it: opened in a tab, read by what it shows, and clean at its end."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import BrowserContext, ConsoleMessage, Locator, Page, expect

from tests.servers.processes import ROOT, Program, running

__all__ = ["PATIENCE", "Board", "serving"]

#: Milliseconds that the page gets for anything, on a machine that has much to do.
PATIENCE = 20_000

#: What Chromium itself writes to the console when a connection fails; no page can keep it from doing so.
OUTAGE = re.compile(r"Failed to load resource: net::ERR_\w+")
REFUSAL = re.compile("Failed to load resource: the server responded with a status of 503")


def serving(directory: Path, *, port: int | None = None, broker: str = "memory://") -> AbstractContextManager[Program]:
    """Serve the example app until the block ends."""
    return running(
        lambda chosen: [
            *(sys.executable, "-m", "uvicorn", "example_app:app", "--port", str(chosen)),
            *("--timeout-graceful-shutdown", "10"),
        ],
        directory,
        environ={"PYTHONPATH": str(ROOT), "STARLETTE_SSE_BROKER": broker},
        port=port,
    )


@dataclass
class Board:
    """One tab with the page."""

    page: Page
    problems: list[str] = field(default_factory=list)
    _outage: bool = False
    _refusals: bool = False

    @classmethod
    def open(cls, context: BrowserContext, port: int) -> Board:
        """Open the page in a new tab, and wait until both of its streams are live."""
        board = cls(context.new_page())
        board.page.set_default_timeout(PATIENCE)
        board.page.on("pageerror", lambda error: board.problems.append(f"page error: {error}"))
        board.page.on("console", board._heard)
        board.page.goto(f"http://127.0.0.1:{port}/")
        board.is_live()
        return board

    def find(self, selector: str) -> Locator:
        return self.page.locator(selector)

    def press(self, selector: str) -> None:
        self.page.locator(selector).click()

    def shows(self, selector: str, text: str | re.Pattern[str]) -> None:
        """Wait until an element has a text, or has one that the pattern is found in."""
        if isinstance(text, str):
            expect(self.find(selector)).to_have_text(text, timeout=PATIENCE)
        else:
            expect(self.find(selector)).to_contain_text(text, timeout=PATIENCE)

    def is_live(self) -> None:
        for stream in ("clock", "live"):
            expect(self.find(f'[data-stream="{stream}"]').first).to_have_attribute(
                "data-state", "live", timeout=PATIENCE
            )

    def is_inspected(self) -> None:
        """Wait until the inspector lists both of this page's streams."""
        rows = self.find("#streams tr").filter(has_text="this page")
        expect(rows).to_have_count(2, timeout=PATIENCE)

    def count(self, what: str) -> int:
        """Return what the page has counted: events, gaps, doubled, resets or reconnects."""
        return int(self.find(f"#count-{what}").inner_text().replace(",", ""))

    def reaches(self, what: str, number: int) -> None:
        """Wait until the page has counted so many."""
        self.page.wait_for_function(
            "([id, number]) => Number(document.getElementById(id).textContent.replace(/,/g, '')) >= number",
            arg=[f"count-{what}", number],
            timeout=PATIENCE,
        )

    def hears_more(self) -> None:
        """Wait until events come again, on both streams."""
        self.is_live()
        ticks, events = int(self.find("#clock-ticks").inner_text().replace(",", "")), self.count("events")
        self.reaches("events", events + 6)
        self.page.wait_for_function(
            "(ticks) => Number(document.getElementById('clock-ticks').textContent.replace(/,/g, '')) > ticks",
            arg=ticks,
            timeout=PATIENCE,
        )

    def says(self, text: str) -> None:
        """Write in the chat's room, and wait until the message is there."""
        self.page.fill("#text", text)
        self.press("#say button")
        expect(self.message(text).last).to_be_visible(timeout=PATIENCE)

    def message(self, text: str) -> Locator:
        return self.find(".message p").filter(has_text=re.compile(f"^{re.escape(text)}$"))

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Allow the browser to write of connections that fail, in the block."""
        self._outage = True
        yield
        self._outage = False

    @contextmanager
    def refusals(self) -> Iterator[None]:
        """Allow the browser to write of requests that are answered by 503, in the block."""
        self._refusals = True
        yield
        self._refusals = False

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type not in {"error", "warning"}:
            return
        if (self._outage and OUTAGE.search(message.text)) or (self._refusals and REFUSAL.search(message.text)):
            return
        self.problems.append(f"console {message.type}: {message.text} at {message.location}")
