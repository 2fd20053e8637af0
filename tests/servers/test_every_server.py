"""What a stream promises, on every server it may run on: events at once, nothing left behind, a clean shutdown."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import count

import pytest

from tests.servers.apps import PLANNED, AppServer, address, serving
from tests.servers.client import ended_whole
from tests.servers.kinds import KINDS, Kind
from tests.servers.processes import eventually

MOUNTS = ("", "/base", "/gzip", "/cors", "/fastapi")
ENDPOINTS = tuple(f"{mount}/stream" for mount in MOUNTS)
RESPONSES = tuple(f"{mount}/response" for mount in MOUNTS)
# What makes GZipMiddleware and CORSMiddleware act.
BROWSER = {"Accept-Encoding": "gzip", "Origin": "https://example.org"}

names = (f"stream-{number}" for number in count())


@pytest.fixture(scope="module", params=KINDS, ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture(scope="module")
def server(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    with serving(kind, tmp_path_factory.mktemp(kind.name)) as running:
        yield running
        print(f"{kind} printed:\n{running.program.output}")


@pytest.mark.parametrize("path", ENDPOINTS + RESPONSES)
def test_events_arrive_one_by_one(server: AppServer, path: str) -> None:
    """Each event is with the client before the app is told to make the next, and the end is a complete body."""
    name = next(names)
    with server.open(name, path, headers=BROWSER) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert stream.headers["cache-control"] == "no-store"
        assert stream.headers["x-accel-buffering"] == "no"
        assert "content-encoding" not in stream.headers
        for number in range(5):
            server.control.order(name, data=f"line {number}\nsecond line", event="told", id=str(number))
            event = stream.next()
            assert (event.type, event.data) == ("told", f"line {number}\nsecond line")
            assert event.last_event_id == str(number)
        server.control.end(name)
        assert stream.rest() == []
    assert server.note("disconnect", name)["reason"] == told(path, "finished")
    server.note("finally", name)


@pytest.mark.parametrize("way", ["leave", "reset"])
@pytest.mark.parametrize("path", ENDPOINTS + RESPONSES)
def test_a_client_that_is_gone_is_noticed_within_a_second(server: AppServer, path: str, way: str) -> None:
    """An idle stream learns that its client has gone without sending, cleans up completely and says why, once."""
    name = next(names)
    stream = server.open(name, path)
    gone = time.monotonic()
    getattr(stream, way)()
    assert server.control.hung_up(name)
    assert server.note("finally", name)["at"] - gone < 1
    disconnect = server.note("disconnect", name)
    assert disconnect["at"] - gone < 1
    assert disconnect["reason"] == told(path, "client_gone")


@pytest.mark.parametrize("path", ENDPOINTS)
def test_an_error_is_the_last_event(server: AppServer, path: str) -> None:
    """The client learns that the stream failed, but not how, and the body is complete."""
    name = next(names)
    with server.open(name, path) as stream:
        server.control.order(name, raises=PLANNED)
        event = stream.next()
        assert event.type == "stream-error"
        assert json.loads(event.data)["status"] == 500
        assert stream.rest() == []
        assert PLANNED.encode() not in stream.received
    assert server.note("disconnect", name)["reason"] == "error"


@pytest.mark.parametrize("mount", MOUNTS)
def test_an_error_that_is_not_told_cuts_the_body(server: AppServer, kind: Kind, mount: str) -> None:
    """An abnormal end never looks like a normal one, but where something between takes the error.

    ``BaseHTTPMiddleware`` ends the body as if it were complete, and daphne leaves the connection as it is.
    """
    name = next(names)
    with server.open(name, f"{mount}/cut") as stream:
        server.control.order(name, raises=PLANNED)
        assert server.note("disconnect", name)["reason"] == "error"
        if kind.cuts:
            assert ended_whole(stream) == (mount == "/base")


def test_a_post_opens_a_stream(server: AppServer) -> None:
    """A stream may be the answer to a POST, whose body its hooks can read."""
    name = next(names)
    with server.request(address(name), method="POST", body=b"a question") as stream:
        assert json.loads(stream.next().data)["body"] == "a question"
        server.control.order(name, data="an answer")
        assert stream.next().data == "an answer"


@pytest.mark.parametrize("path", ENDPOINTS + RESPONSES[:1])
def test_head_answers_with_the_headers_alone(server: AppServer, path: str) -> None:
    """HEAD never hangs on an endless stream."""
    with server.request(address(next(names), path), method="HEAD") as answer:
        assert answer.status == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.rest() == []


def test_streams_that_ended_leave_nothing_behind(server: AppServer, kind: Kind) -> None:
    """After clients came and left in every way, each worker has no more tasks and sockets than before."""
    before = vitals(server, kind)
    streams = {name: server.open(name, path) for path, name in zip(ENDPOINTS * 4, names, strict=False)}
    for number, (name, stream) in enumerate(streams.items()):
        if number % 3 == 0:
            server.control.end(name)
            stream.rest()
        stream.reset() if number % 3 == 1 else stream.leave()
    for name in streams:
        server.note("disconnect", name)

    def settled() -> bool:
        after = vitals(server, kind)
        return all(a <= b for pid in before for a, b in zip(after[pid], before[pid], strict=True))

    assert eventually(settled), (before, vitals(server, kind))


def told(path: str, reason: str) -> str:
    """Return what the journal says of an ending: a response's close handler is not told the reason."""
    return "close handler" if path in RESPONSES else reason


def vitals(server: AppServer, kind: Kind) -> dict[int, tuple[int, int]]:
    """Return how many tasks and sockets each of the server's workers has."""
    found: dict[int, tuple[int, int]] = {}

    def all_answered() -> bool:
        answer = server.vitals()
        found[answer["pid"]] = (sum(answer["tasks"].values()), answer["sockets"])
        return len(found) == kind.workers

    assert eventually(all_answered), f"only {list(found)} of {kind.workers} workers answered"
    return found
