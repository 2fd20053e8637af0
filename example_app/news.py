"""What the panels broadcast: numbered, so that the page can prove that it is complete, and remembered for newcomers.

An event's id is its place in the broker's log, where each reader sees only the numbers of its own channels. So every
event also carries its number within its channel and worker: the page counts those without a gap.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections import defaultdict, deque
from typing import Any

import anyio

from example_app.registry import REGISTRY
from starlette_sse import Broker, BrokerUnavailableError, ServerSentEvent
from starlette_sse.broker import Entry, Subscription
from starlette_sse.observers import StructlogObserver

__all__ = ["CHANNELS", "ROOMS", "News", "broker"]

ROOMS = ("lobby", "kitchen", "ideas")
CHANNELS = (*(f"chat:{room}" for room in ROOMS), "jobs", "metrics", "log", "streams", "flood")

#: How many events of a channel, and how many keys, a newcomer is told of; of a flood only its end.
REMEMBERED = 240
FLOOD_REMEMBERED = 1

#: Seconds until a broker that was away is asked again.
RETRY_INTERVAL = 1.0
REMEMBERED_KEYS = 24

broker = Broker(
    os.environ.get("STARLETTE_SSE_BROKER") or "memory://",
    history=2000,
    max_bytes=4 * 1024 * 1024,
    observers=(StructlogObserver(), REGISTRY),
)


class News:
    """Publishes for one worker, and remembers what all of them have published lately.

    Events without a key are remembered in order; of those with a key, the newest counts.
    """

    def __init__(self) -> None:
        self._count_anew()
        self._turn = anyio.Lock()
        self._heard: Subscription | None = None
        self._moved = anyio.Event()
        self._forget()

    async def publish(self, channel: str, name: str, data: dict[str, Any], key: str | None = None) -> None:
        """Publish an event, numbered.

        :raises BrokerError: the broker cannot take it now.
        """
        # One at a time, or a slow append would let the next number overtake.
        async with self._turn:
            number = self._numbers[channel] + 1
            origin = {"channel": channel, "worker": self.worker, "born": self._born, "number": number}
            origin["at"] = round(time.time(), 3)
            try:
                await broker.publish(channel, ServerSentEvent({**data, **origin}, event=name), key)
            except BrokerUnavailableError as exc:
                if exc.in_doubt:
                    self._count_anew()
                raise
            self._numbers[channel] = number

    async def announce(self, channel: str, name: str, data: dict[str, Any], key: str | None = None) -> bool:
        """Publish what is said again before long, and tell whether the broker took it."""
        try:
            await self.publish(channel, name, data, key)
        except BrokerUnavailableError:
            return False
        return True

    async def remember(self) -> None:
        """Read what the log still has, and read along for as long as the app runs."""
        after: str | None = beginning(broker.health().position)
        while True:
            try:
                async with broker.subscribe(CHANNELS, after, on_lag="reset") as subscription:
                    self._heard = subscription
                    after = await self._read(subscription)
            except BrokerUnavailableError:
                await anyio.sleep(RETRY_INTERVAL)

    async def recall(self, channel: str, name: str) -> ServerSentEvent:
        """Return an event that tells a newcomer what it has missed, and up to which number that goes."""
        await self._catch_up()
        items = [*self._latest[channel].values(), *self._recent[channel]]
        told = {"channel": channel, "at": round(time.time(), 3), "seen": self._seen[channel], "items": items}
        return ServerSentEvent(told, event=name)

    async def _catch_up(self) -> None:
        # A stream takes its position before it asks for a snapshot, which must reach at least as far.
        newest = broker.health().position
        while self._heard is None or sequence(self._heard.position) < sequence(newest):
            await self._moved.wait()

    async def _read(self, subscription: Subscription) -> str | None:
        """Read until something is missing, and return behind which id the log is whole."""
        async for entry in subscription:
            data = json.loads(entry.event.data) if entry.event else {}
            if not entry.channel:
                self._forget()
                oldest: str | None = data["oldest"]
                return oldest
            self._keep(entry, data)
        return None

    def _keep(self, entry: Entry, data: dict[str, Any]) -> None:
        self._moved.set()
        self._moved = anyio.Event()
        self._seen[entry.channel][data["worker"]] = data["number"]
        if entry.key is None:
            self._recent[entry.channel].append(data)
        else:
            keep_newest(self._latest[entry.channel], entry.key, data)

    def _count_anew(self) -> None:
        # A number that may have been used cannot be used again, and must not be missed: another name has other numbers.
        self.worker = secrets.token_hex(3)
        self._born = round(time.time(), 3)
        self._numbers: defaultdict[str, int] = defaultdict(int)

    def _forget(self) -> None:
        self._seen: defaultdict[str, dict[str, int]] = defaultdict(dict)
        self._recent: defaultdict[str, deque[dict[str, Any]]] = defaultdict(lambda: deque(maxlen=REMEMBERED))
        self._recent["flood"] = deque(maxlen=FLOOD_REMEMBERED)
        self._latest: defaultdict[str, dict[str, dict[str, Any]]] = defaultdict(dict)


def keep_newest(latest: dict[str, dict[str, Any]], key: str, data: dict[str, Any]) -> None:
    """Note the newest of a key, in the order in which keys came up, for a bounded number of them."""
    latest[key] = data
    if len(latest) > REMEMBERED_KEYS:
        del latest[next(iter(latest))]


def beginning(position: str) -> str | None:
    """Return the id behind which the log of an event's id begins."""
    epoch = position.rpartition("-")[0]
    return f"{epoch}-0" if epoch else None


def sequence(position: str) -> int:
    """Return the number in an event's id."""
    return int(position.rpartition("-")[2] or 0)
