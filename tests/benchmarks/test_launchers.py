"""Servers of every kind: what they publish, which processes count, and that none of them stays."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import psutil
import pytest

from benchmarks import loads
from benchmarks.catalogue import missing, running, versions
from benchmarks.clients import Body, deliveries
from benchmarks.launchers import Node, node
from benchmarks.launchers.uvicorn import Team
from benchmarks.loads import crowd_of, delivering, publish, tasks_of
from benchmarks.payload import told
from benchmarks.servers import Control, MissingPartError, ServerError, ServerOptions
from starlette_sse.decoding import EventDecoder
from tests.benchmarks.parts import require_parts_of

OTHERS = ["better-sse", "better-sse: batch", "nchan"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
@pytest.mark.parametrize("contestant", ["raw: direct", *OTHERS, "ours: 2 workers"])
@pytest.mark.parametrize("batch", [1, 3])
async def test_every_kind_of_server_publishes_the_same(contestant: str, batch: int) -> None:
    """What a client of any server gets has the same name and text, and the time of this machine's monotonic clock."""
    require_parts_of([contestant])
    async with running(contestant, ServerOptions()) as server, crowd_of(server) as crowd:
        await crowd.open(2)
        began = time.monotonic()
        await publish(server, crowd, batch, 2)
        ended = time.monotonic()
        latencies = crowd.check(2 * batch)
        pieces = crowd.clients[0].pieces
    assert len(latencies) == 4 * batch
    # Times are told in microseconds, rounded.
    assert all(began - 1e-6 <= event[1] <= came <= ended for event, came in deliveries(pieces))
    messages = EventDecoder().feed(Body().feed(b"".join(data for _, data in pieces)))
    events = [message for message in messages if told(message.data)]
    assert {message.type for message in events} == {"tick"}
    assert all(f'"text":"{"x" * 60}"' in message.data for message in events)


@pytest.mark.anyio
@pytest.mark.parametrize("contestant", OTHERS)
async def test_a_stream_that_was_left_is_no_longer_counted(contestant: str) -> None:
    """Servers without tasks tell their streams instead, so that a measurement can wait for the end of all."""
    require_parts_of([contestant])
    async with running(contestant, ServerOptions()) as server, crowd_of(server) as crowd:
        await crowd.open(5)
        assert await tasks_of(server) == 5
        await crowd.close()
        give_up = time.monotonic() + 20
        while await tasks_of(server):
            assert time.monotonic() < give_up
            await asyncio.sleep(0.01)


@pytest.mark.anyio
async def test_nginx_is_measured_with_its_worker() -> None:
    """The master opens the port before there is one, and does none of the work."""
    require_parts_of(["nchan"])
    async with running("nchan", ServerOptions()) as server, crowd_of(server) as crowd:
        assert len(server.control.pids) == 2
        before = server.cpu()
        await crowd.open(20)
        assert server.cpu() > before


def stopped_process() -> subprocess.Popen[bytes]:
    """Return a process that takes no time at all."""
    process = subprocess.Popen(["sleep", "60"])
    process.send_signal(signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)
    return process


@pytest.mark.anyio
async def test_a_measurement_of_the_wrong_process_fails() -> None:
    """A figure of nothing is no figure."""
    async with running("raw: direct", ServerOptions()) as server:
        bystander = stopped_process()
        try:
            control = cast(Control, SimpleNamespace(pids=[bystander.pid], tell=server.control.tell))
            with pytest.raises(ServerError, match="another process does its work"):
                await delivering(replace(server, control=control), connections=20, batch=1, rounds=1)
        finally:
            bystander.kill()
            bystander.wait()


@pytest.mark.anyio
async def test_an_event_from_one_worker_reaches_the_clients_of_all() -> None:
    """Connections to the one port are spread over the workers, and the figures are those of all of them."""
    require_parts_of(["ours: 2 workers"])
    async with running("ours: 2 workers", ServerOptions()) as server, crowd_of(server) as crowd:
        assert isinstance(server.control, Team)
        before = [await worker.tell("count") for worker in server.control.workers]
        assert await tasks_of(server) == sum(count["tasks"] for count in before)
        await crowd.open(60)
        after = [await worker.tell("count") for worker in server.control.workers]
        assert all(more["tasks"] - had["tasks"] > 10 for had, more in zip(before, after, strict=True))
        await publish(server, crowd, 1, 2)
        crowd.check(2)


