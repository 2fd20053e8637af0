"""Everything that a broker's backend must do, as checks that run against any backend.

A check takes a function that makes a backend of a name; two of the same name are two processes at one log, if the
backend can be shared at all. With pytest, a backend of your own is proven by::

    @pytest.mark.anyio
    @pytest.mark.parametrize("check", conformance.CHECKS, ids=conformance.name_of)
    async def test_my_backend_keeps_the_contract(check: conformance.Check) -> None:
        await check(lambda name: MyBackend(prefix=name))

and :data:`SHARED_CHECKS` beside it if several processes can use it; :func:`run` takes them all without pytest. The
checks run on the event loop that they are called in, and each uses a name of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise
from random import Random

import anyio
import anyio.lowlevel

from starlette_sse.broker.base import Backend
from starlette_sse.broker.entries import Entry, Gap, Page
from starlette_sse.broker.positions import Position, ResetReason, new_epoch
from starlette_sse.testing.peers import PATIENCE, SMALL, ConformanceError, Peer, body_of, expect, peer, text_of

__all__ = ["CHECKS", "SHARED_CHECKS", "Check", "ConformanceError", "Factory", "Peer", "name_of", "peer", "run"]

Factory = Callable[[str], Backend]
Check = Callable[[Factory], Awaitable[None]]


def name_of(check: Check) -> str:
    """Return the name of a check, for a test's id."""
    return getattr(check, "__name__", str(check))


async def run(make: Factory, *, shared: bool) -> None:
    """Run every check, one after another.

    :param shared: whether two backends of one name share a log.
    :raises ExceptionGroup: what each failed check raised.
    """
    failures = []
    for check in (*CHECKS, *(SHARED_CHECKS if shared else ())):
        try:
            await check(make)
        except Exception as exc:  # noqa: BLE001 - raised with the others
            exc.add_note(f"in the check {name_of(check)}")
            failures.append(exc)
    if failures:
        raise ExceptionGroup("the backend does not keep its contract", failures)


async def ids_are_positions_in_one_order(make: Factory) -> None:
    """Every append's id is newer than those of all appends that have returned, whatever their channels."""
    async with peer(make(new_epoch())) as here:
        positions = [await here.append(channel) for channel in "abcab"]
        expect(len({position.epoch for position in positions}) == 1, "ids of one log differ in the epoch")
        expect(ascending([position.seq for position in positions]), f"ids are not in order: {positions}")
        expect(await here.backend.top() == positions[-1], "the log's top is not its newest event")


async def every_event_is_heard_in_order(make: Factory) -> None:
    """What is listened to comes into the log whole, in order, each event linked to its predecessor."""
    async with peer(make(new_epoch())) as here:
        await here.listen("a", "b")
        sent = [(channel, await here.append(channel, f"{n}", f"key {n}")) for n, channel in enumerate("abcabbac")]
        for name in "ab":
            wanted = [position for channel, position in sent if channel == name]
            entries = await here.heard(name, wanted[-1].seq)
            expect([entry.id for entry in entries] == [str(position) for position in wanted], f"{name!r} is not whole")
            check_entries(name, entries)
            expect(all(entry.key is not None and entry.key.startswith("key ") for entry in entries), "keys are lost")


async def only_what_is_listened_to_is_heard(make: Factory) -> None:
    """A channel that was left is heard no more, and is whole again when it is listened to again."""
    async with peer(make(new_epoch())) as here:
        await here.listen("a", "b")
        here.leave("a")
        expect("a" not in here.log.channels, "a channel that was left is still held")
        await here.append("a", "missed")
        await here.listen("a")
        last = await here.append("a", "heard")
        entries = await here.heard("a", last.seq)
        floor = here.log.channels["a"].floor or 0
        expect([entry.seq for entry in entries if entry.seq > floor][-1:] == [last.seq], "a channel stays silent")
        for _ in range(3):
            here.leave("a")
            await here.listen("a")
        last = await here.append("a", "again")
        await here.heard("a", last.seq)


