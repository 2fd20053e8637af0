"""The contract's check finds backends that break it, and says so with an error of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import anyio
import pytest

from starlette_sse.broker.base import Backend
from starlette_sse.broker.entries import Entry, Gap, Page, Retention
from starlette_sse.broker.log import Log
from starlette_sse.broker.memory import MemoryBackend
from starlette_sse.broker.positions import Position, ResetReason, new_epoch
from starlette_sse.exceptions import BrokerUnavailableError
from starlette_sse.testing import conformance
from starlette_sse.testing.conformance import ConformanceError
from tests.both_loops import anyio_backend

__all__ = ["anyio_backend"]

pytestmark = pytest.mark.anyio


class Holes(MemoryBackend):
    """Reads on over what was evicted, where several channels are asked for."""

    async def read(self, channels: Sequence[str], after: Position, limit: int) -> Page | Gap:
        answer = await super().read(channels, after, limit)
        if isinstance(answer, Gap) and answer.reason is ResetReason.EVICTED and len(channels) > 1:
            held = [self._log.channels[name] for name in channels if name in self._log.channels]
            return self._log._page(held, after.seq, limit)
        return answer


class NeverLeaves(MemoryBackend):
    """Is fed for ever with what was listened to once."""

    def unlisten(self, channel: str) -> None:
        """And knows nothing of it."""


class WrongReason(MemoryBackend):
    """Takes every gap for one in time."""

    async def read(self, channels: Sequence[str], after: Position, limit: int) -> Page | Gap:
        answer = await super().read(channels, after, limit)
        return replace(answer, reason=ResetReason.EVICTED) if isinstance(answer, Gap) else answer


class Unnumbered(MemoryBackend):
    """Calls its events by something else than ids."""

    async def append(self, channel: str, body: bytes, key: str | None) -> str:
        await super().append(channel, body, key)
        return "an event"


class ManyEpochs(MemoryBackend):
    """Has an epoch for each event."""

    async def append(self, channel: str, body: bytes, key: str | None) -> str:
        return str(Position(new_epoch(), self._log.seen + 1)) if await super().append(channel, body, key) else ""


class Backwards(MemoryBackend):
    """Counts down."""

    async def append(self, channel: str, body: bytes, key: str | None) -> str:
        await super().append(channel, body, key)
        return str(Position(self._log.epoch, 1000 - self._log.seen))


class Topless(MemoryBackend):
    """Takes its log for empty."""

    async def top(self) -> Position:
        return Position(self._log.epoch, 0)


class Keyless(MemoryBackend):
    """Loses keys."""

    async def append(self, channel: str, body: bytes, key: str | None) -> str:
        return await super().append(channel, body, None)


class Careless(MemoryBackend):
    """Loses the data."""

    async def append(self, channel: str, body: bytes, key: str | None) -> str:
        return await super().append(channel, b"data: x\r\nevent: y\r\n\r\n", key)


class Twice(MemoryBackend):
    """Appends what it is not sure of once more."""

    async def append(self, channel: str, body: bytes, key: str | None) -> str:
        await super().append(channel, body, key)
        return await super().append(channel, body, key)


class Doubling(MemoryBackend):
    """Sends each event twice."""

    async def append(self, channel: str, body: bytes, key: str | None) -> str:
        return await super().append(channel, 2 * body, key)


class Mixing(MemoryBackend):
    """Reads all channels, whichever it is asked for."""

    async def read(self, channels: Sequence[str], after: Position, limit: int) -> Page | Gap:
        return await super().read([*self._log.channels], after, limit)


class Blank(MemoryBackend):
    """Reads pages without events."""

    async def read(self, channels: Sequence[str], after: Position, limit: int) -> Page | Gap:
        answer = await super().read(channels, after, limit)
        return answer if isinstance(answer, Gap) else replace(answer, entries=[])


class Mirrored(MemoryBackend):
    """Reads the newest first."""

    async def read(self, channels: Sequence[str], after: Position, limit: int) -> Page | Gap:
        answer = await super().read(channels, after, limit)
        return answer if isinstance(answer, Gap) else replace(answer, entries=answer.entries[::-1])


class Unlinked(MemoryBackend):
    """Does not tell what an event follows."""

    async def read(self, channels: Sequence[str], after: Position, limit: int) -> Page | Gap:
        answer = await super().read(channels, after, limit)
        if isinstance(answer, Gap):
            return answer
        names = ("channel", "epoch", "seq", "frame", "key")
        entries = [Entry(prev=0, **{name: getattr(entry, name) for name in names}) for entry in answer.entries]
        return replace(answer, entries=entries)


class Generous(MemoryBackend):
    """Reads some events at least."""

    async def read(self, channels: Sequence[str], after: Position, limit: int) -> Page | Gap:
        return await super().read(channels, after, max(limit, 3000))


class Floorless(MemoryBackend):
    """Does not say from where on it listens."""

    async def listen(self, channels: Sequence[str]) -> None:
        """And nothing else either."""


class Mute(MemoryBackend):
    """Feeds nothing to those who listen."""

    async def append(self, channel: str, body: bytes, key: str | None) -> str:
        self._log.prove(self._log.seen + 1)
        return str(self._log.position)


class Greedy(MemoryBackend):
    """Reads everything at once."""

    async def read(self, channels: Sequence[str], after: Position, limit: int) -> Page | Gap:
        return await super().read(channels, after, 10**9)


class Stuck(MemoryBackend):
    """Makes no way where there is nothing to read."""

    async def read(self, channels: Sequence[str], after: Position, limit: int) -> Page | Gap:
        answer = await super().read(channels, after, limit)
        return answer if isinstance(answer, Gap) or answer.entries else replace(answer, upto=after)


class Overlapping(MemoryBackend):
    """Reads the last event of a page once more."""

    async def read(self, channels: Sequence[str], after: Position, limit: int) -> Page | Gap:
        answer = await super().read(channels, after, limit)
        again = await super().read(channels, Position(after.epoch, max(0, after.seq - 1)), 1)
        if isinstance(answer, Gap) or isinstance(again, Gap) or not after.seq:
            return answer
        return replace(answer, entries=[*again.entries[:1], *answer.entries])


class Standing(MemoryBackend):
    """Reads the same page again and again."""

    async def read(self, channels: Sequence[str], after: Position, limit: int) -> Page | Gap:
        return await super().read(channels, Position(after.epoch, 0), 1)


class OldNews(MemoryBackend):
    """Does not know its end where something is missing."""

    async def read(self, channels: Sequence[str], after: Position, limit: int) -> Page | Gap:
        answer = await super().read(channels, after, limit)
        return replace(answer, newest=Position(self._log.epoch, 0)) if isinstance(answer, Gap) else answer


class Hasty(MemoryBackend):
    """Begins behind a gap later than it could."""

    async def read(self, channels: Sequence[str], after: Position, limit: int) -> Page | Gap:
        answer = await super().read(channels, after, limit)
        return replace(answer, oldest=answer.newest) if isinstance(answer, Gap) else answer


class Hoarding(MemoryBackend):
    """Keeps everything."""

    async def open(self, log: Log) -> None:
        log.retention = Retention(history=10**6, max_age=10**6, max_bytes=10**9)
        await super().open(log)


class Shared(MemoryBackend):
    """Has one history for all channels."""

    async def read(self, channels: Sequence[str], after: Position, limit: int) -> Page | Gap:
        if after.seq < self._log.seen - self._log.retention.history:
            return self._log.gap(channels, ResetReason.EVICTED)
        return await super().read(channels, after, limit)


class Oblivious(MemoryBackend):
    """Begins anew each time, and does not say so."""

    async def open(self, log: Log) -> None:
        self._log = log
        log.begin(Position("always", 0))


@pytest.mark.parametrize(
    ("backend", "check", "told"),
    [
        (Unnumbered, conformance.ids_are_positions_in_one_order, "append returned 'an event', which is not an id"),
        (ManyEpochs, conformance.ids_are_positions_in_one_order, "ids of one log differ in the epoch"),
        (Backwards, conformance.ids_are_positions_in_one_order, "ids are not in order"),
        (Topless, conformance.ids_are_positions_in_one_order, "the log's top is not its newest event"),
        (Twice, conformance.every_event_is_heard_in_order, "'a' is not whole"),
        (Keyless, conformance.every_event_is_heard_in_order, "keys are lost"),
        (Careless, conformance.every_event_is_heard_in_order, "the frame"),
        (Floorless, conformance.every_event_is_heard_in_order, "'a' has no floor after listen"),
        (Mute, conformance.every_event_is_heard_in_order, "'a' was not heard up to 7 within"),
        (NeverLeaves, conformance.only_what_is_listened_to_is_heard, "a channel that was left is still held"),
        (Mute, conformance.only_what_is_listened_to_is_heard, "'a' was not heard"),
        (Careless, conformance.appends_at_once_are_each_there_once, "not each once"),
        (Mirrored, conformance.appends_at_once_are_each_there_once, "what was read is not in order"),
        (Topless, conformance.appends_at_once_are_each_there_once, "0 of 62 events were read"),
        (Mute, conformance.reading_goes_on_by_pages, "a page is not whole"),
        (Keyless, conformance.reading_goes_on_by_pages, "keys are lost"),
        (Overlapping, conformance.reading_goes_on_by_pages, "is out of it"),
        (Standing, conformance.reading_goes_on_by_pages, "it makes no way"),
        (Unlinked, conformance.reading_goes_on_by_pages, "follows 0, not"),
        (Generous, conformance.a_page_is_about_as_large_as_asked, "a page of one byte does not hold one event"),
        (Greedy, conformance.a_page_is_about_as_large_as_asked, "a page of about 5000 bytes has"),
        (Mixing, conformance.quiet_channels_are_complete, "a quiet channel after .* gave"),
        (Stuck, conformance.quiet_channels_are_complete, "a quiet channel's page is not up to the end"),
        (Doubling, conformance.any_text_is_a_name, "'a b' holds"),
        (Keyless, conformance.any_text_is_a_name, "'a b' holds"),
        (WrongReason, conformance.what_is_missing_is_a_gap, "the reason is"),
        (OldNews, conformance.what_is_missing_is_a_gap, "a gap's newest is not"),
        (Hasty, conformance.what_is_missing_is_a_gap, "the oldest is not it"),
        (Hoarding, conformance.what_is_missing_is_a_gap, "gave no gap"),
        (Blank, conformance.retention_counts_events, "another channel evicted it"),
        (Blank, conformance.retention_counts_bytes, "is not kept"),
        (Blank, conformance.retention_counts_seconds, "the channel does not go on"),
        (Shared, conformance.retention_counts_events, "met a gap"),
        (Hoarding, conformance.retention_counts_events, "gave no gap"),
        (Hoarding, conformance.retention_counts_bytes, "events of 900 bytes are kept in 10,000 bytes"),
        (Hoarding, conformance.retention_counts_seconds, "an event is kept for ever"),
        (Mute, conformance.listening_begins_without_a_hole, "was not heard"),
        (Twice, conformance.listening_begins_without_a_hole, "has a hole"),
        (Oblivious, conformance.it_can_be_opened_again, "the id always-1 is used again"),
        (MemoryBackend, conformance.every_process_hears_every_event, "was not heard"),
        (MemoryBackend, conformance.a_log_outlives_its_processes, "the log was lost"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_each_check_finds_who_breaks_its_part(
    backend: type[Backend], check: conformance.Check, told: str
) -> None:
    """And says what is wrong."""
    with pytest.raises(ConformanceError, match=told):
        await check(lambda _: backend())


async def test_a_peer_closes_its_backend_though_it_is_cancelled() -> None:
    """A server's connections are given back by a check that takes too long, too."""
    closed = []

    class Polite(MemoryBackend):
        async def close(self) -> None:
            await anyio.sleep(1)
            closed.append("closed")

    with anyio.CancelScope() as scope:
        async with conformance.peer(Polite()):
            scope.cancel()
            await anyio.sleep_forever()
    assert closed == ["closed"]


