"""Tell in one clear line, before anything starts, why nothing can listen on a host and port."""

from __future__ import annotations

import socket
import sys


def problem(host: str, port: str) -> str | None:
    """Return what is wrong with listening there and the remedy, or None."""
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        return f"The port must be a number from 0 to 65535, not {port!r}."
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
    except OSError as exc:
        return f"Cannot listen on {host}:{port}: {exc.strerror}. Choose another: scripts/serve --host HOST --port PORT"
    return None


if __name__ == "__main__":
    sys.exit(problem(sys.argv[1], sys.argv[2]))
