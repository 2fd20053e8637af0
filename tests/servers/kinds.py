"""The servers that the package is proven on, and what each one lets an app do when it is told to stop."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from signal import SIGINT, SIGTERM, Signals

from tests.certificates import CERTIFICATE, KEY

__all__ = ["APP", "KINDS", "Kind"]

APP = "tests.servers.app:app"

#: asyncio's ``Server.wait_closed`` waits for connections, and hypercorn 0.18 calls it before it cancels its apps
#: (https://github.com/pgjones/hypercorn/issues/308).
CLOSING_WAITS = sys.version_info >= (3, 12, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One way to run a server, and how its streams end by its stop signal.

    :param longest_stop: how many seconds it may take.
    :param farewell: the client gets the drain event and a complete body. Not so where the server cancels its apps
        before they can know, or never tells them.
    :param farewell_behind_middleware: so it is for streams behind a ``BaseHTTPMiddleware``.
    :param reason: what ``on_disconnect`` is given.
    :param lifespan: the server runs the app's lifespan.
    :param waits_for_clients: the server waits until its streams' clients have left, without a bound or for very long.
    :param cuts: an error that leaves the app cuts the body.
    :param own_tasks: the server's tasks, not the app's, that exist only at shutdown.
    :param tls: it speaks TLS, with the certificate that is in the folder that it runs in.
    """

    name: str
    command: tuple[str, ...]
    workers: int = 1
    signal: Signals = SIGTERM
    longest_stop: float = 2.0
    farewell: bool = True
    farewell_behind_middleware: bool = True
    reason: str = "draining"
    lifespan: bool = True
    waits_for_clients: bool = False
    cuts: bool = True
    own_tasks: frozenset[str] = frozenset()
    tls: bool = False

    def __str__(self) -> str:
        return self.name

    def argv(self, port: int) -> list[str]:
        return [sys.executable, "-m", *(part.format(port=port) for part in self.command)]


def uvicorn(*options: str) -> tuple[str, ...]:
    return ("uvicorn", APP, "--port", "{port}", "--no-access-log", *options)


def hypercorn(*options: str) -> tuple[str, ...]:
    return ("hypercorn", APP, "--bind", "127.0.0.1:{port}", *options)


def granian(*options: str) -> tuple[str, ...]:
    return ("granian", APP, "--interface", "asgi", "--port", "{port}", *options)


UVICORN_TLS = ("--ssl-certfile", CERTIFICATE, "--ssl-keyfile", KEY)

KINDS = (
    Kind(name="uvicorn-h11-asyncio", command=uvicorn("--http", "h11", "--loop", "asyncio")),
    Kind(name="uvicorn-h11-uvloop", command=uvicorn("--http", "h11", "--loop", "uvloop")),
    Kind(name="uvicorn-httptools-asyncio", command=uvicorn("--http", "httptools", "--loop", "asyncio")),
    Kind(name="uvicorn-httptools-uvloop", command=uvicorn("--http", "httptools", "--loop", "uvloop")),
    # A client that does not answer TLS's end, as one that reads nothing, gets the grace of the drain.
    Kind(
        name="uvicorn-h11-tls",
        command=uvicorn("--http", "h11", "--loop", "asyncio", *UVICORN_TLS),
        longest_stop=7.0,
        tls=True,
    ),
    Kind(
        name="uvicorn-uvloop-tls",
        command=uvicorn("--http", "httptools", "--loop", "uvloop", *UVICORN_TLS),
        longest_stop=7.0,
        tls=True,
    ),
    Kind(name="uvicorn-sigint", command=uvicorn(), signal=SIGINT),
    Kind(name="uvicorn-workers", command=uvicorn("--workers", "2"), workers=2),
    Kind(
        name="gunicorn",
        command=("gunicorn", APP, "--bind", "127.0.0.1:{port}", "-k", "uvicorn_worker.UvicornWorker"),
    ),
    Kind(name="hypercorn-asyncio-in-process", command=hypercorn("-k", "asyncio", "-w", "0")),
    # It waits the 30 seconds that asyncio gives a client to answer TLS's end.
    Kind(
        name="hypercorn-tls",
        command=hypercorn("-k", "asyncio", "-w", "0", "--certfile", CERTIFICATE, "--keyfile", KEY),
        waits_for_clients=True,
        tls=True,
    ),
    # Trio leaves SIGTERM to the system, which ends the process at once, so in one process only SIGINT is a stop.
    Kind(name="hypercorn-trio-in-process", command=hypercorn("-k", "trio", "-w", "0"), signal=SIGINT),
    # Hypercorn's worker processes get no signal: their streams are cancelled when --graceful-timeout, a whole number of
    # seconds, has passed.
    Kind(
        name="hypercorn-asyncio-worker",
        command=hypercorn("-k", "asyncio", "--graceful-timeout", "1"),
        farewell=False,
        reason="client_gone" if CLOSING_WAITS else "cancelled",
        longest_stop=3.0,
        waits_for_clients=CLOSING_WAITS,
    ),
    Kind(
        name="hypercorn-trio-worker",
        command=hypercorn("-k", "trio", "--graceful-timeout", "1"),
        farewell=False,
        reason="cancelled",
        longest_stop=3.0,
    ),
    Kind(
        name="granian-asyncio", command=granian("--loop", "asyncio"), own_tasks=frozenset({"LifespanProtocol.shutdown"})
    ),
    Kind(
        name="granian-uvloop", command=granian("--loop", "uvloop"), own_tasks=frozenset({"LifespanProtocol.shutdown"})
    ),
    # Daphne cancels all apps right after the signal; what BaseHTTPMiddleware holds between it and a stream is lost.
    Kind(
        name="daphne",
        command=("daphne", "-p", "{port}", "-v", "0", APP),
        farewell_behind_middleware=False,
        lifespan=False,
        cuts=False,
    ),
)
