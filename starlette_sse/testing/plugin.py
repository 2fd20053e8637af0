"""Pytest's fixtures: the client, a clock on which waiting takes no time, and the log.

They need no configuration and leave no state behind. Test functions may be run by anyio's pytest plugin, which is
installed with anyio, by pytest-asyncio or by pytest-trio.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from starlette_sse.exceptions import ConfigurationError, MissingDependencyError

if TYPE_CHECKING:
    from starlette_sse.testing import SSETestClient
    from starlette_sse.testing.logs import CapturedLogs

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
def virtual_clock(anyio_backend: Any) -> Any:
    """Run the test on trio with a clock that jumps whenever everybody waits, so that hours take no time.

    Ask for it in a test, or by ``pytestmark = pytest.mark.usefixtures("virtual_clock")`` in a module. It is trio's
    :class:`~trio.testing.MockClock`, and its time is ``anyio.current_time()``. Such a test must not wait for a thread,
    a socket or a process.
    """
    clock = anyio_backend[1].get("clock") if isinstance(anyio_backend, tuple) else None
    if clock is None:
        raise ConfigurationError(
            "the test asks for virtual_clock and chooses an anyio_backend without one; leave out either, or choose "
            '("trio", {"clock": MockClock(autojump_threshold=0)})'
        )
    return clock


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests that ask for the virtual clock on it, whatever event loops the others run on."""
    chosen = any(marker.args[:1] == ("anyio_backend",) for marker in metafunc.definition.iter_markers("parametrize"))
    if "virtual_clock" in metafunc.fixturenames and not chosen:
        backend = pytest.param(virtual_backend(), id="virtual")
        metafunc.definition.add_marker(pytest.mark.parametrize("anyio_backend", [backend]))


def virtual_backend() -> tuple[str, dict[str, Any]]:
    try:
        from trio.testing import MockClock  # noqa: PLC0415 - trio is optional
    except ModuleNotFoundError as error:
        raise MissingDependencyError("the virtual_clock fixture needs trio: pip install trio") from error
    return "trio", {"clock": MockClock(autojump_threshold=0)}
