"""What the processes of an app tell each other by a channel of the broker that they share."""

from __future__ import annotations

import logging
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from hashlib import blake2b
from typing import Any

import anyio

from starlette_sse.broker import Broker
from starlette_sse.broker.positions import Position
from starlette_sse.decoding import EventDecoder, MessageEvent
from starlette_sse.eventloop import current_event_loop
from starlette_sse.exceptions import BrokerError, BrokerUnavailableError, ConfigurationError

__all__ = ["check_broker", "following", "pseudonym"]

#: Seconds from one attempt to listen to the next at least, while the broker's backend is away.
PAUSE = 1.0

NOT_UNDERSTOOD = "an event in the channel %s is not understood and left out, and so are others like it from now on"


@asynccontextmanager
async def following(
    broker: Broker,
    channel: str,
    heed: Callable[[MessageEvent], None],
    *companions: Callable[[], Coroutine[Any, Any, None]],
) -> AsyncIterator[None]:
    """Call ``heed`` with each event of ``channel``, those of this process included, and run ``companions``.

    An event that ``heed`` raises for is left out, and the first of them logged: processes of another version may speak
    otherwise, and that ends no stream.
    """
    check_broker(broker)
    async with current_event_loop().task_group() as tasks:
        state = Following()
        tasks.start_soon(follow, broker, channel, heed, state, name=f"following {channel}")
        # The app starts without its broker, too.
        if broker.health().error is None:
            await state.began.wait()
        if state.error is not None:
            raise state.error
        for companion in companions:
            tasks.start_soon(companion, name=f"speaking in {channel}")
        yield
        tasks.cancel()


def check_broker(value: object) -> None:
    """Check what the processes share."""
    if not isinstance(value, Broker):
        raise ConfigurationError(f"broker must be a Broker, not {value!r:.200}")


def pseudonym(client_key: str) -> str:
    """Return what processes call a client among themselves, since its key may be a secret."""
    digest = blake2b(client_key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return urlsafe_b64encode(digest).rstrip(b"=").decode()


class Following:
    """Whether the channel is listened to, or why it can't be."""

    def __init__(self) -> None:
        self.began = anyio.Event()
        self.error: BrokerError | None = None


async def follow(broker: Broker, channel: str, heed: Callable[[MessageEvent], None], state: Following) -> None:
    understood = True
    after: str | None = None
    while True:
        next_at = anyio.current_time() + PAUSE
        try:
            async with broker.subscribe(channel, after, on_lag="reset") as subscription:
                state.began.set()
                at, after = Position.parse(subscription.position), None
                async for entry in subscription:
                    for event in EventDecoder().feed(entry.frame):
                        try:
                            heed(event)
                        except Exception:  # logged
                            if understood:
                                logging.getLogger("starlette_sse").exception(NOT_UNDERSTOOD, channel)
                            understood = False
                    if not entry.channel and at is not None and entry.epoch != at.epoch:
                        # It leads to the end of another log, and may be due to an event that was published there, as
                        # the first that told of the loss: behind what that log has kept, nobody here has heard any.
                        after = str(Position(entry.epoch, subscription.kept_of(at)))
                        break
                    at = Position(entry.epoch, entry.seq)
        except BrokerUnavailableError:
            state.began.set()
        except BrokerError as exc:
            # It is closed, or was never entered.
            state.error = exc
            state.began.set()
            return
        # An attempt waits for the backend, and what is published between two of them is not heard.
        await anyio.sleep_until(next_at)
