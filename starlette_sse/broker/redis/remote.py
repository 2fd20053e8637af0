"""The log as the server has it: each question is one script, one atomic step."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from starlette_sse.broker.entries import Entry, Gap, Page
from starlette_sse.broker.log import Log, merged
from starlette_sse.broker.positions import Position, ResetReason, new_epoch
from starlette_sse.broker.redis.connections import Connections, NoScriptError
from starlette_sse.broker.redis.records import entry_of, milliseconds
from starlette_sse.broker.redis.scripts import APPEND, MOVED, OPEN, READ, STATE
from starlette_sse.exceptions import BrokerUnavailableError

__all__ = ["RemoteLog"]

#: Seconds that an expired stream is remembered, so that no reader's proof is as old as the floor.
REMEMBERED = 60.0

#: The shortest time that the log's own keys live after the last use, in seconds.
LOG_LIVES = 7 * 86400.0


class RemoteLog:
    """What is asked of the server.

    :param log: the part of it that is held here, for its retention and its clock.
    :param prefix: what the names of the log's keys begin with.
    :param spare: whether questions don't wait behind those of others.
    """

    def __init__(self, connections: Connections, log: Log, prefix: str, *, spare: bool = False) -> None:
        self._connections = connections
        self._log = log
        self._prefix = prefix
        self._spare = spare
        #: What the names begin with of the channels on which events are told; Redis has them beside its databases.
        self.news = f"{prefix}news:{connections.database}:"
        # Each is this log's own: that another log's broker has loaded it says nothing of this log.
        owner = f"-- {prefix!a}\nlocal database = '{connections.database}'\n{MOVED}"
        self._scripts = {script: with_digest(owner + script) for script in (APPEND, STATE, READ)}

    async def begin(self) -> tuple[Position, dict[str, int]]:
        """Return the log's end and its ancestors; the log is born if there is none, or a restart has lost it.

        The scripts are loaded over the same connection: a server that was started again knows none, so nothing is
        appended there before this has judged what is left.
        """
        opening = ("EVAL", OPEN, 1, f"{self._prefix}log", new_epoch(), self._log_lives(), self.news)
        loads = [("SCRIPT", "LOAD", own) for own, _ in self._scripts.values()]
        epoch, seq, ancestors = (await self._connections.commands([opening, *loads], spare=self._spare))[0]
        pairs = (pair.split("=") for pair in str(ancestors or b"", "ascii").split())
        return Position(str(epoch, "ascii"), int(seq)), {name: int(last) for name, last in pairs}

    async def state(self, channels: Sequence[str]) -> tuple[Position, list[int]] | None:
        """Return the log's end and what the last number of each channel is at most; None if there is no log."""
        reply = await self._run(STATE, self._prefix, self._log_lives(), *channels)
        if reply is None:
            return None
        return Position(str(reply[0], "ascii"), int(reply[1])), [int(top) for top in reply[2:]]

    async def append(self, channel: str, body: bytes, key: str | None) -> Position:
        """Add an event and return its position."""
        retention = self._log.retention
        bounds = (retention.history, milliseconds(retention.max_age), retention.max_bytes)
        lives = (self._log_lives(), milliseconds(retention.max_age + REMEMBERED))
        args = (self._prefix, *lives, *bounds, channel, body, *(() if key is None else (key,)))
        reply = await self._run(APPEND, *args)
        if reply is None:
            # Nothing was appended, so asking again is safe.
            await self.begin()
            reply = await self._run(APPEND, *args)
        if reply is None:
            raise BrokerUnavailableError(
                f"{self._connections.address} loses the log as soon as it has one: "
                "give it memory, and maxmemory-policy noeviction, which evicts no keys"
            )
        return Position(str(reply[0], "ascii"), int(reply[1]))

    async def read(self, channels: Sequence[str], after: Position, limit: int) -> Page | Gap:
        """Return what ``channels`` hold after a position, about ``limit`` bytes of it."""
        max_age = milliseconds(self._log.retention.max_age)
        share = max(1, limit // len(channels))
        reply = await self._run(READ, self._prefix, max_age, after.epoch, after.seq, share, *channels)
        if reply is None:
            top, _ = await self.begin()
            return Gap(ResetReason.EPOCH, None, top)
        epoch = str(reply[1], "ascii")
        if reply[0] == b"gap":
            reason = ResetReason(str(reply[4], "ascii"))
            return Gap(reason, Position(epoch, int(reply[3])), Position(epoch, int(reply[2])))
        parts: list[list[Entry]] = [[] for _ in channels]
        now, clock = self._log.now(), int(reply[3])
        for place, seq, record in zip(reply[4::3], reply[5::3], reply[6::3], strict=True):
            parts[place].append(entry_of(channels[place], epoch, seq, record, now, clock))
        entries, upto = merged(parts, [0] * len(parts), int(reply[2]), limit)
        return Page(entries, Position(epoch, upto))

    async def _run(self, script: str, *args: Any) -> Any:
        own, digest = self._scripts[script]
        about = (1, f"{self._prefix}log", *args)
        try:
            return await self._connections.command("EVALSHA", digest, *about, spare=self._spare)
        except NoScriptError:
            await self.begin()
            # With its text: it may have been forgotten again meanwhile.
            return await self._connections.command("EVAL", own, *about, spare=self._spare)

    def _log_lives(self) -> int:
        return milliseconds(max(LOG_LIVES, 10 * self._log.retention.max_age))


def with_digest(script: str) -> tuple[str, str]:
    """Return a script, and what the server calls it by."""
    return script, hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
