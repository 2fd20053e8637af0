"""The client as a fixture: runners of tests enter it in one task and leave it in another."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from starlette_sse.testing import (
    EventStream,
    SSETestClient,
    StillRunningError,
    StreamForgottenError,
    StreamingASGITransport,
    nothing_left_running,
)

from .apps import Connection, app, clock, until_gone
from .test_lifespan import AppError, Broken
from .test_plugin import environment, run_pytest

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """Trio has no such fixtures: who enters a nursery leaves it."""
    return "asyncio"


async def opened(client: SSETestClient) -> SSETestClient:
    """Open it in a task of its own, which ends."""
    return await asyncio.create_task(client.__aenter__())


async def closed(client: SSETestClient, error: BaseException | None = None) -> None:
    """Close it in another."""
    kind = None if error is None else type(error)
    await asyncio.create_task(client.__aexit__(kind, error, None))


async def test_it_serves_between_two_tasks() -> None:
    """Startup, streams and shutdown are as ever, and no task is left."""
    steps = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        steps.append("up")
        yield {"pool": steps}
        steps.append("down")

    async with nothing_left_running():
        client = await opened(SSETestClient(Starlette(routes=[Mount("/", clock)], lifespan=lifespan)))
        async with client.stream("/") as stream:
            await stream.expect({"id": "1"})
        assert client.state["pool"] == ["up"]
        await closed(client)
    assert steps == ["up", "down"]


async def test_the_transport_serves_between_two_tasks() -> None:
    """A client of httpx is a fixture as well."""
    async with nothing_left_running():
        client = httpx.AsyncClient(transport=StreamingASGITransport(clock), base_url="http://testserver")
        await asyncio.create_task(client.__aenter__())
        async with client.stream("GET", "/") as response:
            assert await anext(response.aiter_lines()) == "id: 1"
        await asyncio.create_task(client.__aexit__())


def test_a_client_in_another_event_loop_is_told_at_once() -> None:
    """Its app runs in the first one, and would never answer."""

    async def open_both() -> tuple[SSETestClient, EventStream]:
        client = await opened(SSETestClient(clock))
        return client, await client.stream("/clock")

    async def within(using: Callable[[], Awaitable[object]]) -> None:
        async with asyncio.timeout(10):
            await using()

    with asyncio.Runner() as one, asyncio.Runner() as another:
        client, stream = one.run(open_both())
        for using in (client.stream("/clock").open, stream.next_event, stream.closed):
            with pytest.raises(RuntimeError, match=r"opened in another event loop, .* the same loop_scope"):
                another.run(within(using))
        one.run(stream.aclose())
        one.run(closed(client))


async def test_a_forgotten_stream_is_told_to_who_closes() -> None:
    """And ended."""
    async with nothing_left_running():
        client = await opened(SSETestClient(clock))
        await client.stream("/lost")
        with pytest.raises(StreamForgottenError, match=r"GET /lost, opened at .*test_fixtures\.py:\d+, was left open"):
            await closed(client)


async def test_errors_of_the_app_are_told_as_ever() -> None:
    """Where the stream is closed, and where the app has shut down."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        raise AppError("shutdown")

    async def broken(connection: Connection) -> None:
        await connection.event("one")
        raise AppError("stream")

    async with nothing_left_running():
        routes = [Mount("/", until_gone(broken))]
        client = await opened(SSETestClient(Starlette(routes=routes, lifespan=lifespan)))
        with pytest.raises(ExceptionGroup, match="unhandled") as raised:
            async with client.stream("/") as stream:
                await stream.expect("one")
        assert raised.value.subgroup(AppError) is not None
        with pytest.raises(AppError, match="shutdown"):
            await closed(client)


async def test_a_startup_that_fails_leaves_nothing_behind() -> None:
    """Who opens is told."""
    async with nothing_left_running():
        with pytest.raises(AppError, match="startup"):
            await opened(SSETestClient(Starlette(lifespan=Broken)))


