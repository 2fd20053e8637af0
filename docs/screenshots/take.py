"""Takes the pictures in docs/screenshots: ``python -m docs.screenshots.take``; pngquant makes them small."""

from __future__ import annotations

import signal
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from tests.chromium import FLAGS
from tests.conftest import require
from tests.example_app.board import Board, serving

SCREENS = {"desktop": (1280, 1580), "phone": (390, 1900)}
TALK = [
    ("heron", "Deploy is out. The board stayed up through the restart."),
    ("otter", "Saw it: one reset, zero gaps. My tab came back by itself."),
    ("heron", "Now try it with Redis <script>alert(1)</script> :-)"),
    ("ibex", "Stalled my own page, flooded it, let it go: 2,000 of 2,000 arrived."),
]


def take(browser: Browser, port: int, directory: Path, theme: str, screen: str) -> None:
    """Fill the page with life and take its picture."""
    width, height = SCREENS[screen]
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if theme == "dark" else "light",
        bypass_csp=True,
    )
    board = Board.open(context, port)
    for button in ("#job-failed", "#stream-fails", "#ask-button"):
        board.press(button)
    board.find('[data-job^="fails"] .error').first.wait_for()
    board.find("#answer-state[data-state=done]").wait_for()
    board.press("#job-done")
    board.is_inspected()
    board.find(".job[data-state=running] progress[value]").nth(1).wait_for()
    board.page.evaluate("scrollTo(0, 0)")
    board.page.screenshot(path=directory / f"{screen}-{theme}.png")
    context.close()
    if board.problems:
        raise RuntimeError(f"the page has problems: {board.problems}")


def take_restart(browser: Browser, logs: Path, directory: Path) -> None:
    """Stop the server in the middle of everything, start it again, and take a picture of the page that came back."""
    context = browser.new_context(viewport={"width": 1280, "height": 960}, bypass_csp=True)
    with serving(logs) as first:
        board = Board.open(context, first.port)
        board.page.fill("#name", "otter")
        board.says("Stopping the server now.")
        for button in ("#job-done", "#ask-button"):
            board.press(button)
        board.find("#answer").filter(has_text="ping_interval").wait_for()
        first.stop(signal.SIGINT)
    board.page.wait_for_timeout(2000)
    with serving(logs, port=first.port):
        board.reaches("resets", 1)
        board.find("#answer-state[data-state=done]").wait_for()
        board.hears_more()
        board.says("And here it is again.")
        board.page.evaluate("scrollTo(0, 0)")
        board.page.screenshot(path=directory / "after-a-restart.png")
    context.close()


def main() -> None:
    """Take every picture."""
    directory = Path(__file__).parent
    with tempfile.TemporaryDirectory() as logs, serving(Path(logs)) as program, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=require("chromium"), args=FLAGS)
        context = browser.new_context(bypass_csp=True)
        board = Board.open(context, program.port)
        for name, text in TALK:
            board.page.fill("#name", name)
            board.says(text)
        board.press("#flood")
        board.page.wait_for_function("Number(document.getElementById('charts').dataset.samples) > 115", timeout=150_000)
        take_restart(browser, Path(logs), directory)
        for theme in ("light", "dark"):
            for screen in SCREENS:
                take(browser, program.port, directory, theme, screen)
        browser.close()


if __name__ == "__main__":
    main()
