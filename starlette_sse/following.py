"""What the processes of an app tell each other by a channel of the broker that they share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import anyio

from starlette_sse.broker import Broker
from starlette_sse.decoding import EventDecoder, MessageEvent
from starlette_sse.eventloop import current_event_loop
from starlette_sse.exceptions import BrokerClosedError, BrokerUnavailableError, ConfigurationError

__all__ = ["check_broker", "following"]

#: Seconds from one attempt to listen to the next at least, while the broker's backend is away.
PAUSE = 1.0


@asynccontextmanager
async def following(
    broker: Broker,
    channel: str,
    heed: Callable[[MessageEvent], None],
    *companions: Callable[[], Coroutine[Any, Any, None]],
) -> AsyncIterator[None]:
    """Call ``heed`` with each event of ``channel``, those of this process included, and run ``companions``."""
    check_broker(broker)
    async with current_event_loop().task_group() as tasks:
        listening = Listening()
        tasks.start_soon(follow, broker, channel, heed, listening, name=f"following {channel}")
        # The app starts without its broker, too.
        if broker.health().error is None:
            await listening.began.wait()
        if listening.error is not None:
            raise listening.error
        for companion in companions:
            tasks.start_soon(companion, name=f"speaking in {channel}")
        yield
        tasks.cancel()


def check_broker(value: object) -> None:
    """Check what the processes share."""
    if not isinstance(value, Broker):
        raise ConfigurationError(f"broker must be a Broker, not {value!r:.200}")


class Listening:
    """Whether the channel is listened to, or why it can't be."""

    def __init__(self) -> None:
        self.began = anyio.Event()
        self.error: BrokerClosedError | None = None


async def follow(broker: Broker, channel: str, heed: Callable[[MessageEvent], None], listening: Listening) -> None:
    while True:
        next_at = anyio.current_time() + PAUSE
        try:
            async with broker.subscribe(channel, on_lag="reset") as subscription:
                listening.began.set()
                async for entry in subscription:
                    for event in EventDecoder().feed(entry.frame):
                        heed(event)
        except BrokerUnavailableError:
            listening.began.set()
            # An attempt waits for the backend, and what is published between two of them is not heard.
            await anyio.sleep_until(next_at)
        except BrokerClosedError as exc:
            listening.error = exc
            listening.began.set()
            return
