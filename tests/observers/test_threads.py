"""Collections from other threads, and in the middle of anything."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from starlette_sse import CloseReason
from starlette_sse.metrics import METRICS, Counting, Metric
from starlette_sse.observers import StreamIdentity
from tests.observers.sinks import PrometheusSink, Sink
from tests.servers.processes import PATIENCE
from tests.waiting import kept_out

SCRAPES = 200


class Growing:
    """A stream that sends, whoever asks."""

    duration = 1.0

    def __init__(self) -> None:
        self.identity = StreamIdentity("1", "Growing", "/")
        self.events = self.bytes_sent = 0

    def send(self) -> None:
        self.events += 1
        self.bytes_sent += 10


@pytest.fixture
def restless() -> Iterator[None]:
    """Let threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


class Scraper(threading.Thread):
    """Collects again and again; what it saw is judged afterwards."""

    def __init__(self, sink: Sink) -> None:
        super().__init__()
        self.sink = sink
        self.seen: list[dict[str, float]] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            for _ in range(SCRAPES):
                shown = self.sink.read()
                self.seen.append({name: sum(shown[name].values()) for name in COUNTED})
        except BaseException as exc:
            self.error = exc


COUNTED = ("open", "opened", "ended", "events", "bytes")


@pytest.mark.usefixtures("restless")
def test_no_scrape_loses_or_doubles_a_stream(sink: Sink) -> None:
    """While streams begin, send and end, no counter of another thread's scrape goes down; the last one is exact."""
    scraper = Scraper(sink)
    scraper.start()
    open_now: list[Growing] = []
    opened = sent = 0
    while scraper.is_alive():
        stream = Growing()
        sink.observer.opened(stream)
        opened += 1
        open_now.append(stream)
        for each in open_now:
            each.send()
        sent += len(open_now)
        if len(open_now) == 20:
            sink.observer.closed(open_now.pop(0), CloseReason.FINISHED, None)
    assert scraper.error is None
    for name in ("opened", "ended", "events", "bytes"):
        values = [seen[name] for seen in scraper.seen]
        assert values == sorted(values), name
    assert scraper.seen[-1]["events"] > scraper.seen[0]["events"]
    shown = sink.read()
    assert sum(shown["events"].values()) == sent
    assert sum(shown["bytes"].values()) == 10 * sent
    assert sum(shown["opened"].values()) == opened == sum(shown["ended"].values()) + len(open_now)


@pytest.mark.usefixtures("restless")
def test_a_scrape_of_prometheus_is_of_one_moment() -> None:
    """In each, as many streams were opened as are open or have ended."""
    sink = PrometheusSink()
    scraper = Scraper(sink)
    scraper.start()
    while scraper.is_alive():
        stream = Growing()
        sink.observer.opened(stream)
        sink.observer.closed(stream, CloseReason.FINISHED, None)
    assert scraper.error is None
    assert [seen for seen in scraper.seen if seen["opened"] != seen["open"] + seen["ended"]] == []
    assert scraper.seen[-1]["opened"] > scraper.seen[0]["opened"]


@pytest.mark.usefixtures("restless")
def test_event_loops_in_several_threads_may_share_an_observer() -> None:
    """Nothing that they tell is lost."""
    counting = Counting()
    barrier = threading.Barrier(4)

    def tell() -> None:
        barrier.wait()
        for _ in range(2000):
            counting.subscribed(["a"], "")

    threads = [threading.Thread(target=tell) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (subscriptions,) = [metric for metric in METRICS if metric.name == "broker.subscriptions"]
    assert counting.read(subscriptions) == {(): 8000}


def test_no_stream_ends_while_a_collection_adds_up(sink: Sink) -> None:
    """It would be missing in the sum and in what has ended, or in both."""
    waits: list[bool] = []

    class Asked(Growing):
        @property
        def events(self) -> int:
            waits.append(kept_out(sink.observer._lock))
            return 1

        @events.setter
        def events(self, value: int) -> None:
            """It is always the same."""

    stream = Asked()
    sink.observer.opened(stream)
    sink.read()
    sink.observer.closed(stream, CloseReason.FINISHED, None)
    assert waits == [True, True]
    assert not kept_out(sink.observer._lock)


def test_nothing_happens_between_two_metrics_of_a_scrape(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prometheus is shown one moment."""
    sink = PrometheusSink()
    waits: list[bool] = []
    read = sink.observer.read

    def reading(metric: Metric) -> Any:
        waits.append(kept_out(sink.observer._lock))
        return read(metric)

    monkeypatch.setattr(sink.observer, "read", reading)
    sink.read()
    assert waits == [True] * len(METRICS)


def test_nothing_happens_while_a_count_goes_up() -> None:
    """What two threads tell at once is counted twice."""
    waits: list[bool] = []

    class Reason(str):
        __slots__ = ()

        def __hash__(self) -> int:
            waits.append(kept_out(counting._lock))
            return super().__hash__()

    counting = Counting()
    counting.rejected("Endpoint", "/", Reason("draining"))
    assert waits
    assert all(waits)


@pytest.mark.parametrize(
    "happens",
    [
        lambda observer: observer.opened(Growing()),
        lambda observer: observer.published("news", "1", 10),
        lambda observer: observer.backend_lost(OSError("away")),
        lambda observer: observer.backend_back(1.0),
    ],
    ids=["opened", "published", "lost", "back"],
)
def test_what_counts_in_two_metrics_counts_in_both_at_once(
    happens: Callable[[Counting], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No scrape comes in between, and shows an event without its bytes."""
    waits: list[bool] = []
    counting = Counting()
    count = counting._count

    def counted(*args: Any, **kwargs: Any) -> None:
        waits.append(kept_out(counting._lock))
        count(*args, **kwargs)

    monkeypatch.setattr(counting, "_count", counted)
    happens(counting)
    assert waits == [True, True]


def test_how_long_a_stream_lasted_is_recorded_while_others_may_collect() -> None:
    """A library has a lock of its own around both, and each would wait for the other's."""
    waits: list[bool] = []

    class Timed(Counting):
        def lasted(self, endpoint: str, seconds: float) -> None:
            waits.append(kept_out(self._lock))

    counting, stream = Timed(), Growing()
    counting.opened(stream)
    counting.closed(stream, CloseReason.FINISHED, None)
    assert waits == [False]


def test_a_stream_that_ends_while_it_is_asked_counts_once(sink: Sink) -> None:
    """As by a garbage collection in the scraping thread, which must not wait for itself."""

    class Ending(Growing):
        @property
        def events(self) -> int:
            for stream in (self, *others):
                sink.observer.closed(stream, CloseReason.CANCELLED, None)
            return 5

        @events.setter
        def events(self, value: int) -> None:
            """It is always the same."""

    others = [Growing() for _ in range(3)]
    for stream in others:
        stream.send()
    for stream in (others[0], Ending(), *others[1:]):
        sink.observer.opened(stream)
    shown: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: shown.extend([sink.read(), sink.read()]), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert [list(each["events"].values()) for each in shown] == [[8], [8]]
    assert list(shown[-1]["open"].values()) == [0]