@pytest.mark.anyio
@pytest.mark.parametrize(("contestant", "count", "beside"), [("ours: 4 workers", 4, ["redis"]), ("nchan", 2, [])])
async def test_every_process_of_a_server_counts_and_ends(contestant: str, count: int, beside: list[str]) -> None:
    """A server's CPU and memory are those of all its processes; what it leans on is told apart; nothing stays."""
    require_parts_of([contestant])
    async with running(contestant, ServerOptions()) as server:
        pids = server.control.pids
        assert len(set(pids)) == count
        assert list(server.beside) == list(server.cpu_beside()) == beside
        processes = [psutil.Process(pid) for pid in pids]
        assert server.resident() > 0.5 * sum(process.memory_full_info().uss for process in processes)
        assert server.cpu() == pytest.approx(sum(sum(process.cpu_times()[:2]) for process in processes), abs=0.2)
        metrics = await loads.delivering(server, connections=5, batch=1, rounds=2)
    assert all(metrics[name] > 0 for name in beside)
    assert not any(psutil.pid_exists(pid) for pid in [*pids, *server.beside.values()])


@pytest.mark.anyio
async def test_what_a_server_cannot_do_is_an_error() -> None:
    """A load for servers of another kind fails by name."""
    require_parts_of(["nchan"])
    async with running("nchan", ServerOptions()) as server:
        with pytest.raises(ServerError, match="nchan cannot drain"):
            await server.tell("drain")


@pytest.mark.anyio
async def test_a_program_that_does_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration that nginx refuses ends the measurement at once."""
    require_parts_of(["nchan"])
    monkeypatch.setattr("benchmarks.launchers.nginx.MODULE", Path("/nowhere.so"))
    with pytest.raises(ServerError, match="nchan does not start"):
        async with running("nchan", ServerOptions()):
            pass


def test_the_parts_are_named_with_their_versions() -> None:
    """Figures say which Node.js, better-sse, nginx, Nchan and Redis they are of."""
    require_parts_of(["better-sse", "nchan", "ours: 2 workers"])
    told = versions(["better-sse", "nchan", "ours: 2 workers", "ours: channel", "no server"])
    assert list(told) == ["node", "better-sse", "nginx", "nchan", "redis-server"]
    assert all(version[0].isdigit() for version in told.values())


@pytest.mark.parametrize(
    ("contestant", "remedy"),
    [("better-sse", "nodejs"), ("nchan", "nginx"), ("ours: 2 workers", "redis-server")],
    ids=str,
)
def test_a_missing_program_is_named_with_its_package(
    contestant: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever lacks something reads what to install; contestants that need nothing are not missing."""
    monkeypatch.setattr("shutil.which", lambda program, **options: None)
    reasons = missing([contestant, "ours: channel", "no server"])
    assert list(reasons) == [contestant]
    assert f"apt-get install {remedy})" in reasons[contestant]


def test_a_missing_module_of_nginx_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nginx alone is not enough."""
    require_parts_of(["nchan"])
    monkeypatch.setattr("benchmarks.launchers.nginx.MODULE", Path("/nowhere.so"))
    assert "apt-get install libnginx-mod-nchan)" in missing(["nchan"])["nchan"]


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    """Give better-sse's launcher for a directory in which nothing is installed yet."""
    require_parts_of(["better-sse"])
    shutil.copytree(node.CONTESTANTS / "better_sse", tmp_path / "copy", ignore=shutil.ignore_patterns("node_modules"))
    monkeypatch.setattr("benchmarks.launchers.node.CONTESTANTS", tmp_path)
    return Node("copy", "better-sse")


def test_what_the_lock_file_names_is_installed_once(copied: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Npm is asked for what is not there or is another version, and not again."""
    copied.prepare()
    manifest = node.CONTESTANTS / "copy" / "node_modules" / "better-sse" / "package.json"
    installed = manifest.read_text()
    manifest.write_text('{"version": "0.0.1"}')
    copied.prepare()
    assert manifest.read_text() == installed
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9")
    copied.prepare()


def test_a_package_that_npm_cannot_install_is_missing(
    copied: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a network, or what it has fetched before, the contestant is left out in npm's own words."""
    monkeypatch.setenv("npm_config_offline", "true")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "cache"))
    with pytest.raises(MissingPartError, match=r"(?s)npm could not install better-sse: .*ENOTCACHED"):
        copied.prepare()


def test_the_lock_file_names_no_registry() -> None:
    """The package comes from whichever registry the machine's npm is configured for."""
    assert "resolved" not in (node.CONTESTANTS / "better_sse" / "package-lock.json").read_text()