async def appends_at_once_are_each_there_once(make: Factory) -> None:
    """Many tasks append at the same time: each event is in the log once, in one order, with whole links."""
    async with peer(make(new_epoch())) as here:
        await here.listen("a", "b")
        async with anyio.create_task_group() as tasks:
            for n in range(60):
                tasks.start_soon(here.append, "ab"[n % 2], f"event {n}")
        top = await here.backend.top()
        last = await here.append("a"), await here.append("b")
        for place, name in enumerate("ab"):
            entries = (await here.heard(name, last[place].seq))[:-1]
            expect(sorted(map(text_of, entries)) == sorted(f"event {n}" for n in range(place, 60, 2)), "not each once")
            check_entries(name, entries)
        read = await here.pages("ab", Position(top.epoch, 0), 1000)
        expect(ascending([entry.seq for entry in read]), "what was read is not in order")
        expect(len(read) == 62, f"{len(read)} of 62 events were read")


async def reading_goes_on_by_pages(make: Factory) -> None:
    """Pages of any size, after any position, add up to everything behind it, of all channels in one order."""
    async with peer(make(new_epoch())) as here:
        start = await here.backend.top()
        sent = [await here.append("abc"[n % 3], f"{n}", "k" if n % 2 else None) for n in range(40)]
        everything = await here.pages("abc", start, 10**6)
        expect([entry.seq for entry in everything] == [position.seq for position in sent], "a page is not whole")
        expect([entry.key for entry in everything] == [None, "k"] * 20, "keys are lost")
        for limit in (1, SMALL, 400):
            for first in (0, 7, 39):
                after = start if first == 0 else sent[first - 1]
                entries = await here.pages("ac", after, limit)
                wanted = [position.seq for n, position in enumerate(sent) if n >= first and n % 3 != 1]
                expect(
                    [entry.seq for entry in entries] == wanted, f"pages of {limit} bytes after {after} are not whole"
                )
        check_entries("b", [entry for entry in everything if entry.channel == "b"])


async def a_page_is_about_as_large_as_asked(make: Factory) -> None:
    """A page holds at least one event, and stops soon behind its limit."""
    async with peer(make(new_epoch())) as here:
        start = await here.backend.top()
        for n in range(30):
            await here.append("ab"[n % 2], "x" * 1000)
        size = sum(len(entry.frame) for entry in (await here.page("ab", start, 5000)).entries)
        expect(1000 < size < 10_000, f"a page of about 5000 bytes has {size}")
        expect(len((await here.page("ab", start, 1)).entries) == 1, "a page of one byte does not hold one event")


async def quiet_channels_are_complete(make: Factory) -> None:
    """A channel where nothing happened can be read from any position of the log: there is nothing, up to its end."""
    async with peer(make(new_epoch())) as here:
        start = await here.backend.top()
        positions = [start, *[await here.append("busy") for _ in range(5)]]
        for position in positions:
            page = await here.page(["quiet"], position)
            expect(not page.entries, f"a quiet channel after {position} gave {page}")
            expect(page.upto == positions[-1], "a quiet channel's page is not up to the end")


async def what_is_missing_is_a_gap(make: Factory) -> None:
    """A position that events are missing after, or that is none of this log, is answered by a gap: never by a hole."""
    async with peer(make(new_epoch()), history=5) as here:
        start = await here.backend.top()
        sent = [await here.append("a", f"{n}") for n in range(12)]
        newest = sent[-1]
        cases = {
            ResetReason.EVICTED: [start, sent[0], sent[5]],
            ResetReason.FUTURE: [Position(newest.epoch, newest.seq + 1), Position(newest.epoch, newest.seq + 10**9)],
            ResetReason.EPOCH: [Position("nobodys", newest.seq), Position("nobodys", 0)],
        }
        for reason, positions in cases.items():
            for position in positions:
                gap = await here.gap("a", position)
                expect(gap.reason is reason, f"after {position} the reason is {gap}")
                expect(gap.newest == newest, f"a gap's newest is not {newest}: {gap}")
        gap = await here.gap("ab", start)
        if gap.oldest is not None:
            kept = await here.pages("ab", gap.oldest)
            expect([entry.id for entry in kept] == [str(position) for position in sent[-5:]], "the oldest is not it")
        expect(len(await here.pages("a", sent[6])) == 5, "what is kept cannot be read")


