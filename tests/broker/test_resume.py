"""What a reader gets that was away, or that cannot have everything."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from starlette_sse import ServerSentEvent
from starlette_sse.broker import Position
from starlette_sse.decoding import EventDecoder, MessageEvent
from starlette_sse.exceptions import BrokerClosedError, InvalidEventError
from tests.broker.conftest import Diary, MakeBroker
from tests.broker.reading import take, texts
from tests.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(backend_and_loop: tuple[str, str]) -> str:
    return backend_and_loop[1]


def reset_of(event: MessageEvent) -> dict[str, Any]:
    assert event.type == "stream-reset"
    content: dict[str, Any] = json.loads(event.data)
    assert event.last_event_id == content["newest"]
    return content


async def test_a_reader_resumes_behind_any_id_of_its_log(make_broker: MakeBroker) -> None:
    """Any event's id, of whatever channel, is a place to resume from, with nothing lost and nothing twice."""
    async with make_broker() as broker:
        ids = [await broker.publish("abc"[n % 3], str(n)) for n in range(12)]
        for place, event_id in enumerate(ids):
            async with broker.subscribe(["a", "b"], event_id) as subscription:
                assert subscription.resume_id == event_id
                await broker.publish("b", "live")
                wanted = [str(n) for n in range(place + 1, 12) if n % 3 < 2]
                events = await take(subscription, len(wanted) + place + 1)
                assert [event.data for event in events] == [*wanted, *["live"] * (place + 1)]


@pytest.mark.parametrize(
    ("requested", "reason"),
    [
        ("nonsense", "malformed"),
        ("-", "malformed"),
        ("abc-", "malformed"),
        ("abc-01", "malformed"),
        ("abc-1\u0661", "malformed"),
        ("a\r\ndata: forged", "malformed"),
        ("x" * 10_000, "malformed"),
        ("abc-" + "9" * 40, "malformed"),
        ("foreign0-1", "epoch"),
        ("{epoch}-4", "future"),
        ("{epoch}-999999999", "future"),
    ],
)
async def test_an_id_of_no_place_in_the_log_gives_one_reset(
    make_broker: MakeBroker, diary: Diary, requested: str, reason: str
) -> None:
    """Malformed, foreign or future: the reader is told once what it asked for and where it is now, and goes on."""
    async with make_broker(observers=[diary]) as broker:
        newest = [await broker.publish("a", str(n)) for n in range(3)][-1]
        requested = requested.replace("{epoch}", newest.split("-")[0])
        async with broker.subscribe("a", requested) as subscription:
            event = (await take(subscription, 1))[0]
            content = reset_of(event)
            assert (content["reason"], content["requested"]) == (reason, requested[:64])
            assert content["newest"] == newest
            async with broker.subscribe("a", content["oldest"]) as other:
                assert other.resume_id == content["oldest"]
            await broker.publish("a", "next")
            assert await texts(subscription, 1) == ["next"]
    assert [entry for entry in diary.entries if entry[0] == "reset"] == [("reset", ("a",), reason)]
    assert broker.health().resets == 1


async def test_an_id_that_is_too_old_gives_one_reset(make_broker: MakeBroker) -> None:
    """What follows the id has left the log: the reset says from where it could have been read."""
    async with make_broker(history=3) as broker:
        ids = [await broker.publish("a", str(n)) for n in range(10)]
        for requested in (ids[0], ids[5]):
            async with broker.subscribe("a", requested) as subscription:
                content = reset_of((await take(subscription, 1))[0])
                assert content == {"reason": "evicted", "requested": requested, "oldest": ids[6], "newest": ids[9]}
        async with broker.subscribe("a", content["oldest"]) as subscription:
            assert await texts(subscription, 3) == ["7", "8", "9"]


async def test_a_client_without_an_id_is_given_no_reset(make_broker: MakeBroker) -> None:
    """A client that comes for the first time has nothing to be told; an empty id means the same."""
    async with make_broker() as broker:
        for after in (None, ""):
            async with broker.subscribe("a", after) as subscription:
                await broker.publish("a", "x")
                assert await texts(subscription, 1) == ["x"]


async def test_the_opening_id_never_hides_a_reset(make_broker: MakeBroker) -> None:
    """As long as a reset is to come, a client must not be given the id behind it: it might be cut off in between."""
    async with make_broker() as broker, broker.subscribe("a", "nonsense") as subscription:
        assert subscription.resume_id is None
        event = (await take(subscription, 1))[0]
        assert subscription.resume_id == event.last_event_id == reset_of(event)["newest"]


async def test_iterating_gives_the_reset_too(make_broker: MakeBroker) -> None:
    """An entry without a channel is the broker's own."""
    async with make_broker() as broker, broker.subscribe("a", "nonsense") as subscription:
        await broker.publish("a", "x")
        with anyio.fail_after(5):
            reset, event = await anext(subscription), await anext(subscription)
        assert reset.channel == ""
        assert reset.event is not None
        assert reset_of(reset.event)["reason"] == "malformed"
        assert event.event is not None
        assert (event.channel, event.event.data) == ("a", "x")


