"""The page by axe-core: readable and operable by all, in both themes, on a desk and on a phone."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.conftest import require
from tests.example_app.board import Board, serving

VERSION = "4.14.1"
#: Seconds that npm gets.
PATIENCE = 120

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
RUN = "(rules) => axe.run(document, {runOnly: {type: 'tag', values: rules}, resultTypes: ['violations']})"


@pytest.fixture(scope="module")
def axe(request: pytest.FixtureRequest) -> str:
    """The source of axe-core, installed by npm once and kept in pytest's cache."""
    npm = require("npm")
    cache: pytest.Cache = request.config.cache
    directory = cache.mkdir(f"axe-core-{VERSION}")
    source = Path(directory, "node_modules", "axe-core", "axe.min.js")
    if not source.exists():
        subprocess.run(
            [npm, "install", "--prefix", str(directory), "--no-audit", "--no-fund", f"axe-core@{VERSION}"],
            check=True,
            timeout=PATIENCE,
            stdout=subprocess.DEVNULL,
        )
    return source.read_text(encoding="utf-8")


def violations(board: Board, axe: str) -> list[tuple[str, Any, str]]:
    """Return what axe-core finds wrong with the page."""
    board.page.evaluate(axe)
    return [
        (violation["id"], node["target"], node["failureSummary"])
        for violation in board.page.evaluate(RUN, RULES)["violations"]
        for node in violation["nodes"]
    ]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1440, 1000), (390, 844)], ids=["desktop", "phone"])
def test_axe_finds_nothing(
    chromium: Browser, open_board: Callable[..., Board], axe: str, theme: Any, width: int, height: int
) -> None:
    """With every panel in use, no rule of WCAG 2.2 A and AA or of good practice is broken."""
    context = chromium.new_context(
        viewport={"width": width, "height": height}, color_scheme=theme, bypass_csp=True, reduced_motion="reduce"
    )
    board = open_board(context=context)
    board.says("hello")
    for button in ("#job-done", "#stream-fails", "#ask-button"):
        board.press(button)
    board.is_inspected()
    board.find(".job .error").first.wait_for()
    found = violations(board, axe)
    context.close()
    assert found == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_while_the_server_is_away(
    chromium: Browser, open_board: Callable[..., Board], axe: str, tmp_path: Path, theme: Any
) -> None:
    """What is stale is pale, and readable all the same."""
    context = chromium.new_context(color_scheme=theme, bypass_csp=True)
    with serving(tmp_path) as server:
        board = open_board(server.port, context)
        board.press("#job-done")
        board.is_inspected()
        with board.outage():
            server.stop(signal.SIGKILL)
            pale = board.find(".facts dt").first.evaluate("(figure) => getComputedStyle(figure).color")
            for figure in ("#clock-time", "#streams td"):
                expect(board.find(figure).first).to_have_css("color", pale)
            found = violations(board, axe)
            context.close()
    assert found == []


def test_a_phone_never_scrolls_sideways(chromium: Browser, open_board: Callable[..., Board]) -> None:
    """On a narrow screen everything fits its width; tables scroll by themselves."""
    context = chromium.new_context(viewport={"width": 320, "height": 640}, bypass_csp=True)
    board = open_board(context=context)
    board.says("w" * 300)
    board.press("#job-failed")
    board.is_inspected()
    assert board.page.evaluate("document.documentElement.scrollWidth") <= 320
    context.close()