@pytest.mark.parametrize("error", [asyncio.CancelledError, KeyboardInterrupt])
async def test_a_test_that_is_stopped_stops_the_app(error: type[BaseException]) -> None:
    """At once, without its shutdown, whatever its streams catch."""
    caught = []

    async def stubborn(connection: Connection) -> None:
        await connection.start()
        for _ in range(3):
            try:
                await anyio.sleep_forever()
            except asyncio.CancelledError:
                caught.append(True)
        await anyio.sleep_forever()

    async with nothing_left_running():
        client = await opened(SSETestClient(app(stubborn)))
        await client.stream("/")
        with anyio.fail_after(2):
            await closed(client, error())
    assert len(caught) == 3


async def test_a_timeout_around_the_closing_holds() -> None:
    """An app that does not end is cancelled then, before its grace is over."""

    async def deaf(connection: Connection) -> None:
        await connection.start()
        await anyio.sleep_forever()

    async with nothing_left_running():
        client = await opened(SSETestClient(app(deaf)))
        await client.stream("/")
        with anyio.move_on_after(0.05) as scope:
            await client.__aexit__(None, None, None)
        assert scope.cancelled_caught


async def test_what_fails_the_test_inside_the_app_reaches_who_closes() -> None:
    """An assertion of the runner's own kind is no Exception, and is not lost when nobody waits for the app."""

    async def failing(connection: Connection) -> None:
        await connection.start()
        pytest.fail("seen by the app")

    async with nothing_left_running():
        client = await opened(SSETestClient(app(failing)))
        stream = await client.stream("/")
        await stream.closed()
        await stream.aclose()
        with pytest.raises(BaseExceptionGroup) as raised:
            await closed(client)
    assert "seen by the app" in str(raised.value.exceptions[0])


async def test_a_check_for_what_is_left_running_may_be_a_fixture() -> None:
    """The task that leaves it is nothing left, and what is left is named."""
    check = nothing_left_running()
    await asyncio.create_task(check.__aenter__())
    await asyncio.create_task(check.__aexit__(None, None, None))
    check = nothing_left_running()
    await asyncio.create_task(check.__aenter__())
    left = asyncio.create_task(asyncio.sleep(60), name="the sleeper")
    with pytest.raises(StillRunningError, match=r"^left running: the task the sleeper$"):
        await asyncio.create_task(check.__aexit__(None, None, None))
    left.cancel()


APP = """
    import anyio
    from starlette.applications import Starlette
    from starlette.routing import Route

    import starlette_sse
    from starlette_sse import Broker, ChannelEndpoint, SSEEndpoint
    from starlette_sse.closing import follow_closes
    from starlette_sse.presence import count_together


    class Clock(SSEEndpoint):
        max_connections = 10

        async def events(self, request):
            while True:
                yield "tick"
                await anyio.sleep(0.05)


    class Broken(SSEEndpoint):
        async def events(self, request):
            yield "tick"
            raise LookupError("the spring broke")

        async def on_error(self, request, error):
            return None


    routes = [Route("/clock", Clock), Route("/broken", Broken)]
    app = Starlette(routes=routes, lifespan=starlette_sse.lifespan)
"""

FIXTURES = """
    import os
    import signal

    import anyio
    import pytest
    import pytest_asyncio

    from app import app, Broker, Clock, count_together, follow_closes, starlette_sse
    from starlette_sse.testing import SSETestClient, nothing_left_running

    pytestmark = pytest.mark.asyncio

    @pytest_asyncio.fixture
    async def client():
        async with nothing_left_running(), SSETestClient(app) as client:
            yield client

    @pytest_asyncio.fixture
    async def broker():
        async with Broker() as broker, nothing_left_running(broker), follow_closes(broker):
            async with count_together(broker, Clock), starlette_sse.lifespan():
                yield broker
"""


def run_asyncio(folder: Path, tests: str) -> str:
    """Run a user's tests by pytest-asyncio, with fixtures that hold a client and a broker."""
    module = textwrap.dedent(FIXTURES) + textwrap.dedent(tests)
    options = ["-p", "no:anyio", "-o", "asyncio_default_fixture_loop_scope=function", "-W", "error"]
    return run_pytest(folder, *options, app=APP, test_them=module)


