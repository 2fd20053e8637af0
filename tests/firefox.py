"""A real headless Firefox, asked by WebDriver BiDi (https://www.w3.org/TR/webdriver-bidi/), which it speaks itself."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import anyio
from websockets.asyncio.client import ClientConnection, connect

from tests.conftest import require

__all__ = ["FirefoxPage", "firefox"]

PATIENCE = 30.0

#: Its maker's hosts are behind a proxy that nobody runs; loopback never goes by one.
PREFERENCES = {
    "network.proxy.type": 1,
    "network.proxy.http": "127.0.0.1",
    "network.proxy.http_port": 1,
    "network.proxy.ssl": "127.0.0.1",
    "network.proxy.ssl_port": 1,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
}


class FirefoxPage:
    """One tab, as far as the tests use one; named as Playwright names it."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._numbers = count(1)
        self._context = ""

    async def open(self) -> None:
        await self._command("session.new", capabilities={})
        tree = await self._command("browsingContext.getTree")
        self._context = tree["contexts"][0]["context"]

    async def goto(self, url: str) -> None:
        await self._command("browsingContext.navigate", context=self._context, url=url, wait="complete")

    async def evaluate(self, script: str, arg: Any = None) -> Any:
        """Return what an expression is, or what a function returns."""
        value = f"({script})({json.dumps(arg)})" if "=>" in script else script
        answer = await self._command(
            "script.callFunction",
            functionDeclaration=f"() => JSON.stringify({value} ?? null)",
            awaitPromise=False,
            target={"context": self._context},
        )
        if answer["type"] != "success":
            raise RuntimeError(answer["exceptionDetails"]["text"])
        return json.loads(answer["result"]["value"])

    async def wait_for_function(self, script: str, *, arg: Any = None, timeout: float) -> None:
        """Wait until a function returns something true, at most ``timeout`` milliseconds."""
        with anyio.fail_after(timeout / 1000):
            while not await self.evaluate(script, arg):
                await anyio.sleep(0.02)

    async def _command(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        await self._connection.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(await self._connection.recv())
            if message.get("id") == number:
                if message["type"] == "error":
                    raise RuntimeError(f"{method}: {message['message']}")
                result: dict[str, Any] = message["result"]
                return result


@asynccontextmanager
async def firefox(profile: Path) -> AsyncIterator[FirefoxPage]:
    """Run a Firefox with a new profile in an empty folder, and end it behind the block."""
    program = require("firefox-esr")
    profile.mkdir()
    preferences = (f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in PREFERENCES.items())
    (profile / "user.js").write_text("".join(preferences))
    command = [program, "--headless", "--no-remote", "--profile", str(profile), "--remote-debugging-port", "0"]
    # It prints on and on, which would fill a pipe that nobody reads.
    output = profile / "output.txt"
    with output.open("wb") as printed:
        process = await anyio.open_process(command, stdin=subprocess.DEVNULL, stdout=printed, stderr=subprocess.STDOUT)
    async with process:
        try:
            address = await listening(output)
            async with connect(f"{address}/session", max_size=None) as connection:
                page = FirefoxPage(connection)
                await page.open()
                yield page
        finally:
            process.kill()


async def listening(output: Path) -> str:
    """Return the address that it prints."""
    try:
        with anyio.fail_after(PATIENCE):
            while (found := re.search(r"ws://\S+(?=\n)", output.read_text(errors="replace"))) is None:
                await anyio.sleep(0.02)
    except TimeoutError as exc:
        exc.add_note(f"Firefox printed:\n{output.read_text(errors='replace')}")
        raise
    return found[0]
