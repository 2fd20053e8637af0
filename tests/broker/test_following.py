"""Readers whose client is sent events in their place, and who come for them where that can't be done at once."""

from __future__ import annotations

import gc
import weakref
from contextlib import suppress
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from starlette_sse.broker import Broker, Position, Subscription
from starlette_sse.broker.channel import COMPACT, PULL_SIZE, Channel
from starlette_sse.broker.live import MOST_FOLLOWED
from starlette_sse.broker.positions import new_epoch
from starlette_sse.exceptions import SlowReaderError
from tests.broker.clients import Client, Ledger
from tests.broker.redis_server import RedisServer

pytestmark = pytest.mark.anyio


class Following(Client):
    """A client with a task that pulls what was not sent past it."""

    busy = False
    held: anyio.Event | None = None
    """What it waits for with what it has pulled."""
    in_hand = False
    left: Subscription | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.offered: list[bytes] = []
        self.pulled: list[bytes] = []
        self._scope = anyio.CancelScope()

    def offer(self, frames: bytes) -> bool:
        if not self.busy:
            self.offered.append(frames)
            self.take(frames)
        return not self.busy

    async def follow(self, group: TaskGroup) -> None:
        await self.connect()
        assert self.subscription is not None
        self.subscription.send_by(self)
        self._scope = anyio.CancelScope()
        self.in_hand = False
        group.start_soon(self._pull)
        await settled()

    async def _pull(self) -> None:
        with self._scope:
            while self.subscription is not None:
                try:
                    frames = await self.subscription.pull()
                except SlowReaderError:
                    await self.disconnect()
                    return
                if frames:
                    self.pulled.append(frames)
                    if self.held is not None:
                        self.in_hand = True
                        await self.held.wait()
                    self.take(frames)
                    self.in_hand = False

    async def stop(self) -> None:
        self._scope.cancel()
        await settled()
        await self.disconnect()

    def go_on(self) -> None:
        """Let go of what was pulled."""
        if self.held is not None:
            self.held.set()
            self.held = None

    def ping(self) -> None:
        """Be told the position, as a ping does it, which waits for what is being sent."""
        if self.subscription is not None and not self.in_hand and self.subscription.resume_id is not None:
            self.take(f"id: {self.subscription.resume_id}\r\n\r\n".encode())


async def settled() -> None:
    """Let every task and callback run that can; three turns for each of sprint, wake and pull."""
    for _ in range(9):
        await checkpoint()


async def following(broker: Broker, group: TaskGroup, *channels: str, **options: Any) -> Following:
    client = Following(broker, channels or ("a",), **options)
    await client.follow(group)
    return client


async def late_comer(broker: Broker) -> Following:
    """Return a client that follows, and whose task does not run yet."""
    client = Following(broker, ("a",))
    await client.connect()
    assert client.subscription is not None
    client.subscription.send_by(client)
    return client


async def test_what_is_published_in_one_turn_is_offered_once() -> None:
    """And nobody is woken for it."""
    broker = Broker(observers=())
    async with anyio.create_task_group() as group:
        client = await following(broker, group)
        for number in range(3):
            await broker.publish("a", str(number))
        assert client.offered == []
        await settled()
        assert len(client.offered) == 1
        assert client.texts == ["0", "1", "2"]
        await broker.publish("a", "3")
        await settled()
        assert len(client.offered) == 2
        assert client.pulled == []
        assert client.subscription is not None
        assert client.subscription.delivered == 4
        await client.stop()


async def test_the_position_is_never_ahead_of_what_was_sent() -> None:
    """A ping between an event and its sending would make a client resume behind what it has not got."""
    broker = Broker(observers=())
    async with anyio.create_task_group() as group:
        client = await following(broker, group)
        assert client.subscription is not None
        before = client.subscription.position
        event_id = await broker.publish("a", "x")
        assert client.subscription.position == before
        await settled()
        assert client.subscription.position == event_id
        await broker.publish("a", "y")
        assert client.subscription.position == event_id
        await client.stop()


async def test_who_can_t_be_sent_it_comes_for_it_and_follows_again() -> None:
    """While its way is busy, its own task has the events; then they pass by it as before."""
    broker = Broker(observers=())
    async with anyio.create_task_group() as group:
        busy, free = await following(broker, group), await following(broker, group)
        busy.busy = True
        await broker.publish("a", "0")
        await settled()
        assert (len(busy.pulled), len(free.offered)) == (1, 1)
        busy.busy = False
        await broker.publish("a", "1")
        await settled()
        assert (len(busy.offered), len(busy.pulled)) == (1, 1)
        assert busy.texts == free.texts == ["0", "1"]
        for client in (busy, free):
            await client.stop()