async def test_a_position_is_not_taken_back(make_broker: MakeBroker) -> None:
    """It is ahead of the reader's last event where nothing of its channels is in between, also when more is due."""
    async with make_broker() as broker:
        await broker.publish("a", "first")
        newest = await broker.publish("b", "of others")
        async with broker.subscribe("c"), broker.subscribe("a", newest) as subscription:
            said = await broker.publish("c", "of others")
            await until(lambda: number_of(subscription.position) == number_of(said))
            await broker.publish("a", "due")
            assert number_of(subscription.position) >= number_of(said)
            assert await texts(subscription, 1) == ["due"]


def number_of(event_id: str) -> int:
    position = Position.parse(event_id)
    assert position is not None
    return position.seq


async def test_a_snapshot_comes_before_what_follows_its_position(make_broker: MakeBroker) -> None:
    """The position is taken first, then the snapshot is made, then comes what was published meanwhile."""

    async def snapshot() -> list[Any]:
        await broker.publish("a", "meanwhile")
        return [ServerSentEvent("state", event="snapshot"), {"data": "more"}, b"data: ready\r\n\r\n"]

    async with make_broker() as broker:
        before = await broker.publish("a", "before")
        async with broker.subscribe("a", snapshot=snapshot) as subscription:
            opening_id = subscription.resume_id
            decoder = EventDecoder()
            assert [event.data for event in await take(subscription, 3, decoder)] == ["state", "more", "ready"]
            assert decoder.last_event_id == before == subscription.resume_id
            assert await texts(subscription, 1) == ["meanwhile"]
            assert opening_id is None


async def test_a_client_that_is_cut_off_in_a_snapshot_starts_over(make_broker: MakeBroker) -> None:
    """The id comes with the snapshot's last event, so no client resumes behind half a snapshot."""

    def snapshot() -> list[str]:
        return ["x" * 40_000] * 4

    async with make_broker() as broker, broker.subscribe("a", snapshot=snapshot) as subscription:
        decoder, ids = EventDecoder(), []
        while not decoder.last_event_id:
            ids.append(subscription.resume_id)
            decoder.feed(await subscription.pull())
        assert len(ids) > 1
        assert set(ids) == {None}
        assert subscription.resume_id == decoder.last_event_id


@pytest.mark.parametrize("kind", ["one", "none", "list", "coroutine", "async generator", "mapping", "text"])
async def test_a_snapshot_may_be_given_in_any_form(make_broker: MakeBroker, kind: str) -> None:
    """One event or several, from a function, a coroutine function or an async generator, or nothing at all."""

    async def coroutine() -> list[str]:
        return ["a", "b"]

    async def generator() -> Any:
        yield "a"
        yield "b"

    forms: dict[str, Any] = {
        "one": (lambda: ServerSentEvent("a"), ["a"]),
        "none": (lambda: None, []),
        "list": (lambda: ["a", "b"], ["a", "b"]),
        "coroutine": (coroutine, ["a", "b"]),
        "async generator": (generator, ["a", "b"]),
        "mapping": (lambda: {"data": "a"}, ["a"]),
        "text": (lambda: "ab", ["ab"]),
    }
    snapshot, wanted = forms[kind]
    async with make_broker() as broker, broker.subscribe("a", snapshot=snapshot) as subscription:
        await broker.publish("a", "live")
        assert await texts(subscription, len(wanted) + 1) == [*wanted, "live"]


async def test_a_snapshot_follows_each_reset_and_no_resume(make_broker: MakeBroker) -> None:
    """A client that has everything needs none; one that is reset gets one behind the reset."""
    async with make_broker() as broker:
        event_id = await broker.publish("a", "before")
        await broker.publish("a", "missed")
        async with broker.subscribe("a", event_id, snapshot=lambda: "state") as subscription:
            assert await texts(subscription, 1) == ["missed"]
        async with broker.subscribe("a", "nonsense", snapshot=lambda: "state") as subscription:
            decoder = EventDecoder()
            reset, state = await take(subscription, 2, decoder)
            assert (reset.type, reset.last_event_id) == ("stream-reset", "")
            assert state.data == "state"
            assert decoder.last_event_id == json.loads(reset.data)["newest"]


async def test_a_snapshot_must_not_bring_ids(make_broker: MakeBroker) -> None:
    """An id in a snapshot would move the client to a place that it is not at."""
    async with make_broker() as broker:
        async with broker.subscribe("a", snapshot=lambda: ServerSentEvent("x", id="7")) as subscription:
            with pytest.raises(InvalidEventError, match="ids belong to the log"):
                await take(subscription, 1)


async def test_what_a_snapshot_raises_reaches_the_reader(make_broker: MakeBroker) -> None:
    """The error is the stream's; nothing is swallowed, and asking again asks it again."""

    def snapshot() -> None:
        raise LookupError("no database")

    async with make_broker() as broker, broker.subscribe("a", snapshot=snapshot) as subscription:
        for _ in range(2):
            with pytest.raises(LookupError, match="no database"):
                await subscription.pull()


async def test_closing_ends_every_subscription(make_broker: MakeBroker) -> None:
    """A reader that waits gets an error that says why."""
    async with make_broker() as broker, broker.subscribe("a") as subscription:
        async with anyio.create_task_group() as tasks:

            async def read() -> None:
                with pytest.raises(BrokerClosedError):
                    await take(subscription, 1)

            tasks.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            await broker.close()
        with pytest.raises(BrokerClosedError):
            await anext(subscription)
        with pytest.raises(BrokerClosedError):
            await broker.publish("a", "x")
        with pytest.raises(BrokerClosedError):
            async with broker.subscribe("a"):
                pass
