"""Streams behind nginx and HAProxy: with their default settings nothing is held back until the next event.

HAProxy's defaults gather what it passes on for up to 200 ms, and tell the app that a client has gone only when they
cannot pass something on to it. Two options change that, and are tested as well.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest

from tests.servers.apps import AppServer, serving
from tests.servers.client import EventStream
from tests.servers.kinds import KINDS
from tests.servers.processes import Program, eventually, running
from tests.servers.proxies import Make, haproxy, haproxy_for_streams, nginx


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    with serving(KINDS[0], tmp_path_factory.mktemp("upstream")) as upstream:
        yield upstream


@pytest.fixture(scope="module", params=[nginx, haproxy, haproxy_for_streams], ids=lambda made: made.__name__)
def make(request: pytest.FixtureRequest) -> Make:
    made: Make = request.param
    return made


@pytest.fixture(scope="module")
def proxy(server: AppServer, make: Make, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    directory = tmp_path_factory.mktemp("proxy")
    with running(make(directory, server.port), directory) as program:
        yield program


@pytest.mark.parametrize("path", ["/stream", "/response"])
@pytest.mark.parametrize("size", [1, 1000, 9000, 300_000])
def test_a_proxy_passes_each_event_on_at_once(server: AppServer, proxy: Program, path: str, size: int) -> None:
    """No event waits in a buffer for the next one, be it smaller or larger than the proxy's buffers."""
    name = f"{proxy.port}{path}{size}"
    with server.open(name, path, port=proxy.port) as stream:
        for number in range(3):
            data = str(number) * size
            server.control.order(name, data=data)
            assert stream.next().data == data
        server.control.end(name)
        assert stream.rest() == []


def test_a_proxy_holds_back_no_small_event(server: AppServer, proxy: Program, make: Make) -> None:
    """It sends them as they come; HAProxy waits for more to fill a packet with, unless its option says otherwise."""
    name = f"{proxy.port}-small"
    with server.open(name, port=proxy.port) as stream:
        took: list[float] = []
        for number in range(5):
            began = time.perf_counter()
            server.control.order(name, data=str(number))
            assert stream.next().data == str(number)
            took.append(time.perf_counter() - began)
        server.control.end(name)
    assert (min(took) > 0.1) == (make is haproxy)


def test_a_proxy_passes_on_the_opening_frame_at_once(server: AppServer, proxy: Program) -> None:
    """A client sees its stream open before there is any event."""
    with EventStream(proxy.port, "/silent") as stream:
        assert stream.status == 200
        assert stream.headers["content-type"].startswith("text/event-stream")


def test_a_client_that_leaves_a_proxy_is_noticed(server: AppServer, proxy: Program, make: Make) -> None:
    """The proxy closes its connection to the app, and the stream ends as if the client had been its own."""
    name = f"{proxy.port}-leaves"
    stream = server.open(name, port=proxy.port)
    stream.leave()
    if make is haproxy:
        assert eventually(lambda: passed_on_in_vain(server, name))
    assert server.note("disconnect", name)["reason"] == "client_gone"


def passed_on_in_vain(server: AppServer, name: str) -> bool:
    """Send an event, as a ping would, and tell whether the stream has noticed that nobody takes it."""
    with contextlib.suppress(ConnectionError):
        server.control.order(name, data="for nobody")
    return bool(server.notes("disconnect", [name]))
