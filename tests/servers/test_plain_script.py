"""A script that runs its own event loop, without a server: Ctrl-C stays what Python makes of it."""

from __future__ import annotations

import signal
import subprocess
import sys

from tests.servers.processes import PATIENCE, ROOT

SCRIPT = """
import asyncio

import anyio
from starlette_sse import SSEEndpoint, lifespan


class Endless(SSEEndpoint):
    observers = ()

    async def events(self, request):
        yield "first"
        await anyio.sleep_forever()

    async def on_disconnect(self, request, reason):
        print(reason, flush=True)


async def send(message):
    if b"first" in message.get("body", b""):
        opened.set()


async def serve():
    async with lifespan() as state:
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "state": state}
        await Endless(scope, anyio.sleep_forever, send)


async def settle():
    for _ in range(100):
        await asyncio.sleep(0)


loop = asyncio.new_event_loop()
opened = asyncio.Event()
stream = loop.create_task(serve())
loop.run_until_complete(opened.wait())
loop.run_until_complete(settle())
try:
    print("open", flush=True)
    loop.run_until_complete(stream)
except KeyboardInterrupt:
    print("interrupted", flush=True)
loop.run_until_complete(settle())
stream.cancel()
loop.run_until_complete(asyncio.wait([stream]))
"""


def test_ctrl_c_interrupts_a_script_and_drains_nothing() -> None:
    """Python's own handler is no server's: it raises KeyboardInterrupt, and the streams are the script's to end."""
    command = [sys.executable, "-c", SCRIPT]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as script:
        try:
            assert script.stdout is not None
            assert script.stdout.readline() == "open\n"
            script.send_signal(signal.SIGINT)
            output, errors = script.communicate(timeout=PATIENCE)
        finally:
            script.kill()
    assert (output, errors) == ("interrupted\ncancelled\n", "")
