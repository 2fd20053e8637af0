"""A client that vanishes without a farewell is noticed in seconds.

To vanish, a client drops whatever its kernel receives for it before TCP has seen it: it acknowledges nothing, answers
no probe and sends no reset, as if its cable had been pulled.
"""

from __future__ import annotations

import ctypes
import json
import socket
import struct
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import anyio
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from starlette_sse import CloseReason, ConfigurationError, SSEEndpoint
from starlette_sse.sockets import KEEPALIVE_IDLE, listening_socket
from tests.conftest import on_ci
from tests.servers.processes import eventually

#: From linux/socket.h; the socket module does not have it.
SO_ATTACH_FILTER = 26

RETURN = 0x06


def vanish(client: socket.socket) -> None:
    """Make the kernel drop every packet for ``client``, by a filter of one instruction: keep 0 bytes."""
    instruction = ctypes.create_string_buffer(struct.pack("=HBBI", RETURN, 0, 0, 0))
    program = struct.pack("@HP", 1, ctypes.addressof(instruction))
    client.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


@pytest.fixture(autouse=True)
def _on_linux() -> None:
    if sys.platform != "linux":
        reason = "only Linux has the packet filter that makes a client vanish"
        pytest.fail(reason) if on_ci() else pytest.skip(reason)


class Quiet(SSEEndpoint):
    """Sends nothing after its opening, or pings and large events as the query says; notes when and why it ended."""

    observers = ()
    send_timeout = None
    ends: ClassVar[dict[str, tuple[float, CloseReason]]] = {}

    async def on_connect(self, request: Request) -> None:
        ping = request.query_params.get("ping")
        self.ping_interval = float(ping) if ping else None

    async def events(self, request: Request) -> AsyncIterator[Any]:
        while "flood" in request.query_params:
            yield "x" * 65536
        await anyio.sleep_forever()
        yield ""

    async def on_disconnect(self, request: Request, reason: CloseReason) -> None:
        self.ends[request.query_params["name"]] = (time.monotonic(), reason)


