"""Nchan, the publish-subscribe module of nginx; events are published to it over HTTP from this process."""

from __future__ import annotations

import asyncio
import os
import re
import resource
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.contestants import Terms
from benchmarks.launchers.programs import find, free_port, serving, version_of
from benchmarks.payload import CHANNEL, NAME, text
from benchmarks.servers import MissingPartError, Server, ServerError, ServerOptions

__all__ = ["Nginx"]

#: Where Debian puts it.
MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")

#: As many events are kept, and as long, as the broker's defaults say.
CONFIGURATION = """
load_module {module};
daemon off;
{user}
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr;
events {{
    worker_connections {files};
}}
http {{
    access_log off;
    keepalive_requests 1000000;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        nchan_channel_id {channel};
        location = / {{
            nchan_subscriber eventsource;
            nchan_subscriber_first_message newest;
            nchan_eventsource_event {event};
            nchan_eventsource_ping_interval {ping:g};
            nchan_eventsource_ping_comment ping;
            nchan_eventsource_ping_event "";
        }}
        location = /publish {{
            nchan_publisher;
            nchan_message_buffer_length 1000;
            nchan_message_timeout 5m;
        }}
    }}
}}
"""


@dataclass(frozen=True)
class Nginx:
    """Runs nginx with one worker process."""

    def prepare(self) -> None:
        find("nginx", "nginx")
        if not MODULE.exists():
            raise MissingPartError("nginx's module Nchan is not installed (Debian: apt-get install libnginx-mod-nchan)")

    def versions(self) -> dict[str, str]:
        told = version_of("dpkg-query", "--show", "--showformat=${Version}", "libnginx-mod-nchan")
        return {"nginx": version_of(find("nginx", "nginx"), "-v"), "nchan": told}

    @asynccontextmanager
    async def launch(self, name: str, options: ServerOptions, terms: Terms) -> AsyncIterator[Server]:
        port = free_port()
        with TemporaryDirectory() as directory:
            configuration = Path(directory) / "nginx.conf"
            configuration.write_text(
                CONFIGURATION.format(
                    module=MODULE,
                    directory=directory,
                    port=port,
                    channel=CHANNEL,
                    event=NAME,
                    ping=terms.ping,
                    files=min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 65536),
                    # Workers of a master that runs as root are somebody else, who cannot reach the directory.
                    user="user root;" if os.geteuid() == 0 else "",
                )
            )
            command = [find("nginx", "nginx"), "-p", directory, "-e", "stderr", "-c", str(configuration)]
            async with serving(name, port, command) as master:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    publisher = Publisher(name, reader, writer)
                    # The master opens the port before it starts the worker, which is who answers.
                    await publisher.tell("count")
                    publisher.pids = (master, *children_of(master))
                    yield Server(name, port, publisher)
                finally:
                    writer.close()


class Publisher:
    """Publishes over one connection that is kept; what is published at once is one write of several requests."""

    def __init__(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.pids: Sequence[int] = ()
        self._name = name
        self._reader = reader
        self._writer = writer
        self._published = 0

    async def tell(self, do: str, **arguments: Any) -> Any:
        """Publish, or tell how many subscribers there are as the number of tasks."""
        if do == "publish":
            return await self._publish(**arguments)
        if do == "count":
            return {"tasks": await self._subscribers()}
        raise ServerError(f"{self._name} cannot {do}")

    async def _publish(self, count: int, size: int) -> None:
        numbers = range(self._published, self._published + count)
        self._published = numbers.stop
        statuses = await self._ask([request("POST", text(number, size)) for number in numbers])
        refused = [status for status, _ in statuses if status not in {201, 202}]
        if refused:
            raise ServerError(f"{self._name} answers a publication with {refused[0]}")

    async def _subscribers(self) -> int:
        [(_, told)] = await self._ask([request("GET")])
        # A channel that nobody listens to and nothing was published to is not found.
        found = re.search(r"active subscribers: (\d+)", told)
        return int(found[1]) if found is not None else 0

    async def _ask(self, requests: Sequence[bytes]) -> list[tuple[int, str]]:
        self._writer.write(b"".join(requests))
        try:
            return [await answer(self._reader) for _ in requests]
        except (asyncio.IncompleteReadError, ConnectionError):
            raise ServerError(f"{self._name} has died; what it wrote to the standard error says why") from None


def request(method: str, body: str = "") -> bytes:
    content = body.encode()
    return b"%s /publish HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%s" % (
        method.encode(),
        len(content),
        content,
    )


async def answer(reader: asyncio.StreamReader) -> tuple[int, str]:
    """Read one response: its status and its body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"^content-length: *(\d+)", head, re.IGNORECASE | re.MULTILINE)
    body = await reader.readexactly(int(length[1]) if length is not None else 0)
    return int(head.split(b" ", 2)[1]), body.decode()


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
