"""The one connection on which a process hears what is published, and what is done when it breaks.

After every reconnect, and whenever an event's link does not fit, the log is compared with the server's: what was missed
is read from the streams, and what cannot be read any more is told to its readers. No event is trusted on hearsay.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import count
from operator import attrgetter
from typing import Any, NoReturn

import anyio
from anyio.lowlevel import checkpoint

from starlette_sse.broker.channel import Channel
from starlette_sse.broker.entries import Entry, Gap
from starlette_sse.broker.log import Log
from starlette_sse.broker.positions import Position
from starlette_sse.broker.redis.connections import Connections
from starlette_sse.broker.redis.records import entry_of
from starlette_sse.broker.redis.remote import RemoteLog
from starlette_sse.exceptions import BrokerError, BrokerUnavailableError

__all__ = ["Listener"]

#: Seconds between two looks whether the connection is alive and the log still the same; and at least, while there is
#: reason to doubt it.
CHECK_INTERVAL, DOUBT_INTERVAL = 10.0, 1.0

#: Seconds before the first attempt to come back, and at most before any.
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0

#: Bytes of each page of what was missed.
CATCH_UP = 256 * 1024

#: Channels in one command.
BATCH = 500

#: Messages taken before others run; what they wake then takes all of them in one send.
TURN = 64


class ContinuityError(BrokerError):
    """What was heard does not follow from what is known."""


class Listener:
    """Mirrors the channels that are read in this process into the log."""

    def __init__(self, remote: RemoteLog, connections: Connections, log: Log, prefix: str, timeout: float) -> None:
        self._remote = remote
        self._connections = connections
        self._log = log
        self._prefix = prefix
        self._timeout = timeout
        # Channels to subscribe to or to leave, by name; a later wish replaces an earlier one.
        self._wishes: dict[str, bool] = {}
        # What is subscribed to on the present connection, or about to be.
        self._joined: set[str] = set()
        # Something was wished, or is doubted.
        self._wished = anyio.Event()
        self._checked_at, self._doubted = 0.0, False
        self._progress = anyio.Event()
        self._numbers = count(1)
        self._answered = 0
        self._answer = anyio.Event()
        # What is heard while the log is compared, which comes behind what was missed.
        self._held: list[tuple[str, bytes]] | None = None
        # The newest that was heard on the present connection.
        self._heard = 0
        # Each event up to here, of any channel listened to, is in the log.
        self._proven = 0
        self._pause = FIRST_PAUSE

    async def serve(self) -> NoReturn:
        """Listen for ever: come back whenever the connection is lost."""
        while True:
            try:
                await self._listen()
            except* Exception as exc:  # noqa: BLE001 - whatever it was, observers are told and the listener comes back
                self._log.lost(first_of(exc))
            await anyio.sleep(self._pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads the load
            self._pause = min(2 * self._pause, LONGEST_PAUSE)

    async def listen(self, channels: Sequence[str]) -> None:
        """Wait until every event of ``channels`` is heard.

        :raises BrokerUnavailableError: that takes too long.
        """
        held = [self._log.channels[name] for name in channels]
        for channel in held:
            if channel.floor is None:
                self._wish(channel.name, wanted=True)
        with anyio.move_on_after(self._timeout):
            while any(channel.floor is None for channel in held):
                await self._progress.wait()
            return
        error = self._log.error or "no answer"
        raise BrokerUnavailableError(f"{self._connections.address} cannot be listened to: {error}")

    def unlisten(self, channel: str) -> None:
        """Let a channel go."""
        self._log.drop(channel)
        if channel in self._joined:
            self._wish(channel, wanted=False)
        else:
            # Nobody has asked for it yet; while the server is away that may be for long.
            self._wishes.pop(channel, None)

    def doubt(self) -> None:
        """Look soon whether the server is there: it has left somebody else without an answer."""
        self._doubted = True
        self._wished.set()

    def _wish(self, channel: str, *, wanted: bool) -> None:
        self._wishes[channel] = wanted
        self._wished.set()

    # One connection's life

    async def _listen(self) -> None:
        connection = await self._connections.listener()
        self._held, self._heard = [], 0
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._hear, connection)
                await self._follow(connection)
        finally:
            with anyio.CancelScope(shield=True):
                await connection.disconnect(nowait=True)

    async def _follow(self, connection: Any) -> NoReturn:
        # A server that closes idle connections leaves those alone that are subscribed; no channel has this name.
        await self._send(connection, "SUBSCRIBE", self._prefix)
        known = self._log.newest
        self._log.begin(*await self._remote.begin(), known)
        self._proven = min(self._proven, self._log.seen)
        self._wishes = dict.fromkeys(self._log.channels, True)
        self._joined = set()
        names = await self._move(connection)
        await self._compare(names)
        await self._prove(names)
        self._log.found()
        self._pause = FIRST_PAUSE
        while True:
            self._checked_at, self._doubted = anyio.current_time(), False
            # However many wishes come in between.
            while anyio.current_time() < self._check_at:
                with anyio.CancelScope(deadline=self._check_at):
                    await self._wished.wait()
                if self._wishes:
                    await self._prove(await self._move(connection))
                else:
                    self._wished = anyio.Event()
            await self._check(connection)

    @property
    def _check_at(self) -> float:
        return self._checked_at + (DOUBT_INTERVAL if self._doubted else CHECK_INTERVAL)

    async def _move(self, connection: Any) -> list[str]:
        """Subscribe and unsubscribe as is wished, and return the channels that are wanted."""
        joined = self._joined
        wishes, self._wishes, self._wished = self._wishes, {}, anyio.Event()
        arriving = [name for name, wanted in wishes.items() if wanted and name not in joined]
        leaving = [name for name, wanted in wishes.items() if not wanted and name in joined]
        joined.update(arriving)
        joined.difference_update(leaving)
        for command, names in (("SUBSCRIBE", arriving), ("UNSUBSCRIBE", leaving)):
            for start in range(0, len(names), BATCH):
                await self._send(connection, command, *(self._prefix + name for name in names[start : start + BATCH]))
        await self._ask(connection)
        return [name for name, wanted in wishes.items() if wanted]

    async def _send(self, connection: Any, *command: Any) -> None:
        """Send a command; a connection that takes nothing more is dead."""
        try:
            with anyio.fail_after(self._timeout):
                await connection.send_command(*command)
        except TimeoutError:
            raise BrokerUnavailableError(
                f"{self._connections.address} takes nothing from its listener within {self._timeout} s"
            ) from None

    async def _ask(self, connection: Any) -> None:
        """Wait until everything that was heard so far has been taken: the answer comes behind it."""
        number = next(self._numbers)
        await self._send(connection, "PING", number)
        with anyio.move_on_after(self._timeout):
            while self._answered < number:
                self._answer = anyio.Event()
                await self._answer.wait()
            return
        raise BrokerUnavailableError(
            f"{self._connections.address} does not answer its listener within {self._timeout} s"
        )

    # What is heard

    async def _hear(self, connection: Any) -> NoReturn:
        while True:
            for _ in range(min(TURN, max(1, self._log.retention.history // 2))):
                reply = await connection.read_response()
                if reply[0] == b"message":
                    self._take(str(reply[1], "utf-8").removeprefix(self._prefix), reply[2])
                elif reply[0] == b"pong":
                    self._take_answer(reply[1])
            await checkpoint()

    def _take_answer(self, number: bytes) -> None:
        self._answered = int(number)
        self._answer.set()

    def _take(self, name: str, message: bytes) -> None:
        if self._held is not None:
            self._held.append((name, message))
            return
        channel = self._log.channels.get(name)
        epoch, seq, record = message.split(b" ", 2)
        if epoch != self._log.epoch.encode("ascii"):
            raise ContinuityError("the log in Redis was replaced by another")
        number = int(seq)
        if number <= self._heard:
            raise ContinuityError("the log in Redis has gone back to an older state")
        self._heard = number
        if channel is None or name not in self._joined:
            # Of a subscription that is about to end, which proves nothing for those who come after it.
            return
        entry = entry_of(name, self._log.epoch, number, record, self._log.now())
        if channel.floor is not None and entry.prev > max(channel.top, self._proven):
            raise ContinuityError(f"an event was not heard: {entry.id} follows {entry.prev}, not {channel.top}")
        self._log.append(entry)

    # What is known

    async def _check(self, connection: Any) -> None:
        """Look whether the connection is alive and the log still the same; all that was published until now is here."""
        top, _ = await self._state([])
        await self._ask(connection)
        self._proven = top.seq
        self._log.prove(top.seq)

    async def _state(self, names: Sequence[str]) -> tuple[Position, list[int]]:
        known = self._log.newest
        state = await self._remote.state(names)
        if state is None or state[0].epoch != self._log.epoch or state[0].seq < known:
            raise ContinuityError("the log in Redis is gone, or has gone back to an older state")
        # Readers begin there: what is lost of it is not lost without a word.
        self._log.acknowledge(state[0])
        return state

    async def _prove(self, names: Sequence[str]) -> None:
        """Take note from where on the channels that were just subscribed to are complete."""
        for start in range(0, len(names), BATCH):
            batch = names[start : start + BATCH]
            top, _ = await self._state(batch)
            for name in batch:
                if (channel := self._log.channels.get(name)) is not None:
                    channel.prove(top.seq)
        progress, self._progress = self._progress, anyio.Event()
        progress.set()

    async def _compare(self, names: Sequence[str]) -> None:
        """Find out what was missed in channels that are listened to again, and add it to the log."""
        missed: list[Entry] = []
        lost: list[tuple[Channel, int]] = []
        seen = self._log.seen
        end: int | None = None
        for start in range(0, len(names), BATCH):
            batch = names[start : start + BATCH]
            top, lasts = await self._state(batch)
            end = top.seq if end is None else end
            for name, last in zip(batch, lasts, strict=True):
                channel = self._log.channels.get(name)
                if channel is not None and channel.floor is not None and last > max(channel.top, self._proven):
                    hole, entries = await self._missed(channel, end)
                    if entries and entries[0].seq <= seen:
                        # Readers of other channels too may be past it: what comes too late for its order is lost.
                        hole, entries = end, []
                    if hole is not None:
                        lost.append((channel, hole))
                    missed += entries
        # All at once: who reads several of them is told once.
        for channel, hole in lost:
            self._log.lose(channel, hole)
        for entry in sorted(missed, key=attrgetter("seq")):
            self._log.append(entry)
        if end is not None:
            self._proven = end
            self._log.prove(end)
        held, self._held = self._held or [], None
        for name, message in held:
            self._take(name, message)

    async def _missed(self, channel: Channel, end: int) -> tuple[int | None, list[Entry]]:
        """Return up to where something is lost, if it is, and what a channel has behind that and up to ``end``."""
        position = Position(self._log.epoch, max(channel.top, self._proven))
        hole: int | None = None
        entries: list[Entry] = []
        while position.seq < end:
            page = await self._remote.read([channel.name], position, CATCH_UP)
            if isinstance(page, Gap):
                # What cannot be read on from anywhere is lost to its end.
                oldest = end if page.oldest is None else page.oldest.seq
                hole = oldest if position.seq < oldest < end else end
                entries.clear()
                position = Position(self._log.epoch, hole)
            else:
                # What is newer is heard: added here, it would overtake what other channels have in between.
                entries += (entry for entry in page.entries if entry.seq <= end)
                position = page.upto
        return hole, entries


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error in a group of groups."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
