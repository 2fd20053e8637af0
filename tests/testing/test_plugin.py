"""The pytest plugin: its fixtures, and what loading it costs everybody else."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
import structlog

from starlette_sse import ConfigurationError, MissingDependencyError
from starlette_sse.testing import (
    CapturedLogs,
    SSETestClient,
    VirtualClock,
    assert_gaps,
    capture_logs,
    virtual_backend,
)
from starlette_sse.testing.virtual_time import clock_of

from .apps import Connection, tick, until_gone

STARTED = time.monotonic()


async def test_hours_take_no_time_on_the_virtual_clock(virtual_clock: VirtualClock) -> None:
    """A test that asks for the clock runs on it, without a mark, and waits as long as it likes."""
    before = anyio.current_time()
    await anyio.sleep(24 * 3600)
    assert anyio.current_time() - before == pytest.approx(24 * 3600)
    assert virtual_clock.current_time() == anyio.current_time()
    assert time.monotonic() - STARTED < 3600


async def test_reads_wait_hours_by_default_on_the_virtual_clock(
    sse_client: Callable[..., SSETestClient], virtual_clock: VirtualClock
) -> None:
    """A test of a slow stream needs no timeout of its own, and one of a silent stream still ends."""

    async def hourly(connection: Connection) -> None:
        await tick(connection, 3600)

    async with sse_client(until_gone(hourly)) as client, client.stream("/") as stream:
        await stream.expect({"id": "1"}, {"id": "2"}, {"id": "3"})
        assert_gaps(stream.events, 3600)


def test_what_is_logged_is_collected_whatever_is_configured(sse_logs: CapturedLogs) -> None:
    """Each event is a mapping with its level, and can be found by its name."""
    structlog.get_logger("starlette_sse").info("stream.closed", reason="finished")
    structlog.get_logger().bind(room=1).warning("joined")
    assert sse_logs == [
        {"event": "stream.closed", "reason": "finished", "log_level": "info"},
        {"event": "joined", "room": 1, "log_level": "warning"},
    ]
    assert sse_logs.named("joined") == [sse_logs[1]]


@pytest.mark.parametrize("in_place", [True, False], ids=["list", "tuple"])
def test_the_log_is_as_before_after_the_test(in_place: bool) -> None:
    """Levels that were filtered are collected meanwhile, and filtered again afterwards, by the same processors."""
    seen = []

    def processor(logger: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        seen.append(event["event"])
        raise structlog.DropEvent

    original = structlog.get_config()
    processors = [processor] if in_place else (processor,)
    structlog.configure(processors=processors, wrapper_class=structlog.make_filtering_bound_logger(30))
    try:
        log = structlog.get_logger()
        bound = log.bind()
        with capture_logs() as logs:
            log.info("quiet")
            if in_place:
                bound.warning("bound before")
        log.info("quiet again")
        log.warning("loud")
        assert [entry["event"] for entry in logs] == ["quiet", "bound before"][: 1 + in_place]
        assert seen == ["loud"]
        assert structlog.get_config()["processors"] is processors
    finally:
        structlog.configure(**original)


def test_a_log_that_nobody_has_configured_is_so_after_the_test() -> None:
    """Structlog's defaults are asked for at each use until somebody configures it."""
    original, configured = structlog.get_config(), structlog.is_configured()
    structlog.reset_defaults()
    try:
        with capture_logs() as logs:
            structlog.get_logger().info("seen")
        assert logs.named("seen")
        assert not structlog.is_configured()
        assert len(structlog.get_config()["processors"]) > 1
    finally:
        if configured:
            structlog.configure(**original)


def test_a_wrapper_class_of_the_users_own_stays_in_place() -> None:
    """Loggers keep the methods that the app's code calls."""
    original = structlog.get_config()
    structlog.configure(wrapper_class=structlog.stdlib.BoundLogger, logger_factory=structlog.stdlib.LoggerFactory())
    try:
        with capture_logs() as logs:
            structlog.get_logger("here").info("name", name_is=structlog.get_logger("here").name)
        assert logs[0]["name_is"] == "here"
    finally:
        structlog.configure(**original)


def run_pytest(folder: Path, *options: str, **files: str) -> str:
    """Run pytest on files of a user's project, with the plugin as its installation registers it."""
    for name, text in files.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *options]
    command += ["-p", "starlette_sse.testing.plugin", str(folder)]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment(), check=False)
    return ran.stdout + ran.stderr


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


def test_the_virtual_clock_wins_over_the_projects_own_event_loops(tmp_path: Path) -> None:
    """A project whose tests run on both loops gets one run on the clock, and both for the other tests."""
    output = run_pytest(
        tmp_path,
        conftest="""
            import pytest

            @pytest.fixture(params=["asyncio", "trio"])
            def anyio_backend(request):
                return request.param
        """,
        test_them="""
            import anyio
            import pytest
            from trio.testing import MockClock

            pytestmark = pytest.mark.anyio

            async def test_on_both():
                await anyio.sleep(0)

            @pytest.mark.parametrize("hours", [1, 2])
            @pytest.mark.usefixtures("virtual_clock")
            async def test_virtual(hours):
                await anyio.sleep(hours * 3600)

            @pytest.mark.parametrize("anyio_backend", [("trio", {"clock": MockClock(rate=1000.0)})])
            async def test_on_a_clock_of_its_own(virtual_clock):
                assert virtual_clock.rate == 1000.0

            @pytest.mark.parametrize("anyio_backend", ["trio", ("trio", {})])
            async def test_on_no_clock(virtual_clock):
                pass
        """,
    )
    assert "5 passed, 2 errors" in output, output
    assert "the test asks for virtual_clock, but runs on the anyio_backend 'trio', which has none" in output, output


