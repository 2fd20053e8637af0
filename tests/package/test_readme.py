"""What the README says is true: its tables have a row for everything there is, and its examples do what it tells."""

from __future__ import annotations

import ast
import inspect
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import AsyncExitStack
from functools import cache
from pathlib import Path
from typing import Any

import anyio
import pytest
import structlog
from docutils import nodes
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

import starlette_sse.testing
from starlette_sse import Broker, ChannelEndpoint, CloseReason, ServerSentEvent, SSEEndpoint
from starlette_sse.broker import ResetReason
from starlette_sse.observers import Observer, StructlogObserver
from starlette_sse.testing import Ending, SSETestClient, VirtualClock
from tests.broker.redis_server import running
from tests.package.test_documents import DOCUMENTS, blocks, compiled, rendered
from tests.servers.processes import ROOT
from tests.waiting import until

README = ROOT / "README.rst"
BROADCAST = ROOT / "docs" / "broadcast.rst"
PRODUCTION = ROOT / "docs" / "production.rst"
TESTING = ROOT / "docs" / "testing.rst"
SAMPLE = ROOT / "tests" / "testing" / "test_sample.py"

# What the README calls by a word instead of a literal.
WORDS: dict[str, Callable[[Any], bool]] = {
    "an event": lambda value: value is ServerSentEvent,
    "none": lambda value: value is None,
    "the log": lambda value: [type(observer) for observer in value] == [StructlogObserver],
}

# Answering a request by its method is Starlette's part.
STARLETTES = {"dispatch", "method_not_allowed"}


@cache
def document(path: Path = README) -> nodes.document:
    return rendered(path)


def table(heading: str, path: Path = README) -> dict[str, list[str]]:
    """Return the table whose first column has this heading: the other cells of each row by its first."""
    for found in document(path).findall(nodes.table):
        head, *rows = ([entry.astext() for entry in row.findall(nodes.entry)] for row in found.findall(nodes.row))
        if head[0] == heading:
            return {first: rest for first, *rest in rows}
    raise AssertionError(f"no table has the heading {heading!r}")


def names(heading: str) -> list[str]:
    """Return the first column without what stands around a name, as in ``self.close()``."""
    return [re.sub(r"^self\.|\(.*\)$", "", first) for first in table(heading)]


def attributes(endpoint: type[SSEEndpoint]) -> list[str]:
    return [name for name in endpoint.__annotations__ if not name.startswith("_")]


def methods(kind: type[Any]) -> list[str]:
    return [name for name, value in vars(kind).items() if inspect.isfunction(value) and not name.startswith("_")]


def check_defaults(rows: dict[str, list[str]], actual: dict[str, Any]) -> None:
    for name, (told, *_) in rows.items():
        word = WORDS.get(told)
        assert ast.literal_eval(told) == actual[name] if word is None else word(actual[name]), name


def test_every_attribute_of_an_endpoint_has_a_row_with_its_default() -> None:
    """The table is the class: nothing is missing, nothing is gone, no default is another."""
    rows = table("Attribute")
    assert list(rows) == attributes(SSEEndpoint)
    check_defaults(rows, {name: getattr(SSEEndpoint, name) for name in rows})


def test_every_public_method_of_an_endpoint_has_a_row() -> None:
    """It is a hook, or for hooks to use; and a hook's row has its parameters."""
    public = {name for name in vars(SSEEndpoint) if not name.startswith("_")} - {*attributes(SSEEndpoint), *STARLETTES}
    hooks, helpers = names("Hook"), names("Name")
    assert sorted([*hooks, *helpers]) == sorted(public | {"connection_id"})
    for told, name in zip(table("Hook"), hooks, strict=True):
        parameters = [*inspect.signature(getattr(SSEEndpoint, name)).parameters][1:]
        assert told == f"{name}({', '.join(parameters)})"


