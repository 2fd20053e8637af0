"""What every test may ask for: both event loops, and real parts that are never silently missing."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.servers.processes import heed_interrupts

__all__ = ["on_ci", "require"]


def on_ci() -> bool:
    """Tell whether this run must prove everything: the environment variable ``CI`` is set and not a no."""
    return os.environ.get("CI", "").lower() not in {"", "0", "false", "no"}


def require(binary: str) -> str:
    """Return the path of a program that a test runs for real.

    Where it is missing, the test fails under ``CI=true`` and is skipped elsewhere; the end of the run lists what was
    skipped and why.
    """
    path = shutil.which(
        binary, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])
    )
    if path is not None:
        return path
    reason = f"{binary} is not installed; scripts/test installs it where it may"
    if on_ci():
        pytest.fail(reason)
    pytest.skip(reason)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("soak", "soaking the package: scripts/test tests/soak -s")
    group.addoption("--soak-minutes", type=float, default=0.3, help="how long each soak goes on, in minutes")
    group.addoption("--soak-seed", type=int, default=1, help="the plan of what goes wrong")


def pytest_configure() -> None:
    heed_interrupts()


@pytest.fixture(params=[pytest.param("asyncio", id="asyncio"), pytest.param("trio", id="trio")])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run a test marked ``anyio`` once on each event loop."""
    backend: str = request.param
    return backend


@pytest.fixture(params=["asyncio", "uvloop"])
def asyncio_or_uvloop(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """What ``anyio_backend`` is for tests of uvicorn, which runs on nothing else."""
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@pytest.fixture(params=["h11", "httptools"])
def protocol(request: pytest.FixtureRequest) -> str:
    """What uvicorn reads and writes HTTP with."""
    name: str = request.param
    return name


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in one line that this run proved less than it could."""
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        terminalreporter.write_line(
            f"{len(skipped)} tests were skipped: what they promise was not proven by this run.", yellow=True
        )
