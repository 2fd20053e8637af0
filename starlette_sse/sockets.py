"""A listening socket whose connections notice a peer that has vanished.

A peer that loses power, or whose network drops everything, sends no farewell. An idle connection to it stays for ever,
and one with pings under way until the kernel has repeated them in vain for 15 minutes. No ASGI server has an option
against it, but on Linux, macOS and the BSDs accepted connections inherit the options of the socket that listens, and
servers take such a socket.
"""

from __future__ import annotations

import socket

from starlette_sse.attributes import check_seconds
from starlette_sse.exceptions import ConfigurationError

__all__ = ["listening_socket"]

#: How many probes go unanswered before a connection is given up, where no ``user_timeout`` decides.
PROBES = 3

#: What the kernels allow for the time before the first probe, in seconds.
LONGEST_KEEPALIVE = 32767

#: The kernel's unit of the time that bytes may stay unacknowledged, and the longest that fits, in seconds.
SHORTEST_USER_TIMEOUT, LONGEST_USER_TIMEOUT = 0.001, 2147483

LAST_PORT = 65535

#: macOS has its own name for the time before the first probe.
KEEPALIVE_IDLE = "TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE"


def listening_socket(
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    keepalive: float | None = 10.0,
    user_timeout: float | None = 20.0,
    backlog: int = 2048,
) -> socket.socket:
    """Return a socket that listens, for a server to take::

        config = uvicorn.Config(app)
        uvicorn.Server(config).run(sockets=[listening_socket("0.0.0.0", 8000)])

    The times concern the connection to whoever connects: a reverse proxy, if there is one in front.

    :param host: an address or name; an IPv6 address for IPv6.
    :param port: 0 for any that is free.
    :param keepalive: seconds without traffic after which the peer is asked whether it is there, at least 1; from then
        on it is asked three times as often, but no more than each second. A peer that is gone is noticed after twice
        the time, and a second or two if that is short; or, if later, after ``user_timeout``. None: never.
    :param user_timeout: seconds, at least 0.001, that sent bytes may stay unacknowledged, or the window of a peer that
        reads nothing closed. None: as the system says, on Linux about 15 minutes; and then ``keepalive`` alone decides
        for idle connections. Linux only.
    :param backlog: how many connections may wait to be accepted.
    :raises ConfigurationError: the port or a time cannot work, or this system cannot do it.
    :raises OSError: the address cannot be listened on.
    """
    check_port(port)
    check_times(keepalive, user_timeout)
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if keepalive is not None:
            keep_alive(listener, keepalive)
        if user_timeout is not None:
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(user_timeout * 1000))
        listener.bind(address)
        listener.listen(backlog)
        # For a server that is started with the number of the socket: uvicorn --fd, hypercorn --bind fd://
        listener.set_inheritable(True)
    except BaseException:
        listener.close()
        raise
    return listener


def keep_alive(listener: socket.socket, seconds: float) -> None:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    tcp = socket.IPPROTO_TCP
    listener.setsockopt(tcp, getattr(socket, KEEPALIVE_IDLE), round(seconds))
    listener.setsockopt(tcp, socket.TCP_KEEPINTVL, max(1, round(seconds / PROBES)))
    listener.setsockopt(tcp, socket.TCP_KEEPCNT, PROBES)


def check_port(port: object) -> None:
    """Check what would be cut to 16 bits."""
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= LAST_PORT:
        raise ConfigurationError(f"port must be 1 to {LAST_PORT}, or 0 for any that is free; not {port!r}")


def check_times(keepalive: float | None, user_timeout: float | None) -> None:
    """Check what the kernel would only round or refuse without a reason."""
    check_seconds("keepalive", keepalive)
    check_seconds("user_timeout", user_timeout)
    if keepalive is not None and not 1 <= keepalive <= LONGEST_KEEPALIVE:
        raise ConfigurationError(f"keepalive must be 1 to {LONGEST_KEEPALIVE} seconds, or None; not {keepalive!r}")
    if user_timeout is not None and not SHORTEST_USER_TIMEOUT <= user_timeout <= LONGEST_USER_TIMEOUT:
        shortest, longest = SHORTEST_USER_TIMEOUT, LONGEST_USER_TIMEOUT
        raise ConfigurationError(f"user_timeout must be {shortest} to {longest} seconds, or None; not {user_timeout!r}")
    if keepalive is not None and not hasattr(socket, KEEPALIVE_IDLE):
        raise ConfigurationError("this system cannot set the time of keep-alive; give keepalive=None")
    if user_timeout is not None and not hasattr(socket, "TCP_USER_TIMEOUT"):
        raise ConfigurationError("only Linux has a user timeout; give user_timeout=None elsewhere")
