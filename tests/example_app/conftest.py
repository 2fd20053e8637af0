"""The example app served by uvicorn, and its page in a real headless Chromium."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, sync_playwright

from tests.chromium import FLAGS
from tests.conftest import require
from tests.example_app.board import Board, serving
from tests.servers.processes import Program


# By module: while Playwright's synchronous side is in use, no other event loop can run in this thread.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=require("chromium"), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A server for the tests that leave it as it was."""
    with serving(tmp_path_factory.mktemp("example_app")) as program:
        yield program


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    """A browser of its own, as far as pages can tell."""
    # The page's policy forbids eval, which Playwright's wait_for_function needs.
    context = chromium.new_context(viewport={"width": 1440, "height": 1000}, bypass_csp=True)
    yield context
    context.close()


@pytest.fixture
def open_board(context: BrowserContext, server: Program) -> Iterator[Callable[..., Board]]:
    """Open the page in another tab; no error of it goes unnoticed."""
    boards: list[Board] = []

    def open_one(port: int = server.port, context: BrowserContext = context) -> Board:
        boards.append(Board.open(context, port))
        return boards[-1]

    yield open_one
    assert [problem for board in boards for problem in board.problems] == []


@pytest.fixture
def board(open_board: Callable[..., Board]) -> Board:
    return open_board()
