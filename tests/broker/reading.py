"""Reading a subscription as a test needs it."""

from __future__ import annotations

import anyio

from starlette_sse.broker import Broker, Subscription
from starlette_sse.decoding import EventDecoder, MessageEvent

__all__ = ["publish_together", "settle", "take", "texts"]


async def take(subscription: Subscription, count: int, decoder: EventDecoder | None = None) -> list[MessageEvent]:
    """Pull until so many events have come."""
    decoder = decoder or EventDecoder()
    events: list[MessageEvent] = []
    with anyio.fail_after(5):
        while len(events) < count:
            events += decoder.feed(await subscription.pull())
    return events


async def texts(subscription: Subscription, count: int) -> list[str]:
    """Pull until so many events have come, and return their data."""
    return [event.data for event in await take(subscription, count)]


async def settle(broker: Broker) -> None:
    """Wait until everything that was published has come to this process."""
    async with broker.subscribe("settled") as subscription:
        await broker.publish("settled", "now")
        with anyio.fail_after(5):
            await anext(subscription)


async def publish_together(here: Broker, there: Broker, count: int) -> list[str]:
    """Publish so many numbers to one broker, each in a task of its own, and return what a waiting reader gets.

    The reader is of ``here``, which may be the same broker.
    """
    received: list[str] = []

    async def read() -> None:
        received.extend(await texts(subscription, count))

    async with here.subscribe("a") as subscription, anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        for number in range(count):
            tasks.start_soon(there.publish, "a", str(number))
    return received
