# ruff: noqa: ASYNC109 - these timeouts fail with a message that tells what came instead
"""Runs an app as a server does: its lifespan, and a task for each request."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import anyio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Scope

from starlette_sse.draining import STATE_KEY, Domain, lifespan
from starlette_sse.eventloop import EventLoop, TaskGroup, current_event_loop
from starlette_sse.testing.domain import WatchedDomain
from starlette_sse.testing.exceptions import NoEventError, StillRunningError, StreamForgottenError
from starlette_sse.testing.exchange import Exchange, Head, check_loop
from starlette_sse.testing.lifespan import Lifespan
from starlette_sse.testing.problems import raise_as_it_is, report
from starlette_sse.testing.request import RequestBody

__all__ = ["Server"]

SERVER_ERROR = Head(500, Headers({"content-type": "text/plain; charset=utf-8"}))


class Server:
    """An async context manager that serves one app, and at its end tells what the test has not been told yet.

    :param run_lifespan: whether to run the app's startup and shutdown.
    :param raise_app_exceptions: whether what leaves the app is raised, or answered as a server does: by status 500
        before the response, by breaking it off after.
    :param close_grace: seconds that the app gets to end after its client has gone.
    """

    def __init__(self, app: ASGIApp, *, run_lifespan: bool, raise_app_exceptions: bool, close_grace: float) -> None:
        self.state: dict[str, Any] = {}
        """What each request finds in its scope: what the app's startup left, and a domain to drain."""
        self._own_domain = lifespan()
        self._app = app
        self._lifespan = Lifespan(app) if run_lifespan else None
        self._raises = raise_app_exceptions
        self._opened = False
        self._close_grace = close_grace
        self._tasks: TaskGroup | None = None
        self._loop: EventLoop | None = None
        self._unsettled: list[Exchange] = []

    @property
    def domain(self) -> Domain:
        """The app's open streams, if they are this package's."""
        domain: Domain = self.state[STATE_KEY]
        return domain

    async def __aenter__(self) -> Self:
        if self._opened:
            raise RuntimeError("a client is opened once; make another one for the next time")
        self._opened = True
        self.state |= await self._own_domain.__aenter__()
        self._loop = current_event_loop()
        tasks = self._tasks = await self._loop.task_group().__aenter__()
        try:
            if self._lifespan is not None:
                tasks.start_soon(self._lifespan.run, name="the app's lifespan")
                await self._lifespan.startup()
                self.state |= self._lifespan.state
        except BaseException:
            await self._end(tasks)
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        tasks = self._tasks
        if tasks is None:
            return
        problems: list[Exception] = []
        try:
            if not isinstance(exc, (GeneratorExit, KeyboardInterrupt, anyio.get_cancelled_exc_class())):
                problems = await self._shut_down(tell_forgotten=exc is None)
        finally:
            await self._end(tasks)
        report(problems, exc)

    async def start(self, scope: Scope, body: RequestBody, *, name: str, opened_at: str, timeout: float) -> Exchange:
        """Run the app for a request until its response starts.

        :param name: tells the request in messages, as does ``opened_at``, the place in the test.
        :param timeout: seconds that the app has.
        :raises NoEventError: it took longer.
        :raises RuntimeError: the client is not open, or was opened in another event loop.
        :raises Exception: what the app raised before it responded.
        """
        if self._tasks is None:
            raise RuntimeError("the client is not open; open it first, by async with: the app runs beside the test")
        check_loop(self._loop)
        domain = WatchedDomain(self.domain)
        scope = {**scope, "state": {**self.state, STATE_KEY: domain}}
        exchange = Exchange(self._app, scope, body, name=name, opened_at=opened_at, domain=domain)
        self._unsettled.append(exchange)
        self._tasks.start_soon(exchange.run, name=f"the app's {name}")
        try:
            with anyio.move_on_after(timeout):
                await self._wait_for_response(exchange)
        except BaseException:
            exchange.disconnect()
            raise
        self._check_response(exchange)
        if exchange.head is None:
            await self.settle(exchange)
            raise NoEventError(f"{name} got no response within {timeout:g} s")
        return exchange

    async def settle(self, exchange: Exchange) -> Exception | None:
        """Let the client go and wait until the app has ended; return what is wrong, once."""
        if exchange not in self._unsettled:
            return None
        await exchange.close(self._close_grace)
        if exchange not in self._unsettled:
            # Another task has waited as well, and was told.
            return None
        self._unsettled.remove(exchange)
        if exchange.error is not None and self._raises:
            return exchange.error
        if exchange.outlived:
            return StillRunningError(
                f"{exchange.name} had to be cancelled: the app was still at it {self._close_grace:g} s after its "
                "client had gone, or went on sending; it must end when receive() gives http.disconnect"
            )
        return None

    async def _wait_for_response(self, exchange: Exchange) -> None:
        await exchange.responded.wait()
        head = exchange.head
        if head is not None and head.status_code == 500 and not head.is_event_stream:
            # An error middleware answers before it raises on.
            await exchange.run_out()

    def _check_response(self, exchange: Exchange) -> None:
        head, error = exchange.head, exchange.error
        if not exchange.ended.is_set() or (head is not None and head.status_code != 500):
            return
        if head is None and error is None:
            error = RuntimeError(f"the app ended without a response to {exchange.name}")
        if error is not None and self._raises:
            self._unsettled.remove(exchange)
            raise_as_it_is(error)
        if head is None:
            exchange.answer(SERVER_ERROR, b"Internal Server Error")

    async def _shut_down(self, *, tell_forgotten: bool) -> list[Exception]:
        problems: list[Exception] = []
        for exchange in list(self._unsettled):
            if tell_forgotten and exchange.has_client:
                told = f"{exchange.name}, opened at {exchange.opened_at}, was left open"
                problems.append(StreamForgottenError(f"{told}; open it by async with, or end it by its aclose()"))
            problem = await self.settle(exchange)
            if problem is not None:
                problems.append(problem)
        if len(self.domain):
            problems.append(StillRunningError(f"{len(self.domain)} streams are registered after the last has ended"))
        try:
            if self._lifespan is not None:
                await self._lifespan.shutdown()
        except Exception as error:  # noqa: BLE001 - reported with the others
            problems.append(error)
        return problems

    async def _end(self, tasks: TaskGroup) -> None:
        self._tasks = None
        tasks.cancel()
        try:
            await tasks.__aexit__(None, None, None)
        finally:
            await self._own_domain.__aexit__(None, None, None)
