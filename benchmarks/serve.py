"""The server's process: one contestant under uvicorn, told what to do by lines of JSON on its standard input.

Its settings are its argument: ``{"factory": "raw:direct", "port": 0, "loop": "asyncio", "http": "httptools", "terms":
{}}``. It writes ``{"port": ...}`` when it accepts connections, then one line for each line it reads. It ends when its
input does.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Callable
from typing import Any

import uvicorn

from benchmarks.contestants import Contestant, Terms, build
from benchmarks.counting import CountingLoop, count
from benchmarks.payload import text

__all__ = ["main"]


def main() -> None:
    """Serve until the standard input ends."""
    settings: dict[str, Any] = json.loads(sys.argv[1])
    contestant = build(settings["factory"], Terms(**settings["terms"]))
    with asyncio.Runner(loop_factory=loop_factory(settings["loop"])) as runner:
        runner.run(serve(contestant, settings["http"], settings["port"]))


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes the event loop of that name."""
    if name == "asyncio":
        return None
    if name == "counting":
        return CountingLoop
    import uvloop

    made: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return made


async def serve(contestant: Contestant, http: Any, port: int) -> None:
    config = uvicorn.Config(contestant.app, http=http, backlog=4096, access_log=False, log_level="warning")
    server = uvicorn.Server(config)
    listener = shared(port)
    task = asyncio.ensure_future(server.serve([listener]))
    while not server.started and not task.done():
        await asyncio.sleep(0.01)
    if not task.done():
        answer({"port": listener.getsockname()[1]})
        await obey(contestant)
    server.should_exit = server.force_exit = True
    await task


def shared(port: int) -> socket.socket:
    """Return a socket on a port that other workers may have, too."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    return listener


async def obey(contestant: Contestant) -> None:
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    published = 0
    while line := await lines.readline():
        told = json.loads(line)
        what = told.pop("do")
        if what == "publish":
            numbers = range(published, published + told["count"])
            published = numbers.stop
            await contestant.publish([(number, text(number, told["size"])) for number in numbers])
            answer({})
        elif what == "count":
            answer({"result": count()})
        else:
            answer({"result": await contestant.more[what](**told)})


def answer(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