@pytest.mark.parametrize(
    "mark",
    [
        '"anyio_backend, n", [(BACKEND, 1)]',
        '("n", "anyio_backend"), [(1, BACKEND)]',
        'argnames="anyio_backend", argvalues=[BACKEND]',
    ],
)
def test_a_test_chooses_its_event_loop_in_any_way(tmp_path: Path, mark: str) -> None:
    """Pytest takes names in several forms."""
    printed = run_pytest(
        tmp_path,
        test_forms=f"""
            import pytest
            from starlette_sse.testing import virtual_backend
            BACKEND = virtual_backend("asyncio")
            @pytest.fixture
            def n():
                return 1
            @pytest.mark.parametrize({mark})
            async def test_virtual(virtual_clock, n, anyio_backend_name):
                assert anyio_backend_name == "asyncio"
            """,
    )
    assert "1 passed" in printed


def test_a_test_of_pytest_asyncio_cannot_have_the_virtual_clock(tmp_path: Path) -> None:
    """It would run on an event loop of its own, where hours take hours."""
    printed = run_pytest(
        tmp_path,
        "-p",
        "pytest_asyncio",
        test_marked="""
            import pytest
            @pytest.mark.asyncio
            async def test_virtual(virtual_clock): ...
            """,
    )
    assert "1 error" in printed
    assert "virtual_clock needs a test that anyio's pytest plugin runs, and pytest-asyncio runs this one" in printed


def test_a_project_chooses_the_event_loops_of_its_virtual_clock(tmp_path: Path) -> None:
    """An app that calls asyncio itself is tested on asyncio; the sample runs on both, within two seconds."""
    sample = Path(__file__).with_name("test_sample.py").read_text()
    output = run_pytest(
        tmp_path,
        "-o",
        "sse_virtual_clock=asyncio trio",
        "--durations=1",
        "--durations-min=2",
        test_sample=sample,
        test_asyncio="""
            import asyncio
            import pytest

            @pytest.mark.parametrize("hours", [1, 2])
            async def test_virtual(hours, virtual_clock, anyio_backend_name):
                if anyio_backend_name == "asyncio":
                    await asyncio.wait_for(asyncio.sleep(hours * 3600), hours * 3600 + 1)
        """,
    )
    assert "16 passed" in output, output


@pytest.mark.parametrize("anyio_backend", [virtual_backend("asyncio")], ids=["virtual"])
async def test_on_virtual_asyncio_a_thread_is_waited_for_where_no_timer_is(virtual_clock: VirtualClock) -> None:
    """Nothing is left to jump to, so the loop waits for what is under way outside of it."""
    assert await anyio.to_thread.run_sync(lambda: "done") == "done"
    before = virtual_clock.current_time()
    await anyio.sleep(3600)
    virtual_clock.jump(5)
    assert anyio.current_time() == pytest.approx(before + 3605)
    with pytest.raises(ValueError, match="backwards"):
        virtual_clock.jump(-1)


def test_a_virtual_clock_that_cannot_be_had_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test that asks for it is an error with the remedy, not skipped."""
    with pytest.raises(ConfigurationError, match="for trio and for asyncio, not for 'curio'"):
        virtual_backend("curio")
    with pytest.raises(ConfigurationError, match="runs on the anyio_backend 'asyncio', which has none"):
        clock_of("asyncio")
    monkeypatch.setitem(sys.modules, "trio.testing", None)
    with pytest.raises(MissingDependencyError, match=r"pip install .starlette_sse\[testing\].; or set"):
        virtual_backend("trio")


def test_the_fixtures_work_with_other_plugins_that_run_async_tests(tmp_path: Path) -> None:
    """The client needs a running event loop and nothing of the plugin that runs it."""
    output = run_pytest(
        tmp_path,
        conftest="""
            import asyncio
            import inspect
            import pytest

            @pytest.hookimpl(tryfirst=True)
            def pytest_pyfunc_call(pyfuncitem):
                names = inspect.signature(pyfuncitem.obj).parameters
                asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
                return True
        """,
        test_it="""
            from starlette.applications import Starlette
            from starlette.responses import StreamingResponse
            from starlette.routing import Route

            async def endpoint(request):
                async def events():
                    yield "data: one\\n\\n"
                return StreamingResponse(events(), media_type="text/event-stream")

            async def test_one(sse_client):
                async with sse_client(Starlette(routes=[Route("/", endpoint)])) as client, client.stream("/") as stream:
                    await stream.expect("one")
        """,
    )
    assert "1 passed" in output, output


def test_loading_the_plugin_imports_no_library_that_only_a_test_needs() -> None:
    """Pytest loads the plugin in every run of every project that has the package installed."""
    code = """
        import sys
        import starlette_sse.testing.plugin
        loaded = {"httpx", "httpx2", "trio", "starlette_sse.testing.client"} & sys.modules.keys()
        sys.exit(", ".join(loaded) or 0)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert ran.returncode == 0, ran.stderr


def test_every_name_of_the_kit_can_be_imported_and_no_other() -> None:
    """What is listed is there, also to those who look by dir(); a misspelt name is an ordinary error."""
    import starlette_sse.testing as kit

    assert all(getattr(kit, name).__name__ == name for name in kit.__all__)
    assert set(kit.__all__) <= set(dir(kit))
    with pytest.raises(AttributeError, match="no attribute 'SSETestCleint'"):
        _ = kit.SSETestCleint
    assert not hasattr(kit, "HOME")


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
def test_the_kit_needs_neither_httpx_nor_httpx2(library: str) -> None:
    """Everything can be imported without them; only who passes the transport to their client has one."""
    code = f"""
        import sys
        sys.modules[{library!r}] = None
        import starlette_sse.testing as kit
        for name in kit.__all__:
            getattr(kit, name)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, env=environment())
