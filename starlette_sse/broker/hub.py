"""The broker: what an application publishes to and subscribes at, whatever keeps the log."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, get_args

import anyio.from_thread
from anyio.from_thread import BlockingPortal

from starlette_sse.attributes import check_choice, check_seconds
from starlette_sse.broker.backends import backend_of, check_event_loop
from starlette_sse.broker.base import Backend
from starlette_sse.broker.entries import Retention
from starlette_sse.broker.log import Log
from starlette_sse.broker.names import channel_names, check_channel, check_name
from starlette_sse.broker.subscription import OnLag, Snapshot, Subscription
from starlette_sse.broker.tally import Tally
from starlette_sse.eventloop import EventLoop, current_event_loop, running_event_loop
from starlette_sse.events import as_event
from starlette_sse.exceptions import (
    BrokerClosedError,
    BrokerError,
    ConfigurationError,
    InvalidEventError,
)
from starlette_sse.observers import Observer, StructlogObserver, check_observers

__all__ = ["Broker", "BrokerHealth"]

#: What the id line may take of a frame.
ID_LINE = 64

PREFIX = "starlette_sse"
TIMEOUT = 5.0

ENTER = "enter it in the app's lifespan: async with broker: ..."


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerHealth:
    """How a broker is, as far as this process knows without asking anybody."""

    ok: bool
    """Whether it is open and its backend can be reached."""
    backend: str
    """The backend's name, such as ``"redis"``."""
    error: str | None
    """Why the backend cannot be reached."""
    outage: float
    """For how many seconds it has been away; 0 while it is there."""
    position: str
    """The id of the log's end, as far as it was heard here, or found out by a look every ten seconds; empty before the
    first use."""
    channels: int
    """How many channels are held in this process: they have readers, or events."""
    subscriptions: int
    """How many are open in this process."""
    published: int
    """How many events this process has published."""
    lags: int
    """How often a reader of this process fell off the log."""
    resets: int
    """How often a reader of this process was told that its events are not complete."""
    outages: int
    """How often the backend was lost."""


