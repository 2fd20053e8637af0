"""A real WebKit, the engine of Safari, in GTK's small browser; asked by WebDriver (https://www.w3.org/TR/webdriver2/)."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import httpx
from anyio.abc import Process

from tests.conftest import require
from tests.servers.processes import free_port

__all__ = ["WebKitPage", "webkit"]

PATIENCE = 30.0

#: Else it needs a user namespace, a Wayland screen where there is one, and a graphics card.
ENVIRONMENT = {"WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS": "1", "GDK_BACKEND": "x11", "LIBGL_ALWAYS_SOFTWARE": "1"}


class WebKitPage:
    """One window, as far as the tests use one; named as Playwright names it."""

    def __init__(self, driver: httpx.AsyncClient) -> None:
        self._driver = driver
        self._session = ""

    async def open(self) -> None:
        answer = await self._command("POST", "", capabilities={})
        self._session = f"/{answer['sessionId']}"

    async def close(self) -> None:
        await self._command("DELETE", "")

    async def goto(self, url: str) -> None:
        await self._command("POST", "/url", url=url)

    async def evaluate(self, script: str, arg: Any = None) -> Any:
        """Return what an expression is, or what a function returns."""
        value = f"({script})({json.dumps(arg)})" if "=>" in script else script
        text = await self._command("POST", "/execute/sync", script=f"return JSON.stringify({value} ?? null)", args=[])
        return json.loads(text)

    async def wait_for_function(self, script: str, *, arg: Any = None, timeout: float) -> None:
        """Wait until a function returns something true, at most ``timeout`` milliseconds."""
        with anyio.fail_after(timeout / 1000):
            while not await self.evaluate(script, arg):
                await anyio.sleep(0.02)

    async def _command(self, method: str, path: str, **params: Any) -> Any:
        content = json.dumps(params) if method == "POST" else None
        response = await self._driver.request(method, f"/session{self._session}{path}", content=content)
        value = response.json()["value"]
        if response.is_error:
            raise RuntimeError(f"{path}: {value['message']}")
        return value


@asynccontextmanager
async def webkit(home: Path) -> AsyncIterator[WebKitPage]:
    """Run a WebKit whose files are in a new folder, on a screen that nobody sees, and end both behind the block."""
    program, screens = require("WebKitWebDriver"), require("Xvfb")
    home.mkdir()
    async with screen(screens) as display:
        port = free_port()
        environment = os.environ | ENVIRONMENT | {"DISPLAY": display, "HOME": str(home), "XDG_RUNTIME_DIR": str(home)}
        output = home / "output.txt"
        with output.open("wb") as printed:
            process = await anyio.open_process(
                [program, f"--port={port}"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
            )
        async with process, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as driver:
            try:
                await answering(driver)
                page = WebKitPage(driver)
                await page.open()
                try:
                    yield page
                finally:
                    await page.close()
            finally:
                end(process)


@asynccontextmanager
async def screen(program: str) -> AsyncIterator[str]:
    """Run a screen that nobody sees, and give its name."""
    reading, writing = os.pipe()
    told = os.fdopen(reading, buffering=1)
    try:
        process = await anyio.open_process(
            [program, "-displayfd", str(writing), "-nolisten", "tcp"],
            pass_fds=[writing],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    finally:
        os.close(writing)
    async with process:
        try:
            # It writes a line at once, or nothing and dies.
            with told, anyio.fail_after(PATIENCE):
                await anyio.wait_readable(told)
                number = told.readline().strip()
            assert number.isdecimal(), "Xvfb has not started"
            yield f":{number}"
        finally:
            end(process)


async def answering(driver: httpx.AsyncClient) -> None:
    """Wait until a driver answers."""
    with anyio.fail_after(PATIENCE):
        while True:
            try:
                await driver.get("/status")
            except httpx.TransportError:
                await anyio.sleep(0.02)
            else:
                return


def end(process: Process) -> None:
    """End a program; one that has died is not what a test fails for, but what it died of is."""
    with suppress(ProcessLookupError):
        process.terminate()
