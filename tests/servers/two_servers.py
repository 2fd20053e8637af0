"""Serve the app by two uvicorn servers in this process, in the way that the first argument names, on two ports.

``sequence`` runs the second when the first was stopped, ``together`` both in one event loop, and ``thread`` one in a
thread, which gets no signals: it drains when a line arrives on standard input.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from types import FrameType

import uvicorn

import starlette_sse
from tests.servers.app import app
from tests.servers.journal import note


def own_handler(number: int, frame: FrameType | None) -> None:
    """Survive the signal: uvicorn raises it again when it has stopped."""
    note("signalled", number=number)


def make(port: int) -> uvicorn.Server:
    return uvicorn.Server(uvicorn.Config(app, port=port))


def sequence(first: uvicorn.Server, second: uvicorn.Server) -> None:
    first.run()
    second.run()


def together(first: uvicorn.Server, second: uvicorn.Server) -> None:
    async def serve() -> None:
        await asyncio.gather(first.serve(), second.serve())

    asyncio.run(serve())


def thread(first: uvicorn.Server, second: uvicorn.Server) -> None:
    beside = threading.Thread(target=first.run)
    beside.start()
    sys.stdin.readline()
    starlette_sse.drain()
    first.should_exit = True
    beside.join()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, own_handler)
    way = {"sequence": sequence, "together": together, "thread": thread}[sys.argv[1]]
    way(*(make(int(port)) for port in sys.argv[2:]))
    note("ended", restored=signal.getsignal(signal.SIGTERM) is own_handler)
