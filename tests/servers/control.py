"""The test's end of the app's streams: the test says what each one yields, and when."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from types import TracebackType
from typing import Any, Self

__all__ = ["Control"]

PATIENCE = 10.0


class Control:
    """Listens for the app's streams; each calls in with its name and yields what is written to it."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self._streams: dict[str, socket.socket] = {}
        self._called_in = threading.Condition()
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        # Closing alone does not wake a thread in accept().
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(PATIENCE)
        for stream in self._streams.values():
            stream.close()

    def order(self, name: str, **event: Any) -> None:
        """Have the stream ``name`` yield an event with these fields, once it has called in."""
        self._write(name, event)

    def end(self, name: str) -> None:
        """Have the stream ``name`` end by itself."""
        self._write(name, None)

    def hung_up(self, name: str) -> bool:
        """Tell whether the stream ``name`` has closed its connection, waiting for it a while."""
        stream = self._stream(name)
        stream.settimeout(PATIENCE)
        with contextlib.suppress(ConnectionResetError):
            return stream.recv(1) == b""
        return True

    def _write(self, name: str, order: object) -> None:
        self._stream(name).sendall(json.dumps(order).encode() + b"\n")

    def _stream(self, name: str) -> socket.socket:
        with self._called_in:
            if not self._called_in.wait_for(lambda: name in self._streams, PATIENCE):
                raise TimeoutError(f"the stream {name!r} never started its events")
            return self._streams[name]

    def _accept(self) -> None:
        while True:
            try:
                stream, _ = self._listener.accept()
            except OSError:
                return
            with stream.makefile("r", encoding="utf-8") as lines:
                name = lines.readline().strip()
            with self._called_in:
                self._streams[name] = stream
                self._called_in.notify_all()
