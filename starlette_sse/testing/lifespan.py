"""The app's startup and shutdown, with the errors of both given to the test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anyio
from starlette.types import ASGIApp, Message

from starlette_sse.testing.exceptions import ASGIProtocolError, StillRunningError
from starlette_sse.testing.patience import default_timeout, told
from starlette_sse.testing.problems import raise_as_it_is

__all__ = ["Lifespan"]

#: Seconds that the app gets to return after its last message.
LAST_WORDS = 1.0

#: Seconds of real time that the app may take to start, and to shut down.
LONGEST = 60.0


class Lifespan:
    """Runs the app's lifespan from startup to shutdown.

    An app that ends before it asks for the startup message has none, which is allowed.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.state: dict[str, Any] = {}
        """What the app's startup left for its requests."""
        self.error: Exception | None = None
        """What left the app."""
        self._app = app
        self._messages: Iterator[Message] = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
        self._asked = False
        self._failure: str | None = None
        self._started = anyio.Event()
        self._stopping = anyio.Event()
        self._stopped = anyio.Event()
        self._ended = anyio.Event()

    async def run(self) -> None:
        """Run the app's lifespan to its end; what it raises is kept in :attr:`error`."""
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            await self._app(scope, self._receive, self._send)
        except Exception as error:  # noqa: BLE001 - startup() or shutdown() raises it
            self.error = error
        finally:
            for event in (self._started, self._stopped, self._ended):
                event.set()

    async def startup(self) -> None:
        """Wait until the app is ready; raise what its startup raised.

        :raises StillRunningError: it takes more than a minute, or than four hours of virtual time.
        """
        await wait_for(self._started, "start")
        if self._failure is not None or (self._asked and self.error is not None):
            await self.shutdown()

    async def shutdown(self) -> None:
        """Wait until the app has shut down; raise what its lifespan raised.

        :raises StillRunningError: as :meth:`startup`.
        """
        self._stopping.set()
        await wait_for(self._stopped, "shut down")
        with anyio.move_on_after(LAST_WORDS):
            await self._ended.wait()
        if self._asked and self.error is not None:
            self.error.add_note("raised in the app's lifespan; if the app has none, pass lifespan=False")
            raise_as_it_is(self.error)
        if self._failure is not None:
            raise RuntimeError(f"the app's lifespan failed: {self._failure}")

    async def _receive(self) -> Message:
        if self._asked:
            await self._stopping.wait()
        self._asked = True
        for message in self._messages:
            return message
        # An app that asks on after the last message is not about to return.
        self._ended.set()
        await anyio.sleep_forever()
        raise AssertionError  # pragma: no cover - it sleeps for ever

    async def _send(self, message: Message) -> None:
        match message["type"]:
            case "lifespan.startup.complete":
                self._started.set()
            case "lifespan.shutdown.complete":
                self._stopped.set()
            case "lifespan.startup.failed" | "lifespan.shutdown.failed":
                self._failure = message.get("message") or "it gave no reason"
                self._started.set()
                self._stopped.set()
            case unknown:
                raise ASGIProtocolError(f"the app sent {unknown!r} in its lifespan")


async def wait_for(event: anyio.Event, what: str) -> None:
    """Wait until the app's lifespan has done what it does next."""
    seconds = max(LONGEST, default_timeout())
    with anyio.move_on_after(seconds):
        await event.wait()
    if not event.is_set():
        raise StillRunningError(f"the app's lifespan did not {what} within {told(seconds)}")
