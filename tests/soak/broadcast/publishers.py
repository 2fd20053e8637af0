"""Publishers in a process of their own: ``python -m tests.soak.broadcast.publishers URL NAME SEED``.

It prints ``try NUMBER CHANNEL KEY`` before it publishes an event, and then ``ok NUMBER ID``, ``no NUMBER`` or
``doubt NUMBER``; it is told by lines too. What was tried last when it is killed is in doubt.
"""

from __future__ import annotations

import asyncio
import random
import sys
from itertools import count

import anyio

from starlette_sse.exceptions import BrokerError
from tests.soak.broadcast.brokers import CHANNELS, HISTORY, KEYS, UNKEYED, ReopenedBroker

__all__ = ["Publishers"]

#: How many publish at once, and the mean pause of each in seconds.
TASKS, PAUSE = 3, 0.03


def say(*words: object) -> None:
    print(*words, flush=True)


class Publishers:
    """Publish numbered events, each task one at a time, until told to pause."""

    def __init__(self, url: str, name: str, seed: str) -> None:
        self._opened = ReopenedBroker(url)
        self._name = name
        self._random = random.Random(seed)
        self._numbers = count()
        self._going = anyio.Event()
        self._going.set()
        self._under_way = 0

    async def run(self) -> None:
        commands = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._opened.serve)
            for _ in range(TASKS):
                tasks.start_soon(self._publish_on)
            # The end of the pipe is the end of who has started this.
            while words := (await commands.readline()).decode().split():
                match words:
                    case ["pause"]:
                        self._going = anyio.Event()
                        tasks.start_soon(self._tell_pause)
                    case ["go"]:
                        self._going.set()
                    case ["reopen"]:
                        self._opened.reopen()
                    case ["burst", channel]:
                        tasks.start_soon(self._burst, channel)
                    case ["health"]:
                        say("health", self._opened.broker.health().error or "ok")
            tasks.cancel_scope.cancel()

    async def _tell_pause(self) -> None:
        while self._under_way:
            await anyio.sleep(0.01)
        say("paused")

    async def _publish_on(self) -> None:
        while True:
            while not self._going.is_set():
                await self._going.wait()
            channel = self._random.choice(CHANNELS)
            unkeyed = self._random.random() < UNKEYED[channel]
            await self._publish(channel, None if unkeyed else self._random.choice(KEYS))
            await anyio.sleep(self._random.uniform(0, 2 * PAUSE))

    async def _burst(self, channel: str) -> None:
        """Publish more than the log keeps."""
        for _ in range(HISTORY + HISTORY // 4):
            await self._publish(channel, self._random.choice(KEYS))

    async def _publish(self, channel: str, key: str | None) -> None:
        number = next(self._numbers)
        self._under_way += 1
        say("try", number, channel, key or "-")
        text = f"{self._name}:{number}" + " " * self._random.randrange(100)
        try:
            event_id = await self._opened.broker.publish(channel, text, key)
        except BrokerError as exc:
            say("doubt" if getattr(exc, "in_doubt", False) else "no", number)
            await anyio.sleep(0.05)
        else:
            say("ok", number, event_id)
        finally:
            self._under_way -= 1


if __name__ == "__main__":
    anyio.run(Publishers(*sys.argv[1:]).run, backend="asyncio")