# Trio runs what is due in a turn in any order, and no stream there sends past its task.
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_who_is_awake_takes_what_is_about_to_be_sent() -> None:
    """A stream that is woken to end would else leave it out."""
    broker = Broker(observers=())
    async with anyio.create_task_group() as group:
        client = await following(broker, group)
        assert client.subscription is not None
        client.subscription.wake()
        await broker.publish("a", "x")
        await settled()
        assert client.texts == ["x"]
        assert client.offered == []
        await client.stop()


async def test_nothing_overtakes_what_was_pulled() -> None:
    """The reader's task has events in its hands: those that follow wait for it, though the way is free again."""
    broker = Broker(observers=())
    async with anyio.create_task_group() as group:
        client = await following(broker, group)
        client.busy, client.held = True, anyio.Event()
        await broker.publish("a", "0")
        await settled()
        client.busy = False
        await broker.publish("a", "1")
        await settled()
        assert client.texts == []
        client.held.set()
        await settled()
        assert client.texts == ["0", "1"]
        await client.stop()


async def test_who_comes_between_an_event_and_its_sending_does_not_get_it() -> None:
    """Its place is behind that, and before what comes in the same turn afterwards."""
    broker = Broker(observers=())
    async with anyio.create_task_group() as group:
        first = await following(broker, group)
        await broker.publish("a", "0")
        late = await late_comer(broker)
        assert late.subscription is not None
        await broker.publish("a", "1")
        await settled()
        assert first.texts == ["0", "1"]
        assert late.offered == []
        assert b"data: 1" in await late.subscription.pull()
        await late.disconnect()
        await first.stop()


async def test_who_comes_behind_all_of_it_is_left_in_peace() -> None:
    """It has nothing to come for, and follows from the next event on."""
    broker = Broker(observers=())
    async with anyio.create_task_group() as group:
        first = await following(broker, group)
        await broker.publish("a", "0")
        late = await late_comer(broker)
        assert late.subscription is not None
        woken: list[None] = []
        late.subscription.notify(lambda: woken.append(None))
        group.start_soon(late._pull)
        await settled()
        assert first.texts == ["0"]
        await broker.publish("a", "1")
        await settled()
        assert late.texts == ["1"]
        assert (len(late.offered), late.pulled, woken) == (1, [], [])
        for client in (first, late):
            await client.stop()