@contextmanager
def serving(listener: socket.socket) -> Iterator[int]:
    """Run uvicorn on ``listener`` in a thread."""
    config = uvicorn.Config(Starlette(routes=[Route("/", Quiet)]), log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = server.force_exit = True
        thread.join(10)
        listener.close()
        assert not thread.is_alive()


@contextmanager
def opened(port: int, query: str) -> Iterator[socket.socket]:
    """Open a stream and read its opening."""
    with socket.create_connection(("127.0.0.1", port), 5) as client:
        client.sendall(f"GET /?{query} HTTP/1.1\r\nHost: test\r\nAccept: text/event-stream\r\n\r\n".encode())
        received = b""
        while b": open" not in received:
            received += client.recv(65536)
        yield client


def test_a_vanished_client_is_noticed_in_seconds() -> None:
    """By probes if the stream is idle, by its pings if not; without the options it would be neither."""
    Quiet.ends.clear()
    plain = listening_socket("127.0.0.1", 0, keepalive=None, user_timeout=None)
    careful = listening_socket("127.0.0.1", 0, keepalive=1.0, user_timeout=2.0)
    with serving(plain) as plain_port, serving(careful) as careful_port:
        with (
            opened(plain_port, "name=plain&ping=0.3") as unnoticed,
            opened(careful_port, "name=idle") as idle,
            opened(careful_port, "name=pinging&ping=0.3") as pinging,
            opened(careful_port, "name=there"),
        ):
            time.sleep(0.5)
            for client in (unnoticed, idle, pinging):
                vanish(client)
            vanished = time.monotonic()
            eventually(lambda: {"idle", "pinging"} <= Quiet.ends.keys(), patience=8.0)
            assert Quiet.ends.keys() == {"idle", "pinging"}
            for when, reason in Quiet.ends.values():
                assert reason is CloseReason.CLIENT_GONE
                assert 0.5 < when - vanished < 6.0


def test_a_client_that_reads_nothing_does_not_keep_its_connection() -> None:
    """Its window stays closed for longer than the timeout, though its kernel answers."""
    Quiet.ends.clear()
    with serving(listening_socket("127.0.0.1", 0, keepalive=1.0, user_timeout=2.0)) as port:
        with opened(port, "name=stalled&flood=1"):
            began = time.monotonic()
            eventually(lambda: "stalled" in Quiet.ends, patience=8.0)
            when, reason = Quiet.ends["stalled"]
            assert reason is CloseReason.CLIENT_GONE
            assert 1.0 < when - began < 8.0


@pytest.mark.parametrize(
    ("times", "inherited"),
    [
        ({}, [10, 3, 3, 20_000]),
        ({"keepalive": 9.0, "user_timeout": 17.5}, [9, 3, 3, 17_500]),
        ({"keepalive": 1, "user_timeout": 0.001}, [1, 1, 3, 1]),
        ({"keepalive": 32767, "user_timeout": 2147483}, [32767, 10922, 3, 2147483000]),
        ({"keepalive": 10.9, "user_timeout": 1.001}, [11, 4, 3, 1001]),
    ],
    ids=str,
)
def test_a_connection_inherits_the_options(times: dict[str, Any], inherited: list[int]) -> None:
    """What is set on the listener holds for whom it accepts: what was given, rounded to the kernel's units."""
    with listening_socket("127.0.0.1", 0, **times) as listener:
        with socket.create_connection(listener.getsockname()):
            accepted, _ = listener.accept()
            with accepted:
                assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                tcp = [socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT]
                assert [accepted.getsockopt(socket.IPPROTO_TCP, option) for option in tcp] == inherited


@pytest.mark.parametrize(("options", "waiting"), [({}, 2048), ({"backlog": 7}, 7)], ids=str)
def test_so_many_connections_may_wait_to_be_accepted(options: dict[str, int], waiting: int) -> None:
    """As many as were asked for, unless the kernel allows fewer."""
    allowed = int(Path("/proc/sys/net/core/somaxconn").read_text())
    with listening_socket("127.0.0.1", 0, **options) as listener:
        information = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
    # Of a socket that listens, tcpi_sacked is the length of its queue.
    assert struct.unpack_from("=I", information, 28) == (min(waiting, allowed),)


def test_a_socket_can_be_inherited_and_its_port_taken_again() -> None:
    """A server may be started with its number, and restarted without waiting."""
    with listening_socket("127.0.0.1", 0) as listener:
        assert listener.get_inheritable()
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            listener.accept()[0].close()
    with listening_socket("127.0.0.1", port) as again:
        assert again.getsockname()[1] == port


def test_an_ipv6_address_is_listened_on_as_such() -> None:
    """The family is the address's."""
    try:
        with listening_socket("::1", 0) as listener:
            assert listener.family == socket.AF_INET6
    except OSError as exc:
        pytest.skip(f"this machine has no IPv6 loopback: {exc}")


def test_the_last_port_is_one() -> None:
    """On an address that nobody else has."""
    with listening_socket("127.0.0.65", 65_535) as listener:
        assert listener.getsockname() == ("127.0.0.65", 65_535)


@pytest.mark.parametrize(
    "parameters",
    [
        {"keepalive": 0},
        {"keepalive": 0.5},
        {"keepalive": 32_768},
        {"keepalive": "10"},
        {"keepalive": True},
        {"user_timeout": 0},
        {"user_timeout": "20"},
        {"user_timeout": True},
        {"user_timeout": -1},
        {"user_timeout": float("inf")},
        {"user_timeout": 2_147_484},
        {"user_timeout": 0.0001},
        {"port": 65_536},
        {"port": -1},
        {"port": "http"},
        {"port": True},
    ],
    ids=json.dumps,
)
def test_a_time_or_port_that_cannot_work_is_refused(parameters: dict[str, Any]) -> None:
    """By name, before anything listens."""
    with pytest.raises(ConfigurationError, match=rf"^{next(iter(parameters))} must be"):
        listening_socket("127.0.0.1", **{"port": 0, **parameters})


def test_an_address_that_is_taken_is_an_error() -> None:
    """And leaves no socket behind."""
    with listening_socket("127.0.0.1", 0) as listener:
        with pytest.raises(OSError, match="in use"):
            listening_socket("127.0.0.1", listener.getsockname()[1])


@pytest.mark.parametrize(("option", "remedy"), [("TCP_USER_TIMEOUT", "user_timeout"), (KEEPALIVE_IDLE, "keepalive")])
def test_a_system_without_the_option_says_so(monkeypatch: pytest.MonkeyPatch, option: str, remedy: str) -> None:
    """With the remedy; a promise that the kernel cannot keep is not given."""
    monkeypatch.delattr(socket, option)
    with pytest.raises(ConfigurationError, match=f"{remedy}=None"):
        listening_socket("127.0.0.1", 0)
    without: dict[str, Any] = {remedy: None}
    listening_socket("127.0.0.1", 0, **without).close()