def test_the_hooks_that_are_async_are_those_that_the_readme_says() -> None:
    """All but three."""
    plain = {name for name in names("Hook") if not inspect.iscoroutinefunction(getattr(SSEEndpoint, name))}
    assert plain == {"events", "ping_message", "client_key"}


def test_everything_that_a_channel_endpoint_adds_has_a_row() -> None:
    """Its attributes with their defaults, and its hooks."""
    rows = table("Of ChannelEndpoint")
    own = attributes(ChannelEndpoint)
    hooks = [name for name in methods(ChannelEndpoint) if name not in own]
    assert list(rows) == [*own, *(f"{name}()" for name in hooks)]
    check_defaults({name: rows[name] for name in ("broker", "on_lag")}, {**vars(ChannelEndpoint), "broker": None})


def test_every_parameter_of_a_broker_has_a_row_with_its_default() -> None:
    """The table is the constructor."""
    parameters = inspect.signature(Broker).parameters
    rows = table("Of Broker", BROADCAST)
    assert list(rows) == list(parameters)
    check_defaults(rows, {name: parameter.default for name, parameter in parameters.items()})


@pytest.mark.parametrize(
    ("heading", "path", "reasons"), [("Reason", README, CloseReason), ("Reset because", BROADCAST, ResetReason)]
)
def test_every_reason_has_a_row(heading: str, path: Path, reasons: Iterable[str]) -> None:
    """Those of a stream's end and those of a reset."""
    assert sorted(table(heading, path)) == sorted(reasons)


def test_what_a_channel_keeps_is_told_as_it_is() -> None:
    """The README's sentence has the constructor's defaults."""
    defaults = {name: parameter.default for name, parameter in inspect.signature(Broker).parameters.items()}
    assert (defaults["history"], defaults["max_age"], defaults["max_bytes"]) == (1000, 5 * 60, 1024**2)
    assert "Each channel keeps 1,000 events, for five minutes and up to 1 MiB" in document().astext()


def test_every_happening_that_an_observer_hears_of_is_named() -> None:
    """In the two sentences that list them."""
    told = re.search(r"Its methods are (.*?)Broker\(observers", document().astext(), re.DOTALL)
    assert told is not None
    assert set(methods(Observer)) <= set(re.findall(r"\w+", told[1]))


def test_the_test_clients_abilities_are_there() -> None:
    """Each name in the table is one of the client's, the stream's or the module's."""
    client = SSETestClient(Starlette())
    places = {"client": client, "stream": client.stream("/"), "": starlette_sse.testing}
    for told in table("What a test can do", TESTING):
        for place, name in re.findall(r"(?:(\w+)\.)?(\w+)(?:\([^)]*\))?", told):
            assert name in dir(places[place]), told


@pytest.mark.parametrize("path", [README, BROADCAST], ids=lambda path: path.name)
def test_no_row_of_a_table_is_torn(path: Path) -> None:
    """A line of a simple table whose first column has text is a row of its own."""
    rows = [[entry.astext() for entry in row.findall(nodes.entry)] for row in document(path).findall(nodes.row)]
    assert [row for row in rows if "" in row] == []


def test_the_sample_of_a_test_module_is_the_one_that_is_tested() -> None:
    """The document has it word for word."""
    assert SAMPLE.read_text().strip() in [block.astext() for block in blocks(TESTING, "python")]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_the_files_that_a_document_refers_to_are_there(path: Path) -> None:
    """Documents and pictures of this repository."""
    uris = [found["refuri"] for found in document(path).findall(nodes.reference) if "refuri" in found]
    uris += [found["uri"] for found in document(path).findall(nodes.image)]
    own = [uri for uri in uris if not re.match(r"\w+:", uri)]
    assert own or path != README
    assert [uri for uri in own if not (path.parent / uri).is_file()] == []


# The examples


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    """Run the README."""
    return run(README)


def run(path: Path) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": path.stem}
    for block in example_blocks(path):
        exec(compiled(path, block), namespace)
    return namespace


