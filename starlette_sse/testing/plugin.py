"""Pytest's fixtures: the client, a clock on which waiting takes no time, and the log.

They need no configuration and leave no state behind. Test functions may be run by anyio's pytest plugin, which is
installed with anyio, by pytest-asyncio or by pytest-trio.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from starlette_sse.testing import SSETestClient
    from starlette_sse.testing.logs import CapturedLogs
    from starlette_sse.testing.virtual_time import VirtualClock

__all__ = ["sse_client", "sse_logs", "virtual_clock"]


@pytest.fixture
def sse_client() -> Callable[..., SSETestClient]:
    """Make test clients: ``async with sse_client(app) as client``; parameters as :class:`SSETestClient`'s."""
    from starlette_sse.testing import SSETestClient  # noqa: PLC0415 - pytest loads this module in every run

    return SSETestClient


@pytest.fixture
def sse_logs() -> Iterator[CapturedLogs]:
    """Collect what is logged by structlog during the test: ``sse_logs.named("stream.closed")``."""
    from starlette_sse.testing.logs import capture_logs  # noqa: PLC0415 - pytest loads this module in every run

    with capture_logs() as logs:
        yield logs


@pytest.fixture
def virtual_clock(request: pytest.FixtureRequest, anyio_backend: Any) -> VirtualClock:
    """Run the test on a clock that jumps to the next timer whenever everybody waits, so that hours take no time.

    Ask for it in a test, or by ``pytestmark = pytest.mark.usefixtures("virtual_clock")`` in a module. The test runs on
    trio, with its :class:`~trio.testing.MockClock`, or on the event loops that the option ``sse_virtual_clock`` of
    pytest's configuration names. The clock's time is ``anyio.current_time()``. It stands still while a worker thread is
    at work (of anyio, of a plain ``def`` hook or iterator, of an asyncio executor), up to three seconds of real time;
    do not wait for sockets or processes on it, as it jumps meanwhile.

    :raises ConfigurationError: pytest-asyncio runs the test, on an event loop of its own.
    """
    from starlette_sse.exceptions import ConfigurationError  # noqa: PLC0415 - pytest loads this module in every run
    from starlette_sse.testing.virtual_time import clock_of  # noqa: PLC0415 - as above

    if type(request.node).__module__.partition(".")[0] == "pytest_asyncio":
        raise ConfigurationError(
            "virtual_clock needs a test that anyio's pytest plugin runs, and pytest-asyncio runs this one: mark it by "
            "pytest.mark.anyio in place of pytest.mark.asyncio, and leave pytest-asyncio in its strict mode"
        )
    return clock_of(anyio_backend)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a project choose the event loops of its virtual clock."""
    parser.addini("sse_virtual_clock", "the event loops of the fixture virtual_clock", type="args", default=["trio"])


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests that ask for the virtual clock on it, whatever event loops the others run on."""
    chosen = any("anyio_backend" in names_of(mark) for mark in metafunc.definition.iter_markers("parametrize"))
    if "virtual_clock" in metafunc.fixturenames and not chosen:
        from starlette_sse.testing.virtual_time import virtual_backend  # noqa: PLC0415 - as above

        names = metafunc.config.getini("sse_virtual_clock")
        backends = [pytest.param(virtual_backend(name), id=f"virtual-{name}") for name in names]
        metafunc.definition.add_marker(pytest.mark.parametrize("anyio_backend", backends))


def names_of(parametrize: pytest.Mark) -> list[str]:
    """Return the names of the parameters that a mark gives."""
    names = parametrize.args[0] if parametrize.args else parametrize.kwargs.get("argnames", ())
    return [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
