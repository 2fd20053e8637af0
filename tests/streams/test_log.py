"""What the log and other observers are told."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest
import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route
from structlog.testing import capture_logs

from starlette_sse import CloseReason, ServerSentEvent
from starlette_sse.observers import Observer, StreamFacts, StructlogObserver
from starlette_sse.testing import SSETestClient
from tests.streams.apps import Noting, serve

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def unconfigured() -> None:
    """``capture_logs`` of an earlier test leaves structlog configured."""
    structlog.reset_defaults()


SECRET = "payload-and-token"


class Logged(Noting):
    pause = 0.0
    observers = (StructlogObserver(),)

    async def events(self, request: Request) -> AsyncIterator[Any]:
        self.log.info("clock.wound", turns=3)
        yield SECRET
        yield SECRET


def anywhere(endpoint: type[Logged]) -> Starlette:
    """Return an app with the endpoint at every path."""
    return Starlette(routes=[Route("/{rest:path}", endpoint)])


async def test_a_stream_is_logged_with_constant_names_and_facts() -> None:
    """Opening and closing share the connection id, which the app's own lines carry too; payloads are not logged."""
    with capture_logs() as logs:
        async with serve(Logged) as client, client.stream("/", headers={"Authorization": SECRET}) as stream:
            await stream.closed()
            size = len(stream.body)
    events = {entry["event"]: entry for entry in logs}
    assert list(events) == ["clock.wound", "stream.opened", "stream.closed"]
    identity = {"endpoint": "Logged", "path": "/", "connection_id": events["stream.opened"]["connection_id"]}
    assert events["stream.opened"] == {"event": "stream.opened", "log_level": "info", **identity}
    closed = events["stream.closed"]
    assert closed == {
        "event": "stream.closed",
        "log_level": "info",
        "reason": "finished",
        "duration": pytest.approx(0, abs=0.01),
        "events": 2,
        "bytes": size,
        **identity,
    }
    assert events["clock.wound"] == {"event": "clock.wound", "log_level": "info", "turns": 3, **identity}
    assert SECRET not in repr(logs)


@contextmanager
def by_pythons_loggers(bound: type[Any]) -> Iterator[None]:
    """Let structlog write by Python's own logging."""
    structlog.configure(
        processors=[structlog.stdlib.render_to_log_kwargs],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=bound,
    )
    try:
        yield
    finally:
        structlog.reset_defaults()


async def test_all_of_it_comes_by_one_logger(caplog: pytest.LogCaptureFixture) -> None:
    """An app that has structlog write to Python's loggers finds the package's lines, and its own, by the name."""
    caplog.set_level(logging.INFO)
    with by_pythons_loggers(structlog.stdlib.BoundLogger):
        async with serve(Logged) as client, client.stream("/") as stream:
            await stream.closed()
    names = {record.message: record.name for record in caplog.records}
    assert names == dict.fromkeys(["clock.wound", "stream.opened", "stream.closed"], "starlette_sse")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_logger_whose_methods_must_be_awaited_gets_every_line(caplog: pytest.LogCaptureFixture) -> None:
    """Observers cannot await; structlog's ``AsyncBoundLogger`` has a half for them."""
    caplog.set_level(logging.INFO)

    class Silent(Logged):
        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield "first"

    with by_pythons_loggers(structlog.stdlib.AsyncBoundLogger):
        async with serve(Silent) as client, client.stream("/") as stream:
            await stream.closed()
    assert [record.message for record in caplog.records] == ["stream.opened", "stream.closed"]


async def test_a_path_forges_no_line_and_steers_no_terminal() -> None:
    """What cannot be printed is logged as it came, percent-encoded; other letters as they are."""
    with capture_logs() as logs:
        async with SSETestClient(anywhere(Logged)) as client:
            for path in ("/%1b[2Jx", "/a%c2%85forged%e2%80%a8x", "/caf%c3%a9", "/a%0dforged"):
                async with client.stream(path) as stream:
                    await stream.closed()
    paths = [entry["path"] for entry in logs]
    assert paths[::3] == ["/%1B%5B2Jx", "/a%C2%85forged%E2%80%A8x", "/café", "/a%0Dforged"]
    assert paths[::3] == paths[1::3] == paths[2::3]  # the app's own line, the opening and the end


async def test_a_refusal_is_logged_as_a_warning() -> None:
    """With the endpoint, the path and the reason; neither the query nor the headers."""

    class Full(Logged):
        max_connections = 1

        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield "first"
            await anyio.sleep_forever()

    with capture_logs() as logs:
        async with SSETestClient(anywhere(Full)) as client, client.stream("/") as stream:
            await stream.expect("first")
            await client.request("GET", f"/%1B?token={SECRET}", headers={"Authorization": SECRET})
    refused = {"endpoint": Full.__qualname__, "path": "/%1B", "reason": "max_connections"}
    assert [entry for entry in logs if entry["log_level"] != "info"] == [
        {"event": "stream.rejected", "log_level": "warning", **refused}
    ]
    assert SECRET not in repr(logs)


class Failing(Logged):
    async def events(self, request: Request) -> AsyncIterator[Any]:
        local_variable = SECRET
        yield local_variable
        raise ValueError("what went wrong")


async def test_a_failure_is_logged_with_its_traceback_once_and_without_local_variables() -> None:
    """The default of structlog would print every frame's variables where rich is installed."""
    lines: list[dict[str, Any]] = []

    class Keeping(StructlogObserver):
        def __init__(self) -> None:
            self._log = structlog.wrap_logger(None, processors=[self.keep])

        def keep(self, logger: Any, method: str, entry: Any) -> Any:
            lines.append(dict(entry))
            raise structlog.DropEvent

    endpoint = type("Failing", (Failing,), {"observers": (Keeping(),)})
    async with serve(endpoint) as client, client.stream("/") as stream:
        await stream.closed()
    [failed] = [line for line in lines if line["event"] == "stream.failed"]
    assert failed["error"] == "ValueError('what went wrong')"
    assert failed["exception"].startswith("Traceback")
    assert failed["exception"].endswith("ValueError: what went wrong")
    assert failed["exception"].count("Traceback") == 1
    assert SECRET not in repr(lines)


