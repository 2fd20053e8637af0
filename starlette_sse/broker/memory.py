"""The log in this process's memory."""

from __future__ import annotations

from collections.abc import Sequence

from anyio.lowlevel import checkpoint

from starlette_sse.broker.base import Backend
from starlette_sse.broker.entries import Entry, Gap, Page, frame_of
from starlette_sse.broker.log import Log
from starlette_sse.broker.positions import Position, new_epoch

__all__ = ["MemoryBackend"]

#: A publisher that never waits lets readers run after this many events, or half a history if that is less.
TURN = 256


class MemoryBackend(Backend):
    """One process's log; it ends with the process, and no other process sees it."""

    name = "memory"
    needs_lifespan = False

    _log: Log

    def __init__(self) -> None:
        self._turn = 0.0
        self._number = 0

    async def open(self, log: Log) -> None:
        # Born at the first use, not at import: workers forked from one parent must not have one epoch for several logs.
        self._log = log
        log.begin(Position(new_epoch(), 0))

    async def close(self) -> None:
        """There is nothing to give back."""

    async def append(self, channel: str, body: bytes, key: str | None) -> str:
        await self._take_turn(len(body))
        log = self._log
        held = log.channel(channel, log.floor)
        position = Position(log.epoch, log.seen + 1)
        log.append(
            Entry(
                channel=channel,
                epoch=position.epoch,
                seq=position.seq,
                prev=held.top,
                frame=frame_of(str(position), body),
                key=key,
                time=log.now(),
            )
        )
        return str(position)

    async def listen(self, channels: Sequence[str]) -> None:
        for name in channels:
            self._log.channels[name].prove(self._log.floor)

    def unlisten(self, channel: str) -> None:
        if (held := self._log.channels.get(channel)) is not None:
            self._log.tidy(held)

    async def read(self, channels: Sequence[str], after: Position, limit: int) -> Page | Gap:
        return self._log.read(channels, after, limit)

    async def top(self) -> Position:
        return self._log.position

    async def _take_turn(self, size: int) -> None:
        # Readers that wait run before the log has forgotten what they were woken for; a burst still leaves in one send.
        retention = self._log.retention
        share = max(1.0, 2 * TURN / retention.history, 4 * TURN * size / retention.max_bytes)
        while self._turn and self._turn + share > TURN:
            number = self._number
            # Trio runs in any order who is due in one turn.
            await checkpoint()
            await checkpoint()
            if self._number == number:
                # The first of those that waited; the others share the new turn.
                self._number += 1
                self._turn = 0.0
        self._turn += share
