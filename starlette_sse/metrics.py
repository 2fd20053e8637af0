"""Counting what observers hear of; what shows the figures is one file for each library.

Nothing is counted for each delivery: what the open streams have sent is added up when somebody asks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from threading import RLock
from typing import TypeAlias

from starlette_sse.observers import CloseReason, Observer, StreamFacts

__all__ = ["DURATION", "DURATION_BOUNDS", "METRICS", "Counting", "Labels", "Metric"]

#: What tells the values of one metric apart, in the order of its labels.
Labels: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """What is counted, named as OpenTelemetry's conventions ask; an exporter makes its own names of these."""

    name: str
    """Without the package's, which comes before it."""
    unit: str
    """In UCUM: ``s``, ``By``, or in braces what is counted."""
    description: str
    labels: tuple[str, ...] = ()
    """Few values each: never a path, a channel, a client or a connection."""
    falls: bool = False
    """Whether the value is one of the moment and may go down."""


ENDPOINT = "endpoint"

OPEN = Metric("stream.open", "{stream}", "Streams that are open now.", (ENDPOINT,), falls=True)
OPENED = Metric("stream.opened", "{stream}", "Streams whose response has started.", (ENDPOINT,))
ENDED = Metric("stream.ended", "{stream}", "Streams that have ended and cleaned up.", (ENDPOINT, "end.reason"))
EVENTS = Metric("stream.events", "{event}", "Events sent to clients.", (ENDPOINT,))
SENT = Metric("stream.sent", "By", "Bytes of body sent to clients, pings included.", (ENDPOINT,))
PINGS = Metric("stream.pings", "{ping}", "Pings sent to clients.", (ENDPOINT,))
REJECTED = Metric(
    "stream.rejected", "{request}", "Requests refused: a limit, a drain, or no broker.", (ENDPOINT, "rejection.reason")
)
FAILURES = Metric("stream.failures", "{failure}", "Exceptions in streams.", (ENDPOINT, "failure.during"))
PUBLISHED_EVENTS = Metric("broker.events", "{event}", "Events published by this process.")
PUBLISHED = Metric("broker.published", "By", "Bytes of frames published by this process.")
SUBSCRIPTIONS = Metric("broker.subscriptions", "{subscription}", "Subscriptions begun.")
LAGS = Metric("broker.lags", "{lag}", "Times that a reader fell off the log.", ("lag.policy",))
RESETS = Metric("broker.resets", "{reset}", "Times that a reader was told of a gap.", ("reset.reason",))
DOWN = Metric("broker.backend.down", "{backend}", "Backends that cannot be reached now.", falls=True)
OUTAGES = Metric("broker.backend.outages", "{outage}", "Times that a backend was lost.")
DOWNTIME = Metric("broker.backend.downtime", "s", "Length of the outages that are over.")

#: Whatever is counted, but for :data:`DURATION`.
METRICS = (
    *(OPEN, OPENED, ENDED, EVENTS, SENT, PINGS, REJECTED, FAILURES),
    *(PUBLISHED_EVENTS, PUBLISHED, SUBSCRIPTIONS, LAGS, RESETS, DOWN, OUTAGES, DOWNTIME),
)

DURATION = Metric("stream.duration", "s", "How long streams that have ended were open.", (ENDPOINT,))

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0

#: The upper bounds of a histogram of durations, in seconds. From 15 s to 5 min are the timeouts of usual proxies; above
#: are rotation, a working day, and what nothing ends.
DURATION_BOUNDS = (
    *(1.0, 5.0, 15.0, 30.0, MINUTE, 2 * MINUTE, 5 * MINUTE, 15 * MINUTE),
    *(HOUR, 4 * HOUR, 12 * HOUR, DAY, 3 * DAY, 7 * DAY),
)

#: What a stream tells itself when it is asked, and need not be counted.
TOLD: Mapping[Metric, Callable[[StreamFacts], int]] = {EVENTS: attrgetter("events"), SENT: attrgetter("bytes_sent")}


class Counting(Observer):
    """Counts; a subclass brings the figures to its library. One may watch any number of endpoints and brokers.

    A stream counts from the start of its response, so that at any moment as many were opened as are open or ended.
    """

    def __init__(self) -> None:
        # Reentrant: a garbage collection may end a stream wherever this thread is.
        self._lock = RLock()
        self._open: set[StreamFacts] = set()
        self._counts = {metric: defaultdict[Labels, float](int) for metric in METRICS}
        for metric in METRICS:
            if not metric.labels:
                self._count(metric, amount=0)

    def read(self, metric: Metric) -> Mapping[Labels, float]:
        """Return the values of one metric of :data:`METRICS` by their labels; any thread may ask."""
        # Locked up to the end of the sum: what a stream has sent is in it or was counted at its end, never both.
        with self._lock:
            values = self._counts[metric].copy()
            if metric in TOLD:
                told = TOLD[metric]
                for stream in tuple(self._open):
                    values[(stream.identity.endpoint,)] += told(stream)
            return values

    def read_all(self) -> Mapping[Metric, Mapping[Labels, float]]:
        """Return the values of all metrics at one moment; any thread may ask."""
        with self._lock:
            return {metric: self.read(metric) for metric in METRICS}

    def lasted(self, endpoint: str, seconds: float) -> None:
        """Override to record how long a stream was open that has ended."""

    def opened(self, stream: StreamFacts) -> None:
        endpoint = stream.identity.endpoint
        with self._lock:
            self._open.add(stream)
            self._count(OPEN, endpoint)
            self._count(OPENED, endpoint)

    def pinged(self, stream: StreamFacts) -> None:
        self._count(PINGS, stream.identity.endpoint)

    def rejected(self, endpoint: str, path: str, reason: str) -> None:
        self._count(REJECTED, endpoint, reason)

    def failed(self, stream: StreamFacts, error: BaseException, *, during: str, propagates: bool) -> None:
        self._count(FAILURES, stream.identity.endpoint, during)

    def closed(self, stream: StreamFacts, reason: CloseReason, error: BaseException | None) -> None:
        endpoint = stream.identity.endpoint
        with self._lock:
            if stream not in self._open:
                return
            self._open.remove(stream)
            self._count(OPEN, endpoint, amount=-1)
            self._count(ENDED, endpoint, reason.value)
            for metric, told in TOLD.items():
                self._count(metric, endpoint, amount=told(stream))
        # Not under the lock, which OpenTelemetry takes while it holds its own.
        self.lasted(endpoint, stream.duration)

    def published(self, channel: str, event_id: str, size: int) -> None:
        with self._lock:
            self._count(PUBLISHED_EVENTS)
            self._count(PUBLISHED, amount=size)

    def subscribed(self, channels: Sequence[str], position: str) -> None:
        self._count(SUBSCRIPTIONS)

    def lagged(self, channels: Sequence[str], policy: str) -> None:
        self._count(LAGS, policy)

    def reset(self, channels: Sequence[str], reason: str) -> None:
        self._count(RESETS, reason)

    def backend_lost(self, error: BaseException) -> None:
        with self._lock:
            self._count(DOWN)
            self._count(OUTAGES)

    def backend_back(self, outage: float) -> None:
        with self._lock:
            self._count(DOWN, amount=-1)
            self._count(DOWNTIME, amount=outage)

    def _count(self, metric: Metric, *labels: str, amount: float = 1) -> None:
        with self._lock:
            self._counts[metric][labels] += amount