async def retention_counts_events(make: Factory) -> None:
    """Each channel keeps as many events as ``history`` says, whatever the others do."""
    async with peer(make(new_epoch()), history=3) as here:
        sent = [await here.append("a", f"{n}") for n in range(3)]
        for _ in range(9):
            await here.append("b")
        expect(len(await here.pages("a", Position(sent[0].epoch, sent[0].seq - 1))) == 3, "another channel evicted it")
        await here.append("a")
        await here.gap("a", Position(sent[0].epoch, sent[0].seq - 1))
        expect(len(await here.pages("a", sent[0])) == 3, "fewer events are kept than history says")


async def retention_counts_bytes(make: Factory) -> None:
    """Each channel keeps about ``max_bytes``, and always the newest event."""
    async with peer(make(new_epoch()), max_bytes=10_000) as here:
        sent = [await here.append("a", "x" * 900) for _ in range(30)]
        kept = 0
        for place in range(29, 0, -1):
            if isinstance(await here.backend.read(["a"], sent[place - 1], SMALL), Gap):
                break
            kept += 1
        expect(5 <= kept <= 11, f"{kept} events of 900 bytes are kept in 10,000 bytes")
        last = await here.append("a", "x" * 9_000)
        expect(len(await here.pages("a", sent[-1])) == 1, f"the newest event {last} is not kept")


async def retention_counts_seconds(make: Factory) -> None:
    """An event older than ``max_age`` is read no more, also if nothing else happens; the channel goes on."""
    async with peer(make(new_epoch()), max_age=0.3) as here:
        start = await here.backend.top()
        last = await here.append("a")
        page: Page | Gap = await here.backend.read(["a"], start, SMALL)
        with anyio.move_on_after(PATIENCE):
            while not isinstance(page, Gap):
                await anyio.sleep(0.05)
                page = await here.backend.read(["a"], start, SMALL)
        expect(isinstance(page, Gap), "an event is kept for ever")
        await here.page("a", last)
        newest = await here.append("a", "new")
        expect([entry.seq for entry in await here.pages("a", last)] == [newest.seq], "the channel does not go on")


async def listening_begins_without_a_hole(make: Factory) -> None:
    """What is read up to a channel's floor and what is heard behind it are everything, while others append."""
    async with peer(make(new_epoch()), history=10_000, max_bytes=10**7) as here:
        start = await here.backend.top()
        names = [f"channel {n}" for n in range(8)]
        random = Random(1)  # noqa: S311 - the same mixture each time
        sent: list[tuple[str, int]] = []

        async def publish() -> None:
            for _ in range(100):
                name = random.choice(names)
                sent.append((name, (await here.append(name)).seq))
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(publish)
            for name in names:
                await here.listen(name)
                await anyio.lowlevel.checkpoint()
        for name in names:
            last = await here.append(name)
            heard = [entry.seq for entry in await here.heard(name, last.seq)]
            floor = here.log.channels[name].floor or 0
            read = [entry.seq for entry in await here.pages([name], start, 1000) if entry.seq <= floor]
            wanted = sorted(seq for channel, seq in sent if channel == name)
            expect(read + [seq for seq in heard if seq > floor] == [*wanted, last.seq], f"{name!r} has a hole")