def test_fixtures_of_pytest_asyncio_hold_a_client_and_a_broker(tmp_path: Path) -> None:
    """As its documentation writes them, and in the test as well; all of it is closed in order."""
    output = run_asyncio(
        tmp_path,
        """
        async def test_stream(client, broker):
            async with client.stream("/clock") as stream:
                await stream.expect("tick", "tick")

        async def test_broker(broker):
            async with broker.subscribe("news") as subscription:
                await broker.publish("news", "one")
                assert b"one" in (await anext(subscription)).frame
                await anyio.to_thread.run_sync(broker.publish_from_thread, "news", "two")
                assert b"two" in (await anext(subscription)).frame

        async def test_timeout_of_the_test(client):
            with anyio.move_on_after(0.1) as scope:
                async with client.stream("/clock") as stream:
                    await stream.closed(timeout=60)
            assert scope.cancelled_caught

        async def test_inside():
            async with SSETestClient(app) as client, client.stream("/clock") as stream:
                await stream.expect("tick")
        """,
    )
    assert "4 passed in" in output, output


def test_fixtures_of_pytest_asyncio_tell_what_a_test_left_and_broke(tmp_path: Path) -> None:
    """What fails in the test fails the test; what it left open fails its teardown; the tests after it are not hurt."""
    output = run_asyncio(
        tmp_path,
        """
        async def test_leaves_a_stream(client):
            await (await client.stream("/clock")).next_event()

        async def test_app_fails(client):
            async with client.stream("/broken") as stream:
                await stream.expect("tick")

        async def test_body_fails(client, broker):
            async with client.stream("/clock") as stream:
                raise ZeroDivisionError

        async def test_after(client, broker):
            async with client.stream("/clock") as stream:
                await stream.expect("tick")
        """,
    )
    assert "2 failed, 2 passed, 1 error in" in output, output
    for told in (
        r"StreamForgottenError: GET /clock, opened at",
        "FAILED test_them.py::test_app_fails - LookupError: the spring broke",
        "FAILED test_them.py::test_body_fails - ZeroDivisionError",
    ):
        assert told in output, output
    assert "cancel scope" not in output, output


def test_an_interrupted_run_of_pytest_asyncio_ends_at_once(tmp_path: Path) -> None:
    """Ctrl-C waits for no stream that goes on for ever, and for no grace."""
    started = time.monotonic()
    output = run_asyncio(
        tmp_path,
        """
        async def test_interrupted(client, broker):
            async with client.stream("/clock") as stream:
                await stream.expect("tick")
                os.kill(os.getpid(), signal.SIGINT)
                await stream.closed(timeout=3600)
        """,
    )
    assert time.monotonic() - started < 14
    assert "KeyboardInterrupt" in output, output
    assert "cancel scope" not in output, output


def test_unittest_holds_a_client_and_a_broker(tmp_path: Path) -> None:
    """By the method that it has for asynchronous context managers."""
    (tmp_path / "app.py").write_text(textwrap.dedent(APP))
    code = """
        import unittest
        from app import app, Broker
        from starlette_sse.testing import SSETestClient

        class Test(unittest.IsolatedAsyncioTestCase):
            async def asyncSetUp(self):
                self.client = await self.enterAsyncContext(SSETestClient(app))
                self.broker = await self.enterAsyncContext(Broker())

            async def test_stream(self):
                async with self.client.stream("/clock") as stream:
                    await stream.expect("tick")
                await self.broker.publish("news", "one")

            async def test_forgets(self):
                await self.client.stream("/clock")

        unittest.main()
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment(), check=False)
    assert "FAILED (failures=1)" in ran.stderr, ran.stderr
    assert "StreamForgottenError: GET /clock, opened at" in ran.stderr, ran.stderr
    assert "Attempted to exit" not in ran.stderr, ran.stderr