async def test_a_run_names_the_checks_that_failed_whatever_they_raised() -> None:
    """Those of processes are for backends that have several."""

    class Away(MemoryBackend):
        async def top(self) -> Position:
            raise BrokerUnavailableError("away")

    with pytest.raises(ExceptionGroup, match="the backend does not keep its contract") as caught:
        await conformance.run(lambda _: Away(), shared=False)
    notes = [note for error in caught.value.exceptions for note in error.__notes__]
    assert "in the check ids_are_positions_in_one_order" in notes
    assert all(isinstance(error, BrokerUnavailableError) for error in caught.value.exceptions)
    with pytest.raises(ExceptionGroup) as caught:
        await conformance.run(lambda _: MemoryBackend(), shared=True)
    assert len(caught.value.exceptions) == len(conformance.SHARED_CHECKS)


@pytest.mark.parametrize(
    ("backend", "told"),
    [
        (Holes, "gave no gap"),
        (NeverLeaves, "a channel that was left is still held"),
        (WrongReason, "the reason is"),
    ],
)
async def test_a_backend_that_breaks_the_contract_is_found(backend: type[Backend], told: str) -> None:
    """Each failed check raises an error of its own, and not a group."""
    with pytest.raises(ExceptionGroup) as caught:
        await conformance.run(lambda _: backend(), shared=False)
    (error,) = caught.value.exceptions
    assert isinstance(error, ConformanceError)
    assert told in str(error)