def example_blocks(path: Path) -> Iterator[nodes.literal_block]:
    for block in blocks(path, "python"):
        if "fragment" not in block["classes"]:
            yield block


@pytest.mark.anyio
async def test_the_example_of_a_test_passes(example: dict[str, Any], virtual_clock: VirtualClock) -> None:
    """On the clock that it asks for."""
    await example["test_the_clock_ticks"](virtual_clock)


@pytest.mark.anyio
async def test_the_job_goes_on_where_its_client_was(example: dict[str, Any]) -> None:
    """It resumes by the id; a client that has seen all of it is told to stay away, and an unknown job is a 404."""
    async with SSETestClient(example["Starlette"](routes=[example["jobs"]])) as client:
        async with client.stream("/jobs/build", last_event_id="98") as stream:
            await stream.expect({"id": "99"}, {"id": "100", "data": {"percent": 100}})
            assert await stream.closed() is Ending.FINISHED
            assert stream.retry == 3000
        assert (await client.request("GET", "/jobs/build", last_event_id="100")).status_code == 204
        assert (await client.request("GET", "/jobs/test")).status_code == 404


@pytest.mark.anyio
async def test_the_greeting_is_for_the_user_of_the_dependency(example: dict[str, Any]) -> None:
    """And the class beside it is a route of its own."""
    async with SSETestClient(example["api"]) as client:
        async with client.stream("/greetings?token=ann") as stream:
            await stream.expect("hello, the one with ann")
        async with client.stream("/clock") as stream:
            assert (await stream.next_event()).event == "tick"
        assert (await client.request("GET", "/greetings")).status_code == 422
    assert "text/event-stream" in str(example["api"].openapi()["paths"]["/greetings"])


def test_the_broadcast_example_is_a_whole_app() -> None:
    """Copied into a file of its own it is an app that any server runs."""
    (block,) = [block for block in example_blocks(README) if "Broker()" in block.astext()]
    namespace: dict[str, Any] = {}
    exec(compiled(README, block), namespace)
    assert isinstance(namespace["app"], Starlette)


@pytest.mark.anyio
async def test_the_news_reach_a_client_that_was_away(example: dict[str, Any]) -> None:
    """Published by the route, resumed by the id."""
    async with SSETestClient(example["app"]) as client:
        async with client.stream("/news/ch") as stream:
            published = await client.request("POST", "/announce", json="snow")
            await stream.expect({"data": "snow", "id": published.json()["id"]})
        await client.request("POST", "/announce", json={"degrees": -3})
        async with client.reconnect(stream) as again:
            await again.expect({"data": {"degrees": -3}})


@pytest.mark.anyio
async def test_a_client_that_is_logged_out_has_no_stream(example: dict[str, Any]) -> None:
    """The list shows its stream, and then it ends."""
    routes = [example["Route"]("/", example["Clock"]), example["Route"]("/streams", example["list_streams"])]
    app = example["Starlette"](routes=routes, lifespan=example["starlette_sse"].lifespan)
    async with SSETestClient(app, scope={"client": ("10.0.0.1", 1)}) as client, client.stream("/") as stream:
        await stream.next_event()
        listed = (await client.request("GET", "/streams")).json()
        assert [line.split()[0] for line in listed] == ["/"]
        assert example["log_out"]("10.0.0.2") == 0
        assert example["log_out"]("10.0.0.1") == 1
        assert await stream.closed() is Ending.FINISHED
        assert stream.close_reason is CloseReason.CLOSED


@pytest.mark.anyio
async def test_the_observer_counts_how_streams_end(example: dict[str, Any]) -> None:
    """By endpoint and reason."""
    app = example["Starlette"](routes=[example["Route"]("/", example["CountedClock"])])
    async with SSETestClient(app) as client, client.stream("/") as stream:
        await stream.next_event()
    assert example["endings"].reasons["CountedClock", "client_gone"] > 0