async def test_more_than_leaves_in_one_send_comes_in_several() -> None:
    """In order, each event once."""
    broker = Broker(observers=(), max_bytes=PULL_SIZE * 8)
    async with anyio.create_task_group() as group:
        client = await following(broker, group)
        for number in range(7):
            await broker.publish("a", f"{number}" + " " * (PULL_SIZE // 2))
        await settled()
        assert client.texts == [str(number) for number in range(7)]
        assert client.offered
        assert client.pulled
        assert max(map(len, client.offered + client.pulled)) < 2 * PULL_SIZE
        await client.stop()


async def test_what_left_the_log_in_the_same_turn_is_not_passed_over() -> None:
    """Events that grew too old before anybody could be sent them: the reader is told."""
    broker = Broker(observers=())
    async with anyio.create_task_group() as group:
        client = await following(broker, group, on_lag="reset")
        for number in range(COMPACT + 1):
            await broker.publish("a", str(number))
        broker._log.channels["a"].expire(float("inf"))
        await broker.publish("a", "between")
        await settled()
        assert [reset["reason"] for reset in client.resets] == ["lagged"]
        assert client.offered == []
        await broker.publish("a", "2")
        await settled()
        assert client.texts == ["2"]
        assert len(client.offered) == 1
        await client.stop()


async def test_who_reads_several_channels_gets_them_in_one_order() -> None:
    """Whatever order the channels send in."""
    broker = Broker(observers=())
    async with anyio.create_task_group() as group:
        both, one = await following(broker, group, "a", "b"), await following(broker, group, "b")
        for number in range(10):
            await broker.publish("ab"[number % 3 == 0], str(number))
        await settled()
        assert both.texts == [str(number) for number in range(10)]
        assert one.texts == ["0", "3", "6", "9"]
        assert (both.offered, len(one.offered)) == ([], 1)
        for client in (both, one):
            await client.stop()


async def test_who_reads_several_channels_is_sent_what_comes_from_one() -> None:
    """Nobody is woken as long as there is nothing to put in order."""
    broker = Broker(observers=())
    async with anyio.create_task_group() as group:
        client = await following(broker, group, "a", "b", "c")
        for turn, channel in enumerate("abbac"):
            await broker.publish(channel, f"{turn}.0")
            await broker.publish(channel, f"{turn}.1")
            await settled()
        assert client.texts == [f"{turn}.{number}" for turn in range(5) for number in range(2)]
        assert (len(client.offered), client.pulled) == (5, [])
        await client.stop()


@pytest.mark.parametrize(("channels", "followed"), [(MOST_FOLLOWED, True), (MOST_FOLLOWED + 1, False)])
async def test_who_reads_many_channels_is_woken(channels: int, followed: bool) -> None:
    """To ask each time whether something is due from any of them would cost more than that."""
    broker = Broker(observers=())
    async with anyio.create_task_group() as group:
        client = await following(broker, group, *map(str, range(channels)))
        await broker.publish("0", "x")
        await settled()
        assert client.texts == ["x"]
        assert (len(client.offered), len(client.pulled)) == ((1, 0) if followed else (0, 1))
        await client.stop()


async def test_who_comes_for_one_channel_s_events_takes_older_ones_of_another_first() -> None:
    """Those were about to be sent, and would be taken for had already."""
    broker = Broker(observers=())
    async with anyio.create_task_group() as group:
        client = await following(broker, group, "a", "b")
        assert client.subscription is not None
        await broker.publish("a", "0")
        client.busy = True
        # What one channel's sprint leaves to the reader is taken before the other channel's has begun.
        await broker.publish("b", "1")
        broker._log.channels["b"].sprint()
        frames = client.subscription.take()
        assert 0 < frames.find(b"data: 0") < frames.find(b"data: 1")
        client.busy = False
        await settled()
        await client.stop()


async def test_what_was_read_elsewhere_is_not_sent_again() -> None:
    """A reader may have had from the backend what comes to this process later."""
    broker = Broker(observers=())
    async with anyio.create_task_group() as group:
        client = await following(broker, group)
        assert client.subscription is not None
        client.subscription._settle(broker._log.seen + 2)
        for number in range(4):
            await broker.publish("a", str(number))
        await settled()
        assert client.texts == ["2", "3"]
        await client.stop()


async def test_who_has_left_is_sent_nothing() -> None:
    """And nothing keeps its way."""
    broker = Broker(observers=())
    async with anyio.create_task_group() as group:
        client = await following(broker, group)
        await broker.publish("a", "x")
        await client.stop()
        await settled()
        sent = len(client.offered)
        await broker.publish("a", "y")
        await settled()
        assert len(client.offered) == sent
        assert broker._log.channels["a"].followers == {}
    gone = weakref.ref(client)
    del client
    gc.collect()
    assert gone() is None


async def test_who_leaves_while_others_are_sent_to_is_sent_nothing() -> None:
    """As when one client's failure makes the app end another's stream."""
    broker = Broker(observers=())
    async with anyio.create_task_group() as group:
        first, second = await following(broker, group), await following(broker, group)
        offer = first.offer

        def end_the_second(frames: bytes) -> bool:
            second._scope.cancel()
            second.left = second.subscription
            assert second.left is not None
            second.left.leave()
            return offer(frames)

        first.offer = end_the_second  # type: ignore[method-assign]
        await broker.publish("a", "x")
        await settled()
        assert (first.texts, second.offered) == (["x"], [])
        assert second.left is not None
        assert second.left._ready == []
        await first.stop()


async def test_a_way_that_breaks_costs_the_others_nothing() -> None:
    """Whatever it raises, they are sent what it was, in order, without waiting for the next event."""
    broker = Broker(observers=())
    async with anyio.create_task_group() as group:
        clients = [await following(broker, group) for _ in range(4)]

        def sprint(self: Channel) -> None:
            with suppress(KeyboardInterrupt):
                original(self)

        def interrupt(frames: bytes) -> bool:
            clients[1].offer = offer  # type: ignore[method-assign]
            raise KeyboardInterrupt

        original, offer = Channel.sprint, clients[1].offer
        clients[1].offer = interrupt  # type: ignore[method-assign]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Channel, "sprint", sprint)
            await broker.publish("a", "0")
            await settled()
            assert [client.texts for client in clients[::2]] == [["0"], ["0"]]
            await broker.publish("a", "1")
            await settled()
        for client in clients:
            assert client.texts == ["0", "1"]
            await client.stop()


async def test_what_was_sent_is_not_kept_longer_than_the_log_keeps_it() -> None:
    """Not for those at the same place either."""
    broker = Broker(observers=())
    async with anyio.create_task_group() as group:
        client = await following(broker, group)
        await broker.publish("a", "x")
        await settled()
        channel = broker._log.channels["a"]
        channel.expire(float("inf"))
        assert channel._memo is None
        await client.stop()


async def test_a_reset_comes_before_what_was_not_sent_yet() -> None:
    """Continuity broke in the turn in which an event came."""
    broker = Broker(observers=())
    async with anyio.create_task_group() as group:
        client = await following(broker, group)
        await broker.publish("a", "x")
        log = broker._log
        log.lose(log.channels["a"], log.seen)
        await settled()
        assert [reset["reason"] for reset in client.resets] == ["lost"]
        assert client.texts == []
        await broker.publish("a", "y")
        await settled()
        assert client.texts == ["y"]
        await client.stop()


# Any order of what may happen

#: What the three of a story read.
CHANNELS = (("a",), ("a", "b"), ("b", "c", "a"))

who = st.integers(0, 2)
where = st.sampled_from("abc")
story = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.text("abc", min_size=1, max_size=6)),
        st.tuples(st.just("turn"), st.integers(1, 3)),
        st.tuples(st.just("busy"), who, st.booleans()),
        st.tuples(st.just("hold"), who),
        st.tuples(st.just("go on"), who),
        st.tuples(st.just("ping"), who),
        st.tuples(st.just("reconnect"), who),
        st.tuples(st.just("wake"), who),
        st.tuples(st.just("lose"), where),
        st.tuples(st.just("expire"), where),
        st.tuples(st.just("large"), where),
    ),
    max_size=40,
)


