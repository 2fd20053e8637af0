"""A client as a browser is one, and the ledger of what it must have received."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import count
from typing import Any

from anyio.lowlevel import checkpoint

from starlette_sse.broker import Broker, Position, Subscription
from starlette_sse.broker.subscription import OnLag
from starlette_sse.decoding import EventDecoder, MessageEvent
from starlette_sse.exceptions import BrokerUnavailableError

__all__ = ["Client", "Ledger"]


class Ledger:
    """What was published: in which channel, with which id, or with nobody knowing whether at all."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Position, str]] = []
        self.doubtful: set[str] = set()
        self.refused = 0
        self._numbers = count()

    async def publish(self, broker: Broker, channel: str, *, key: str | None = None, padding: int = 0) -> str | None:
        """Publish an event whose data is its channel and a number, and take note of the outcome."""
        text = f"{channel} {next(self._numbers)}"
        try:
            event_id = await broker.publish(channel, text + " " * padding, key)
        except BrokerUnavailableError as exc:
            if exc.in_doubt:
                self.doubtful.add(text)
            else:
                self.refused += 1
            return None
        position = Position.parse(event_id)
        assert position is not None
        self.events.append((channel, position, text))
        return event_id

    def after(self, channels: Sequence[str], epochs: set[str], seq: int) -> list[tuple[int, str]]:
        """Return the number and data of every event behind a place, in order."""
        return sorted(
            (position.seq, text)
            for channel, position, text in self.events
            if channel in channels and position.epoch in epochs and position.seq > seq
        )


class Client:
    """What an ``EventSource`` is: it takes bytes, keeps the last id, and comes back with it."""

    def __init__(
        self, broker: Broker, channels: Sequence[str], *, on_lag: OnLag = "disconnect", **options: Any
    ) -> None:
        self.channels = channels
        self.broker = broker
        self.subscription: Subscription | None = None
        self._on_lag = on_lag
        self._options = options
        self._decoder = EventDecoder()
        #: Since when it must have everything: each stretch begins at a place, and ends at a reset or never.
        self.stretches: list[tuple[Position, list[tuple[Position, str]]]] = []
        self.resets: list[dict[str, Any]] = []

    @property
    def last_event_id(self) -> str:
        return self._decoder.last_event_id

    @property
    def texts(self) -> list[str]:
        return [text for _, received in self.stretches for _, text in received]

    def pretend(self, event_id: str) -> None:
        """Have an id that no stream gave."""
        self._decoder = EventDecoder(last_event_id=event_id)

    async def connect(self, *, opening: bool = True) -> None:
        """Subscribe behind the last id, and take the opening frame that an endpoint would send."""
        after = self._decoder.last_event_id
        self._decoder = EventDecoder(last_event_id=after)
        subscription = self.broker.subscribe(self.channels, after, on_lag=self._on_lag, **self._options)
        self.subscription = await subscription.__aenter__()
        if opening and subscription.resume_id is not None:
            self.take(f"id: {subscription.resume_id}\r\n\r\n".encode())

    async def disconnect(self) -> None:
        subscription, self.subscription = self.subscription, None
        if subscription is not None:
            await subscription.__aexit__(None, None, None)

    async def read(self, fraction: float = 1.0) -> int:
        """Read what is ready without waiting for more; the connection may break within it."""
        assert self.subscription is not None
        # A test that asks again and again lets its own timeout run.
        await checkpoint()
        self.subscription.wake()
        frames = await self.subscription.pull()
        self.take(frames[: round(len(frames) * fraction)])
        return len(frames)

    async def read_up_to(self, end: Position) -> None:
        """Read and wait until everything up to a place has come, or is known not to come."""
        assert self.subscription is not None
        while (place := Position.parse(self.last_event_id)) is None or place.epoch != end.epoch or place.seq < end.seq:
            self.take(await self.subscription.pull())

    def take(self, frames: bytes) -> None:
        before = self._decoder.last_event_id
        for event in self._decoder.feed(frames):
            self._on_event(event)
        if not before and self._decoder.last_event_id and not self.stretches:
            self._begin(self._decoder.last_event_id)

    def _on_event(self, event: MessageEvent) -> None:
        if event.type == "stream-reset":
            self.resets.append(json.loads(event.data))
            self._begin(self.resets[-1]["newest"])
            return
        position = Position.parse(event.last_event_id)
        assert position is not None
        if not self.stretches:
            # The opening frame did not come through: what came first is where it began.
            self._begin(str(Position(position.epoch, position.seq - 1)))
        self.stretches[-1][1].append((position, event.data.rstrip(" ")))

    def _begin(self, event_id: str) -> None:
        position = Position.parse(event_id)
        assert position is not None
        self.stretches.append((position, []))

    def check(self, ledger: Ledger, *, complete: bool = True) -> None:
        """Check the promise: in every stretch every event, in order, each once; the last one up to the end."""
        for place, (start, received) in enumerate(self.stretches):
            epochs = {start.epoch, *(position.epoch for position, _ in received)}
            certain = [(position.seq, text) for position, text in received if text not in ledger.doubtful]
            expected = ledger.after(self.channels, epochs, start.seq)
            last = place == len(self.stretches) - 1
            if not (last and complete):
                expected = [event for event in expected if certain and event[0] <= certain[-1][0]]
            missing, extra = set(expected) - set(certain), set(certain) - set(expected)
            assert not missing, f"{self.channels} from {start} to {received[-1:]}: {missing}"
            assert not extra, f"{self.channels} from {start}: {extra}"
            numbers = [position.seq for position, _ in received]
            assert numbers == sorted(set(numbers)), "an event was repeated, or came too early"
