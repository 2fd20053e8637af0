"""A real server whose metrics are scraped while clients come and go."""

from __future__ import annotations

import http.client
import sys
from collections.abc import Iterator

import pytest

from tests.observers.sinks import samples
from tests.servers.client import EventStream, get_json
from tests.servers.processes import PATIENCE, ROOT, Program, eventually, running

COUNTERS = ("opened_total", "ended_total", "events_total", "sent_bytes_total", "duration_seconds_count")


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    def uvicorn(port: int) -> list[str]:
        return [sys.executable, "-m", "uvicorn", "tests.observers.scraped_app:app", "--port", str(port)]

    with running(uvicorn, tmp_path_factory.mktemp("scraped"), environ={"PYTHONPATH": str(ROOT)}) as program:
        yield program


def scrape(server: Program, path: str = "/metrics/") -> dict[str, float]:
    """Return what is shown without its labels: the sum of each metric."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read().decode()
        assert response.status == 200, body
    finally:
        connection.close()
    return {name: sum(value for _, value in found) for name, found in samples(body).items()}


def of_streams(shown: dict[str, float], name: str) -> float:
    return shown.get(f"starlette_sse_stream_{name}", 0)


def scraped_when(server: Program, name: str, value: float, path: str = "/metrics/") -> dict[str, float]:
    """Return the first scrape with this value: what a client has seen or done may not be counted at once."""
    shown: dict[str, float] = {}

    def arrived() -> bool:
        shown.update(scrape(server, path))
        return of_streams(shown, name) == value

    assert eventually(arrived), (name, value, shown)
    return shown


def test_a_scrape_shows_streams_and_broker(server: Program) -> None:
    """While they are open and after, beside what prometheus_client itself shows."""
    assert "python_info" in scrape(server)
    with EventStream(server.port, "/news") as first, EventStream(server.port, "/news") as second:
        for count in (1, 2):
            get_json(server.port, "/announce")
            for stream in (first, second):
                assert stream.next().data == "snow"
            shown = scraped_when(server, "events_total", 2 * count)
        assert of_streams(shown, "open") == 2
        assert of_streams(shown, "sent_bytes_total") == len(first.received) + len(second.received)
        assert shown["starlette_sse_broker_events_total"] == 2
        assert shown["starlette_sse_broker_subscriptions_total"] == 2
    shown = scraped_when(server, "open", 0)
    assert of_streams(shown, "opened_total") == of_streams(shown, "ended_total") == 2
    assert of_streams(shown, "events_total") == 4


def test_scrapes_in_another_thread_hold_while_clients_come_and_go(server: Program) -> None:
    """No counter goes down, in each scrape as many were opened as are open or ended, and nothing is lost."""
    seen = [scrape(server, "/threaded")]
    held: list[EventStream] = []
    for _ in range(40):
        held.append(EventStream(server.port, "/busy?events=200"))
        seen.append(scrape(server, "/threaded"))
        if len(held) == 5:
            held.pop(0).leave()
            seen.append(scrape(server, "/threaded"))
    for stream in held:
        stream.leave()
    last = scraped_when(server, "open", 0, "/threaded")
    for name in COUNTERS:
        values = [of_streams(shown, name) for shown in [*seen, last]]
        assert values == sorted(values), name
    for shown in seen:
        assert of_streams(shown, "opened_total") == of_streams(shown, "open") + of_streams(shown, "ended_total")
    assert of_streams(last, "opened_total") == of_streams(last, "ended_total") == 40
    assert of_streams(last, "duration_seconds_count") == 40
