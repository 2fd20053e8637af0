"""nginx and HAProxy in front of the app under test: by default, and as the documents say for streams."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tests.conftest import require

__all__ = ["Make", "haproxy", "haproxy_for_streams", "haproxy_that_answers", "nginx", "nginx_that_answers"]

NGINX = """
daemon off;
{user}
pid {directory}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{upstream};
            {options}
        }}
        {locations}
    }}
}}
"""

HAPROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client 50s
    timeout server 50s
    {options}
frontend public
    bind 127.0.0.1:{port}
    default_backend app
backend app
    {answers}
    server app 127.0.0.1:{upstream}
"""

# What an EventSource gets while the app is away, in place of a status that it would give up at.

NGINX_AWAY = """
location @away {
    default_type text/event-stream;
    add_header Cache-Control no-store;
    return 200 "retry: 200\\n\\n";
}
"""

HAPROXY_AWAY = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n\r\nretry: 200\n\n"

Make = Callable[[Path, int], Callable[[int], list[str]]]


def nginx(directory: Path, upstream: int, options: str = "", locations: str = "") -> Callable[[int], list[str]]:
    binary = require("nginx")

    def command(port: int) -> list[str]:
        # A master that runs as root hands its temporary files to another user, who cannot reach the test's directory.
        user = "user root;" if os.geteuid() == 0 else ""
        configuration = directory / "nginx.conf"
        configuration.write_text(
            NGINX.format(
                user=user, directory=directory, port=port, upstream=upstream, options=options, locations=locations
            )
        )
        return [binary, "-p", str(directory), "-e", "stderr", "-c", str(configuration)]

    return command


def nginx_that_answers(directory: Path, upstream: int) -> Callable[[int], list[str]]:
    return nginx(directory, upstream, "error_page 502 504 =200 @away;", NGINX_AWAY)


def haproxy(directory: Path, upstream: int, options: str = "", answers: str = "") -> Callable[[int], list[str]]:
    binary = require("haproxy")

    def command(port: int) -> list[str]:
        configuration = directory / "haproxy.cfg"
        configuration.write_text(HAPROXY.format(port=port, upstream=upstream, options=options, answers=answers))
        return [binary, "-db", "-f", str(configuration)]

    return command


def haproxy_for_streams(directory: Path, upstream: int) -> Callable[[int], list[str]]:
    return haproxy(directory, upstream, "option http-no-delay\n    option abortonclose")


def haproxy_that_answers(directory: Path, upstream: int) -> Callable[[int], list[str]]:
    answer = directory / "away.http"
    answer.write_bytes(HAPROXY_AWAY.encode())
    answers = "\n    ".join(f"errorfile {status} {answer}" for status in (502, 503, 504))
    return haproxy(directory, upstream, answers=answers)
