"""What it costs to publish and to subscribe as a broker grows; it should not depend on what others do."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

from benchmarks.payload import CHANNEL, NAME
from benchmarks.quiet import quieten
from benchmarks.results import Run
from starlette_sse import Broker, ServerSentEvent

__all__ = ["SITUATIONS", "compare"]

#: How many of the channels and of the subscribers of other channels there are.
SITUATIONS = {"alone": (0, 0), "channels": (1, 0), "subscribers": (0, 1)}

TIMES = 2000


async def measure(channels: int, subscribers: int) -> dict[str, float]:
    """Return the CPU time of one publication that is read, and of one subscription, in microseconds."""
    event = ServerSentEvent(data="hello world", event=NAME)
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(Broker())
        for number in range(channels):
            await broker.publish(f"channel {number}", event)
        for number in range(subscribers):
            await stack.enter_async_context(broker.subscribe(f"others {number % 100}"))
        async with broker.subscribe(CHANNEL) as reader:
            cpu = time.process_time()
            for _ in range(TIMES):
                await broker.publish(CHANNEL, event)
                await reader.pull()
            publishing = time.process_time() - cpu
        cpu = time.process_time()
        for _ in range(TIMES):
            async with broker.subscribe(CHANNEL):
                pass
        subscribing = time.process_time() - cpu
    return {"publish": publishing / TIMES * 1e6, "subscribe": subscribing / TIMES * 1e6}


def compare(situations: list[str], channels: int, subscribers: int) -> Run:
    """Measure each situation in a broker of its own."""
    quieten()
    return {
        name: asyncio.run(measure(SITUATIONS[name][0] * channels, SITUATIONS[name][1] * subscribers))
        for name in situations
    }
