"""Ways to a Redis server other than a plain TCP connection: TLS, and a socket of the file system."""

from __future__ import annotations

import inspect
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest
from redis.asyncio.connection import SSLConnection

from starlette_sse.broker import Broker
from starlette_sse.broker.redis.connections import Connections
from starlette_sse.exceptions import BrokerUnavailableError, ConfigurationError
from tests.broker.reading import publish_together, texts
from tests.broker.redis_server import RedisServer, running
from tests.certificates import AUTHORITY, CERTIFICATE, KEY, issue
from tests.servers.processes import free_port
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


class Ways:
    """A server and the URLs that lead to it."""

    def __init__(self, server: RedisServer, directory: Path, port: int) -> None:
        self.server = server
        self.directory = directory
        self.port = port
        self.socket = f"unix://{directory / 'socket'}?db=0"

    def tls(self, host: str = "127.0.0.1", **options: str) -> str:
        """Return the way by TLS; the options are of the URL, and files of the test's folder."""
        query = "&".join(f"{name}={self.directory / value}" for name, value in options.items())
        return f"rediss://{host}:{self.port}/0?{query}"


@pytest.fixture
def ways(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Ways]:
    """Start a server that speaks TLS to whoever asks; a parameter says whether clients need a certificate."""
    issue(tmp_path)
    port = free_port()
    with running(
        tmp_path,
        *(
            "--bind",
            "127.0.0.1 127.0.0.2",
            "--tls-port",
            str(port),
            "--tls-auth-clients",
            getattr(request, "param", "no"),
        ),
        *("--tls-cert-file", CERTIFICATE, "--tls-key-file", KEY, "--tls-ca-cert-file", AUTHORITY),
        *("--unixsocket", "socket", "--appendonly", "yes", "--appendfsync", "always"),
    ) as server:
        yield Ways(server, tmp_path, port)


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_server_that_greets_nobody_keeps_no_connection(cancelled: bool) -> None:
    """Whether its time is over, or the broker's: what was opened is closed."""
    ended, greeted = anyio.Event(), anyio.Event()

    async def be_silent(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            async for _ in stream:
                greeted.set()
        ended.set()

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as server, anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, be_silent)
        port = server.extra(anyio.abc.SocketAttribute.local_port)
        connections = Connections(f"redis://127.0.0.1:{port}/0", timeout=60 if cancelled else 0.3)
        connections.open()
        kept: list[BaseException] = []
        with anyio.CancelScope() as scope:
            if cancelled:
                tasks.start_soon(cancel_behind, greeted, scope)
            try:
                await connections.listener()
            except BaseException as exc:
                # Nor does it wait for the collector, which finds it when nobody keeps the error.
                kept.append(exc)
                if cancelled:
                    raise
        assert isinstance(kept[0], BrokerUnavailableError) is not cancelled
        with anyio.fail_after(10):
            await ended.wait()
        await connections.close()
        tasks.cancel_scope.cancel()


async def cancel_behind(event: anyio.Event, scope: anyio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


@pytest.mark.parametrize("way", ["tls", "socket"])
async def test_events_come_and_an_outage_is_survived(ways: Ways, way: str) -> None:
    """As over any connection: nothing is lost, and what was missed is read again."""
    url = ways.socket if way == "socket" else ways.tls(ssl_ca_certs=AUTHORITY)
    async with Broker(url, observers=()) as broker, Broker(ways.server.url, observers=()) as other:
        async with broker.subscribe("a") as subscription:
            await broker.publish("a", "one")
            await other.publish("a", "two")
            assert await texts(subscription, 2) == ["one", "two"]
            ways.server.kill()
            with pytest.raises(BrokerUnavailableError):
                await broker.publish("a", "nowhere")
            ways.server.start()
            await until(lambda: broker.health().ok and other.health().ok)
            await other.publish("a", "three")
            assert await texts(subscription, 1) == ["three"]


@pytest.mark.parametrize("ways", ["yes"], indirect=True)
async def test_a_server_may_want_a_certificate_of_its_clients(ways: Ways) -> None:
    """It is given the one that the URL names."""
    url = ways.tls(ssl_ca_certs=AUTHORITY, ssl_certfile=CERTIFICATE, ssl_keyfile=KEY)
    async with Broker(url, observers=()) as broker, broker.subscribe("a") as subscription:
        await broker.publish("a", "one")
        assert await texts(subscription, 1) == ["one"]


@pytest.mark.parametrize(
    ("host", "options", "why"),
    [
        ("127.0.0.1", {}, "self-signed certificate in certificate chain"),
        ("127.0.0.2", {"ssl_ca_certs": AUTHORITY}, "IP address mismatch"),
    ],
    ids=["an unknown authority", "another's certificate"],
)
async def test_a_server_that_is_not_trusted_ends_the_start(
    ways: Ways, host: str, options: dict[str, str], why: str
) -> None:
    """As a wrong password does, and the error says what to do."""
    with pytest.raises(BrokerUnavailableError, match=rf"is not trusted: .*{why}.*\?ssl_ca_certs=<file> says") as caught:
        async with Broker(ways.tls(host, **options), observers=()):
            raise AssertionError("it started")
    assert not caught.value.in_doubt


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"ssl_ca_certs": "missing.pem"}, r"ssl_ca_certs=.*missing\.pem\): .*No such file"),
        ({"ssl_certfile": CERTIFICATE, "ssl_keyfile": "missing.key"}, r"missing\.key.*\): .*No such file"),
        ({"ssl_certfile": KEY, "ssl_keyfile": KEY}, r"ssl_certfile=.*server\.key"),
        ({"ssl_cert_reqs": "nonsense"}, "nonsense"),
    ],
    ids=str,
)
async def test_files_that_cannot_be_used_are_named_before_anything_connects(
    ways: Ways, options: dict[str, str], why: str
) -> None:
    if "ssl_password" in inspect.signature(SSLConnection).parameters:
        options = {**options, "ssl_password": "secret"}
    with pytest.raises(ConfigurationError, match=f"asks for TLS that cannot be had .*{why}") as caught:
        async with Broker(ways.tls(**options), observers=()):
            raise AssertionError("it started")
    assert "secret" not in str(caught.value)


async def test_any_certificate_will_do_for_who_says_so(ways: Ways) -> None:
    """As redis-py has it, for a server that cannot be given one that is trusted."""
    async with Broker(f"rediss://127.0.0.2:{ways.port}/0?ssl_cert_reqs=none", observers=()) as broker:
        await broker.publish("a", "one")


async def test_certificates_are_read_once(ways: Ways, monkeypatch: pytest.MonkeyPatch) -> None:
    """To read the system's keeps the event loop, and all its streams, for tens of milliseconds."""
    made: list[ssl.SSLContext] = []
    make = ssl.create_default_context

    def watched(*args: Any, **options: Any) -> ssl.SSLContext:
        made.append(make(*args, **options))
        return made[-1]

    monkeypatch.setattr(ssl, "create_default_context", watched)
    async with Broker(ways.tls(ssl_ca_certs=AUTHORITY), observers=()) as broker:
        assert len(await publish_together(broker, broker, 50)) == 50
        assert ways.server.command("CLIENT", "LIST").count(b"\n") > 5
    assert len(made) == 1
