"""Live metrics: what this server uses, sampled every second, with the last two minutes for newcomers."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import anyio
from starlette.requests import Request

from example_app.news import News, broker
from example_app.registry import Inspected
from starlette_sse import ChannelEndpoint, ServerSentEvent, open_streams

__all__ = ["Metrics", "Sampler"]

SAMPLE_INTERVAL = 1.0
STATM = Path("/proc/self/statm")


class Metrics(Inspected, ChannelEndpoint):
    """CPU, memory and open streams of every worker, once a second."""

    broker = broker

    async def channels(self, request: Request) -> Sequence[str]:
        return ["metrics"]

    async def snapshot(self, request: Request) -> AsyncIterator[ServerSentEvent]:
        news: News = request.state.news
        yield await news.recall("metrics", "metrics-so-far")


class Sampler:
    """Measures this process."""

    def __init__(self) -> None:
        self._then = time.perf_counter(), time.process_time()

    def sample(self) -> dict[str, Any]:
        """Return what was used since the last sample: CPU in percent of one core, memory in bytes."""
        now = time.perf_counter(), time.process_time()
        wall, used = now[0] - self._then[0], now[1] - self._then[1]
        self._then = now
        return {
            "cpu": round(100 * used / wall, 1) if wall else 0.0,
            "memory": resident(),
            "streams": len(open_streams()),
        }

    async def run(self, news: News) -> None:
        """Publish a sample every second."""
        while True:
            await anyio.sleep(SAMPLE_INTERVAL)
            await news.announce("metrics", "sample", self.sample())


def resident() -> int:
    """Return the memory of this process in bytes; where the system does not tell, the most that it ever had."""
    try:
        return int(STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