async def any_text_is_a_name(make: Factory) -> None:
    """Channels and keys may hold any text, and none is taken for another."""
    async with peer(make(new_epoch())) as here:
        start = await here.backend.top()
        names = ["a b", "a*", "{a}", "a:b", "a\nb", "\x00", "ä", "日本", "[a]", "0", "-1 2 3", "a" * 1000]
        await here.listen(*names)
        for name in names:
            await here.append(name, f"in {name!r}", name)
        for name in names:
            read = await here.pages([name], start)
            heard = await here.heard(name, read[-1].seq)
            for entries in (read, heard):
                expect([entry.key for entry in entries] == [name], f"{name!r} holds {entries}")
                expect([entry.frame.count(b"\r\n\r\n") for entry in entries] == [1], f"{name!r} holds {entries}")


async def it_can_be_opened_again(make: Factory) -> None:
    """A backend that was closed works again, at the same log or a new one."""
    backend = make(new_epoch())
    async with peer(backend) as here:
        await here.listen("a")
        before = await here.append("a")
    async with peer(backend) as here:
        await here.listen("a")
        after = await here.append("a")
        await here.heard("a", after.seq)
        expect(after.epoch != before.epoch or after.seq > before.seq, f"the id {after} is used again")


async def every_process_hears_every_event(make: Factory) -> None:
    """Two processes at one log hear and read the same events in the same order, with the same ids."""
    name = new_epoch()
    async with peer(make(name)) as here, peer(make(name)) as there:
        start = await here.backend.top()
        await here.listen("a", "b")
        await there.listen("a", "b")
        async with anyio.create_task_group() as tasks:
            for n in range(40):
                tasks.start_soon((here, there)[n % 2].append, "ab"[n // 2 % 2], f"{n}")
        for channel in "ab":
            last = await here.append(channel)
            heard = [[entry.id for entry in await side.heard(channel, last.seq)] for side in (here, there)]
            read = [[entry.id for entry in await side.pages([channel], start)] for side in (here, there)]
            expect(heard[0] == heard[1] == read[0] == read[1], f"two processes disagree about {channel!r}")
            expect(len(heard[0]) == 21, "an event is missing")


async def a_log_outlives_its_processes(make: Factory) -> None:
    """What one process appended can be read by a later one, and its ids are still valid."""
    name = new_epoch()
    async with peer(make(name)) as here:
        sent = [await here.append("a", f"{n}") for n in range(3)]
    async with peer(make(name)) as there:
        entries = await there.pages("a", sent[0])
        expect([entry.id for entry in entries] == [str(position) for position in sent[1:]], "the log was lost")


#: What every backend must do.
CHECKS: tuple[Check, ...] = (
    ids_are_positions_in_one_order,
    every_event_is_heard_in_order,
    only_what_is_listened_to_is_heard,
    appends_at_once_are_each_there_once,
    reading_goes_on_by_pages,
    a_page_is_about_as_large_as_asked,
    quiet_channels_are_complete,
    what_is_missing_is_a_gap,
    retention_counts_events,
    retention_counts_bytes,
    retention_counts_seconds,
    listening_begins_without_a_hole,
    any_text_is_a_name,
    it_can_be_opened_again,
)

#: What a backend for several processes must do as well.
SHARED_CHECKS: tuple[Check, ...] = (every_process_hears_every_event, a_log_outlives_its_processes)


def check_entries(channel: str, entries: Sequence[Entry]) -> None:
    """Check that entries are a channel's, in order, whole and well formed."""
    for older, newer in pairwise(entries):
        expect(newer.prev == older.seq, f"{newer.id} follows {newer.prev}, not {older.id}")
    for entry in entries:
        expect(entry.channel == channel, f"{entry} is not in {channel!r}")
        expect(entry.prev < entry.seq, f"{entry.id} follows {entry.prev}")
        expect(entry.frame == b"id: %b\r\n" % entry.id.encode() + body_of(text_of(entry)), f"the frame {entry.frame!r}")


def ascending(numbers: Sequence[int]) -> bool:
    return all(older < newer for older, newer in pairwise(numbers))