async def test_an_app_that_configures_structlog_gets_the_exception_itself() -> None:
    """Its own processors render it."""
    with capture_logs() as logs:
        structlog.configure(**structlog.get_config())
        try:
            async with serve(Failing) as client, client.stream("/") as stream:
                await stream.closed()
        finally:
            structlog.reset_defaults()
    [failed] = [entry for entry in logs if entry["event"] == "stream.failed"]
    assert isinstance(failed["exc_info"], ValueError)


class Counting(Observer):
    """Counts each call, and the bytes."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.size = 0

    def opened(self, stream: StreamFacts) -> None:
        self.calls["opened"] += 1

    def sent(self, stream: StreamFacts, size: int) -> None:
        self.calls["sent"] += 1
        self.size += size

    def pinged(self, stream: StreamFacts) -> None:
        self.calls["pinged"] += 1

    def closed(self, stream: StreamFacts, reason: CloseReason, error: BaseException | None) -> None:
        self.calls[reason] += 1


async def test_an_observer_hears_of_each_event_and_ping() -> None:
    """Metrics need no more than a subclass."""
    counting = Counting()

    class Watched(Noting):
        observers = (counting,)
        ping_interval = 10.0

        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield "a"
            yield "b"
            await anyio.sleep(20.5)

    async with serve(Watched) as client, client.stream("/") as stream:
        await stream.closed()
    assert counting.calls == {"opened": 1, "sent": 2, "pinged": 2, CloseReason.FINISHED: 1}
    assert counting.size == 2 * len(b"data: a\r\n\r\n")


async def test_a_refusal_is_observed() -> None:
    """With the endpoint, the path and the reason."""
    refused = []

    class Noticing(Observer):
        def rejected(self, endpoint: str, path: str, reason: str) -> None:
            refused.append((endpoint, path, reason))

    class Full(Noting):
        observers = (Noticing(),)
        max_connections = 1

    async with serve(Full) as client, client.stream("/") as stream:
        await stream.expect("first")
        assert (await client.request("GET", "/")).status_code == 503
    assert refused == [("test_a_refusal_is_observed.<locals>.Full", "/", "max_connections")]


class Clumsy(Observer):
    """Fails in every method."""

    def __getattribute__(self, name: str) -> Any:
        if name in {"opened", "sent", "pinged", "failed", "closed", "rejected"}:
            raise ZeroDivisionError(name)
        return super().__getattribute__(name)

    def sent(self, stream: StreamFacts, size: int) -> None:
        """Wanted, so that it is called."""


async def test_an_observer_that_fails_costs_nobody_anything(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged; the stream goes on, and the other observers hear what they should."""
    counting = Counting()

    class Watched(Noting):
        observers = (Clumsy(), counting)
        ping_interval = 10.0
        max_connections = 1

        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield "a"
            await anyio.sleep(20.5)
            raise ValueError("failed")

    async with serve(Watched) as client, client.stream("/") as stream:
        assert (await client.request("GET", "/")).status_code == 503
        await stream.expect("a", {"event": "stream-error"})
        await stream.closed()
    assert counting.calls == {"opened": 1, "sent": 1, "pinged": 2, CloseReason.ERROR: 1}
    told = {record.getMessage().rpartition(" ")[2] for record in caplog.records if record.name == "starlette_sse"}
    assert told == {"opened", "sent", "pinged", "failed", "closed", "rejected"}


async def test_a_ping_that_fails_is_told_as_such() -> None:
    """The log does not say that ``events()`` failed."""
    failures = []

    class Telling(Observer):
        def failed(self, stream: StreamFacts, error: BaseException, *, during: str, propagates: bool) -> None:
            failures.append((during, str(error)))

    class Pinging(Noting):
        observers = (Telling(),)
        ping_interval = 5.0
        pause = 0.0

        def ping_message(self, request: Request) -> ServerSentEvent:
            raise ValueError("no ping")

    async with serve(Pinging) as client, client.stream("/") as stream:
        await stream.expect("first", {"event": "stream-error"})
        await stream.closed()
    assert failures == [("the ping", "no ping")]


async def test_what_cannot_be_an_event_is_found_by_its_yield() -> None:
    """The traceback begins behind the generator, so a note names the line."""
    notes = []

    class Telling(Observer):
        def failed(self, stream: StreamFacts, error: BaseException, *, during: str, propagates: bool) -> None:
            notes.extend(error.__notes__)

    class Wrong(Noting):
        observers = (Telling(),)

        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield "first"
            yield None

    line = Wrong.events.__code__.co_firstlineno + 2
    async with serve(Wrong) as client, client.stream("/") as stream:
        await stream.expect("first", {"event": "stream-error"})
        await stream.closed()
    assert notes == [f'The yield of it: File "{__file__}", line {line}']


async def test_any_logger_of_structlogs_will_do() -> None:
    """Its generic one answers whatever it is asked for."""
    lines: list[str] = []

    class Sink:
        def info(self, event: str, **fields: Any) -> None:
            lines.append(event)

    structlog.configure(wrapper_class=structlog.BoundLogger, logger_factory=lambda *names: Sink(), processors=[])
    try:
        StructlogObserver().backend_back(1.0)
    finally:
        structlog.reset_defaults()
    assert lines == ["broker.recovered"]