class Broker:
    """One totally ordered log of events. A channel is a filter of it, a subscription a cursor in it.

    The promise: per subscription, every event of its channels, in order, each once per connection; after a disconnect
    either every missed event or one explicit reset. Retention voids it, and a backend that lost its data; both end in a
    reset.

    :param url: ``memory://`` for one process; ``redis://host:port/db``, ``rediss://`` or ``unix://`` for Redis; or a
        :class:`~starlette_sse.broker.base.Backend` of your own.
    :param history: events kept per channel.
    :param max_age: seconds that an event is kept.
    :param max_bytes: bytes of frames kept per channel; no event may be larger, with 64 bytes for the line of its id.
    :param prefix: what the names of this log's keys begin with, for backends that share a server; with a URL only.
    :param timeout: the longest that an operation waits for the backend, in seconds; with a URL only.
    :param observers: what is told of publications, subscriptions, lags, resets and outages.
    :raises ConfigurationError: a parameter cannot work.
    :raises MissingDependencyError: the backend needs an extra that is not installed.

    Enter it in the app's lifespan with ``async with``; a memory broker works without. A backend that cannot be reached
    then is waited for beside the app; one that refuses raises :exc:`~starlette_sse.BrokerUnavailableError`. Everything
    is called in the event loop that it was entered in, except :meth:`publish_from_thread` and :meth:`health`. On
    asyncio it may be left in another task than entered it, as a test's fixture is.
    """

    def __init__(
        self,
        url: str | Backend = "memory://",
        *,
        history: int = 1000,
        max_age: float = 300.0,
        max_bytes: int = 1024 * 1024,
        prefix: str = PREFIX,
        timeout: float = TIMEOUT,
        observers: Sequence[Observer] = (StructlogObserver(),),
    ) -> None:
        check_seconds("timeout", timeout, optional=False)
        check_name("prefix", prefix)
        check_observers("observers", observers)
        if isinstance(url, Backend) and (prefix, timeout) != (PREFIX, TIMEOUT):
            raise ConfigurationError("prefix and timeout are for backends that a URL names; give them to your own")
        self._tally = Tally(tuple(observers))
        self._log = Log(Retention(history=history, max_age=max_age, max_bytes=max_bytes), self._tally)
        self._backend = url if isinstance(url, Backend) else backend_of(url, prefix, timeout)
        check_event_loop(self._backend)
        self._max_body = max_bytes - ID_LINE
        self._loop: EventLoop | None = None
        self._open = self._closed = False
        self._portal: BlockingPortal | None = None
        self._serving: anyio.CancelScope | None = None
        self._stack: AsyncExitStack | None = None

    # Its life

    async def __aenter__(self) -> Self:
        if self._stack is not None:
            raise BrokerError("the broker is entered already; enter it once, in the app's lifespan")
        check_event_loop(self._backend)
        loop = current_event_loop()
        self._adopt(loop)
        async with AsyncExitStack() as stack:
            self._stack = stack
            stack.push_async_callback(self._leave)
            if not self._open:
                await self._backend.open(self._log)
            tasks = await stack.enter_async_context(loop.task_group())
            serving, portal, ready = anyio.CancelScope(), BlockingPortal(), anyio.Event()
            tasks.start_soon(self._serve, serving, portal, ready, name=f"{self._backend.name} broker")
            await ready.wait()
            self._serving, self._portal, self._stack = serving, portal, stack.pop_all()
        self._open, self._closed = True, False
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()
        if self._stack is not None:
            await self._stack.aclose()

    async def close(self) -> None:
        """End every subscription with :exc:`~starlette_sse.BrokerClosedError` and give back what the backend holds.

        The end of ``async with`` does it too. A broker that was closed can be entered again; one in memory has a new
        log then.
        """
        self._end()
        await self._close_backend()

    async def _serve(self, scope: anyio.CancelScope, portal: BlockingPortal, ready: anyio.Event) -> None:
        # The portal is a task group, which must be entered and left in one task.
        async with portal:
            ready.set()
            with scope:
                await self._backend.serve()
                await anyio.sleep_forever()

    async def _leave(self) -> None:
        self._open, self._stack = False, None
        await self._close_backend()

    async def _close_backend(self) -> None:
        with anyio.CancelScope(shield=True):
            await self._backend.close()

    def _end(self) -> None:
        self._open, self._closed = False, True
        self._portal = None
        if self._serving is not None:
            self._serving.cancel()
            self._serving = None
        for subscription in tuple(self._log.subscribers):
            subscription.fail(BrokerClosedError("the broker was closed"))
        self._log.unbind()
        self._loop = None

    # Publishing

    async def publish(self, channel: str, event: Any, key: str | None = None) -> str:
        """Append an event to the log and return its id. It waits for the backend, never for a reader.

        :param event: a :class:`~starlette_sse.ServerSentEvent` without an id, or what can be made one: a mapping of its
            fields, or anything else as its data.
        :param key: what the event is about. A reader with ``on_lag="latest"`` that lags is given the newest event of
            each key instead of all of them.
        :raises ConfigurationError: ``channel`` or ``key`` is no name.
        :raises InvalidEventError: it cannot be an event, brings an id of its own, or is larger than ``max_bytes``.
        :raises BrokerUnavailableError: the backend is away. The event was not published; if the error's ``in_doubt``
            is true nobody can tell, since the answer was lost or came halfway. It is never published twice.
        :raises BrokerClosedError: the broker was closed.
        :raises BrokerError: it has to be entered first, or is used in another event loop.
        """
        return await self._append(channel, self._body(channel, event, key), key)

    def publish_from_thread(self, channel: str, event: Any, key: str | None = None) -> str:
        """Publish from sync code in any thread but the event loop's, and wait until it is done.

        :meth:`publish` says what it takes, returns and raises.

        :raises BrokerError: it was called in an event loop, where it would wait for itself; or the broker was not
            entered and the thread is not one of anyio's.
        """
        if running_event_loop() is not None:
            raise BrokerError("publish_from_thread would block this event loop: await broker.publish(...) instead")
        body = self._body(channel, event, key)
        portal = self._portal
        if self._closed:
            raise BrokerClosedError(f"the broker was closed; {ENTER}")
        try:
            if portal is not None:
                return portal.call(self._append, channel, body, key)
            return anyio.from_thread.run(self._append, channel, body, key)
        except RuntimeError as exc:
            raise BrokerError(f"the broker does not know which event loop is its own; {ENTER}") from exc

    async def _append(self, channel: str, body: bytes, key: str | None) -> str:
        await self._admit()
        event_id = await self._backend.append(channel, body, key)
        self._tally.published(channel, event_id, body)
        return event_id

    def _body(self, channel: str, event: Any, key: str | None) -> bytes:
        check_channel(channel)
        if key is not None:
            check_name("key", key)
        made = as_event(event)
        if made.id is not None:
            raise InvalidEventError(
                f"the event has the id {made.id!r}, but ids belong to the log, which is how clients resume; "
                "publish it without, and put a number of your own into the data"
            )
        body = made.encode()
        if len(body) > self._max_body:
            raise InvalidEventError(
                f"an event of {len(body)} bytes does not fit into a channel's history of "
                f"max_bytes={self._log.retention.max_bytes}; publish a reference to it, or give the broker more"
            )
        return body

    # Subscribing

    def subscribe(
        self,
        channels: str | Iterable[str],
        after: str | None = None,
        *,
        on_lag: OnLag = "disconnect",
        snapshot: Snapshot | None = None,
    ) -> Subscription:
        """Return a subscription to enter: ``async with broker.subscribe(["news"]) as subscription``.

        :param channels: one or more names.
        :param after: the id to resume behind, such as a request's ``Last-Event-ID``. None or empty: from now on. One
            that events are missing after, or that is no id of this log, gives one reset: an event ``stream-reset``
            whose data is ``{"reason", "requested", "oldest", "newest"}``, and then what follows.
        :param on_lag: what happens to a reader that is slower than the broker's retention. ``"disconnect"``:
            :exc:`~starlette_sse.SlowReaderError`; what it missed is gone, so subscribing ``after`` its last id gives a
            reset. ``"reset"``: a reset, and it goes on. ``"latest"``: it gets the newest event of each ``key`` instead
            of all of them.
        :param snapshot: called with nothing when a reader starts without ``after``, and after each reset; returns, or
            is a coroutine function or async generator that gives, the events to send first. The position was taken
            before, so nothing is missed in between. Only :meth:`Subscription.pull` and iteration run it.
        :raises ConfigurationError: a parameter cannot work.

        Entering it raises :exc:`~starlette_sse.BrokerUnavailableError` if the backend is away and does not listen to
        one of the channels yet; else what :meth:`publish` raises of a broker that cannot be used.
        """
        names = channel_names(channels)
        if after is not None and not isinstance(after, str):
            raise ConfigurationError(f"after must be an event's id, or None; not {after!r}")
        check_choice("on_lag", on_lag, get_args(OnLag))
        if snapshot is not None and not callable(snapshot):
            raise ConfigurationError(f"snapshot must be a function without parameters, or None; not {snapshot!r}")
        return Subscription(self._log, self._backend, self._admit, names, after=after, on_lag=on_lag, snapshot=snapshot)

    # Watching

    def health(self) -> BrokerHealth:
        """Return how the broker is; never blocks, and may be called from any thread."""
        log, tally = self._log, self._tally
        return BrokerHealth(
            ok=not self._closed and log.error is None and (self._open or not self._backend.needs_lifespan),
            backend=self._backend.name,
            error=None if log.error is None else str(log.error),
            outage=0.0 if log.error is None else log.outage,
            position=str(log.position) if log.epoch else "",
            channels=len(log.channels),
            subscriptions=len(log.subscribers),
            published=tally.publications,
            lags=tally.lags,
            resets=tally.resets,
            outages=tally.outages,
        )

    # The event loop

    async def _admit(self) -> EventLoop:
        loop = current_event_loop()
        if self._closed:
            raise BrokerClosedError(f"the broker was closed; {ENTER}")
        if loop is not self._loop:
            self._adopt(loop)
        if not self._open:
            if self._backend.needs_lifespan:
                raise BrokerError(f"a {self._backend.name} broker must be entered before it is used; {ENTER}")
            await self._backend.open(self._log)
            self._open = True
        return loop

    def _adopt(self, loop: EventLoop) -> None:
        """Belong to ``loop``, unless somebody uses the broker in another."""
        if loop is self._loop:
            return
        in_use = self._stack is not None or self._log.subscribers
        if self._loop is not None and in_use and not self._loop.ended:
            raise BrokerError(
                "the broker is used in another event loop; publish to it by publish_from_thread, "
                "or make one broker for each loop"
            )
        for subscriber in tuple(self._log.subscribers):
            # Who waits in a loop that is over can't be woken.
            subscriber.leave()
        self._loop = loop
        self._log.bind(loop)