async def tell(story: list[tuple[Any, ...]], broker: Broker) -> None:
    ledger = Ledger()
    async with anyio.create_task_group() as group:
        clients = [await following(broker, group, *channels, on_lag="reset") for channels in CHANNELS]
        for what, *args in story:
            client = clients[args[0] if what in {"busy", "go on", "hold", "ping", "reconnect", "wake"} else 0]
            if what == "publish":
                for channel in args[0]:
                    await ledger.publish(broker, channel)
            elif what == "large":
                await ledger.publish(broker, args[0], padding=PULL_SIZE // 3)
            elif what == "turn":
                for _ in range(args[0]):
                    await checkpoint()
            elif what == "busy":
                client.busy = args[1]
            elif what == "hold":
                client.held = client.held or anyio.Event()
            elif what == "go on":
                client.go_on()
            elif what == "ping":
                client.ping()
            elif what == "lose" and args[0] in broker._log.channels:
                broker._log.lose(broker._log.channels[args[0]], broker._log.seen)
            elif what == "expire" and args[0] in broker._log.channels:
                broker._log.channels[args[0]].expire(float("inf"))
            elif what == "wake" and client.subscription is not None:
                client.subscription.wake()
            elif what == "reconnect":
                await client.stop()
                await client.follow(group)
        for client in clients:
            client.go_on()
            if client.subscription is None:
                await client.follow(group)
        for channel in "abc":
            await ledger.publish(broker, channel)
        with anyio.fail_after(10):
            for client in clients:
                last = max(place.seq for channel, place, _ in ledger.events if channel in client.channels)
                while (place := Position.parse(client.last_event_id)) is None or place.seq < last:
                    await checkpoint()
        for client in clients:
            client.check(ledger)
            await client.stop()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(story=story, history=st.integers(1, 8))
@example(story=[("publish", "a"), ("ping", 1), ("reconnect", 1)], history=4)
async def test_whatever_happens_every_event_comes_once_or_a_reset_does(
    story: list[tuple[Any, ...]], history: int
) -> None:
    """Sent past the reader or pulled by it, in any turn."""
    await tell(story, Broker(observers=(), history=history, max_bytes=PULL_SIZE * 4))


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(story=story, history=st.integers(1, 8))
async def test_whatever_happens_every_event_of_redis_comes_once_or_a_reset_does(
    story: list[tuple[Any, ...]], history: int, shared_redis: RedisServer
) -> None:
    """Where events come to this process a while after they were published, and pages from the server in between."""
    shared_redis.command("FLUSHALL")
    bounds = {"history": history, "max_bytes": PULL_SIZE * 4}
    async with Broker(shared_redis.url, prefix=new_epoch(), observers=(), **bounds) as broker:
        await tell([step for step in story if step[0] != "lose"], broker)