@pytest.mark.anyio
async def test_the_examples_log_goes_to_the_standard_library(
    example: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """By the configuration that is shown, with the keys that the examples use."""
    (fragment,) = [block for block in blocks(README, "python") if "structlog.configure(" in block.astext()]
    caplog.set_level(logging.INFO, "starlette_sse")
    structlog.reset_defaults()
    try:
        exec(compiled(README, fragment), {})
        async with SSETestClient(example["Starlette"](routes=[example["jobs"]])) as client:
            async with client.stream("/jobs/build", last_event_id="99") as stream:
                await stream.closed()
    finally:
        structlog.reset_defaults()
    watched = {record.message: vars(record) for record in caplog.records}
    assert list(watched) == ["stream.opened", "job.watched", "stream.closed"]
    assert (watched["job.watched"]["job"], watched["job.watched"]["reason"]) == ("build", "finished")


@pytest.mark.anyio
async def test_a_header_is_no_key_of_a_client() -> None:
    """The example of limits tells clients apart by what was authenticated, and else by their address."""
    news = run(PRODUCTION)["News"]
    app = Starlette(routes=[Route("/", news)])

    async def authenticated(scope: Scope, receive: Receive, send: Send) -> None:
        if "session" in scope:
            scope["state"]["user"] = scope["session"]
        await app(scope, receive, send)

    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(SSETestClient(authenticated))
        for number in range(news.max_connections_per_client):
            await stack.enter_async_context(client.stream("/", headers={"X-User": str(number)}))
        assert (await client.request("GET", "/", headers={"X-User": "another"})).status_code == 429
        await stack.enter_async_context(client.stream("/", scope={"session": "ada"}))
        assert starlette_sse.close(client_key="ada") == 1


@pytest.mark.anyio
async def test_a_task_of_its_own_reads_a_broker() -> None:
    """From the position that it is given on."""
    readings: dict[str, str] = {}
    async with Broker(observers=()) as broker, anyio.create_task_group() as tasks:
        start = broker.health().position
        await broker.publish("weather", "rain")
        await broker.publish("traffic", "jam")
        tasks.start_soon(run(BROADCAST)["latest_of"], broker, readings, start)
        await until(lambda: len(readings) == 2)
        tasks.cancel_scope.cancel()
    assert readings == {"weather": "rain", "traffic": "jam"}


@pytest.mark.anyio
async def test_a_scrape_shows_the_clock(example: dict[str, Any]) -> None:
    """While it is open; ``/metrics`` without the slash leads there."""
    async with SSETestClient(example["measured"]) as client, client.stream("/clock") as stream:
        await stream.next_event()
        shown = (await client.request("GET", "/metrics/")).text
        assert 'starlette_sse_stream_open{endpoint="MeasuredClock"} 1.0' in shown
        assert (await client.request("GET", "/metrics")).status_code == 307


@pytest.mark.anyio
async def test_a_sync_route_publishes_what_readers_get() -> None:
    """By the twin of publish, in FastAPI's worker thread."""
    example = run(BROADCAST)
    broker = example["broker"]
    async with broker, broker.subscribe("weather") as reader, SSETestClient(example["api"]) as client:
        answer = await client.request("POST", "/temperature", params={"degrees": 21.5})
        entry = await anext(reader)
        assert (entry.id, entry.event.data) == (answer.json(), '{"degrees":21.5}')


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_another_process_publishes_by_redis(tmp_path: Path) -> None:
    """What it publishes reaches the readers of this one."""
    with running(tmp_path) as server:
        async with Broker(server.url) as broker, broker.subscribe("news") as reader:
            event_id = await run(BROADCAST)["publish_from_a_worker"](server.url, "news", "from elsewhere")
            entry = await anext(reader)
            assert entry.id == event_id
            assert entry.event is not None
            assert entry.event.data == "from elsewhere"
