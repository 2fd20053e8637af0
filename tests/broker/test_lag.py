"""What happens to a reader that is slower than retention, by policy."""

from __future__ import annotations

import json

import pytest

from starlette_sse.broker import Broker
from starlette_sse.broker.channel import COMPACT
from starlette_sse.broker.subscription import OnLag
from starlette_sse.exceptions import SlowReaderError
from starlette_sse.observers import StructlogObserver
from starlette_sse.testing import capture_logs
from tests.broker.conftest import Diary, MakeBroker
from tests.broker.reading import settle, take, texts

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(backend_and_loop: tuple[str, str]) -> str:
    return backend_and_loop[1]


async def publish(broker: Broker, texts: list[str]) -> str:
    """Publish events ``<channel><key><number>``, and wait until they have come to this process."""
    ids = [await broker.publish(text[0], text, text[1]) for text in texts]
    await settle(broker)
    return ids[-1]


async def test_a_slow_reader_is_disconnected_and_resumes(make_broker: MakeBroker, diary: Diary) -> None:
    """By default it gets an error, what it had not read it gets as far as that was still there, and it is counted."""
    async with make_broker(history=3, observers=[diary]) as broker, broker.subscribe("a") as subscription:
        await publish(broker, [f"ax{n}" for n in range(10)])
        with pytest.raises(SlowReaderError, match="slower than the broker's retention"):
            await take(subscription, 1)
        with pytest.raises(SlowReaderError):
            await subscription.pull()
        requested = subscription.position
        async with broker.subscribe("a", requested) as again:
            event = (await take(again, 1))[0]
            assert json.loads(event.data)["requested"] == requested
    assert [entry for entry in diary.entries if entry[0] == "lagged"] == [("lagged", ("a",), "disconnect")]
    assert broker.health().lags == 1


async def test_a_slow_reader_is_reset_and_goes_on(make_broker: MakeBroker, diary: Diary) -> None:
    """Told once, given a snapshot, and live again without a new connection."""
    async with make_broker(history=3, observers=[diary]) as broker:
        async with broker.subscribe("a", on_lag="reset", snapshot=lambda: "state") as subscription:
            await take(subscription, 1)
            position = subscription.position
            newest = await publish(broker, [f"ax{n}" for n in range(10)])
            reset, state = await take(subscription, 2)
            content = json.loads(reset.data)
            assert (content["reason"], content["requested"]) == ("lagged", position)
            assert state.data == "state"
            assert int(content["newest"].split("-")[1]) >= int(newest.split("-")[1])
            await broker.publish("a", "ax next")
            assert await texts(subscription, 1) == ["ax next"]
    assert [entry[0] for entry in diary.entries if entry[0] in {"lagged", "reset"}] == ["lagged", "reset"]


async def test_a_lag_and_the_reset_behind_it_are_logged(make_broker: MakeBroker) -> None:
    """A lag is a warning, with the policy; a reset is what a reader is told, with the reason."""
    with capture_logs() as logs:
        async with make_broker(history=3, observers=[StructlogObserver()]) as broker:
            async with broker.subscribe(["a", "b"], on_lag="reset") as subscription:
                await publish(broker, [f"ax{n}" for n in range(10)])
                await take(subscription, 1)
    assert logs == [
        {"event": "subscription.lagged", "log_level": "warning", "channels": ["a", "b"], "policy": "reset"},
        {"event": "subscription.reset", "log_level": "info", "channels": ["a", "b"], "reason": "lagged"},
    ]


@pytest.mark.parametrize("on_lag", ["disconnect", "reset", "latest"])
@pytest.mark.parametrize("before", [0, 1, COMPACT - 2, COMPACT - 1])
async def test_a_reader_whose_events_all_grew_too_old_is_slow(on_lag: OnLag, before: int) -> None:
    """However many they were, and though not one is left to look at."""
    broker = Broker(observers=())
    for number in range(before):
        await broker.publish("a", str(number))
    async with broker.subscribe("a", on_lag=on_lag) as subscription:
        await broker.publish("a", "x")
        broker._log.channels["a"].expire(float("inf"))
        if on_lag == "disconnect":
            with pytest.raises(SlowReaderError):
                await take(subscription, 1)
        else:
            assert json.loads((await take(subscription, 1))[0].data)["reason"] == "lagged"


async def test_a_reader_just_within_retention_is_not_slow(make_broker: MakeBroker) -> None:
    """As long as what it needs is there it gets it, to the last event."""
    async with make_broker(history=3) as broker, broker.subscribe(["a", "b"]) as subscription:
        for _ in range(3):
            await publish(broker, ["ax1", "bx1", "ax2", "bx2", "ax3", "bx3"])
            assert await texts(subscription, 6) == ["ax1", "bx1", "ax2", "bx2", "ax3", "bx3"]


async def test_one_slow_channel_makes_a_slow_reader(make_broker: MakeBroker) -> None:
    """A reader of two channels that has lost events of one is told, though the other is complete."""
    async with make_broker(history=3) as broker, broker.subscribe(["a", "b"]) as subscription:
        await publish(broker, ["bx1", *[f"ax{n}" for n in range(10)]])
        with pytest.raises(SlowReaderError):
            await take(subscription, 2)


async def test_the_latest_of_each_key_stand_for_what_was_missed(make_broker: MakeBroker, diary: Diary) -> None:
    """A keyed reader that lags gets the newest event of each key, in order, also of keys that have left the history."""
    async with make_broker(history=4, observers=[diary]) as broker:
        async with broker.subscribe("a", on_lag="latest") as subscription:
            await publish(broker, ["ax0", "ay0", *[f"az{n}" for n in range(10)], "ay1", "az10"])
            assert await texts(subscription, 3) == ["ax0", "ay1", "az10"]
            await publish(broker, ["ax1", "ax2"])
            assert await texts(subscription, 2) == ["ax1", "ax2"]
    assert [entry[0] for entry in diary.entries if entry[0] in {"lagged", "reset"}] == ["lagged"]


async def test_the_latest_of_several_channels_come_in_order(make_broker: MakeBroker) -> None:
    """Conflation is for the whole reader, and its order is the log's."""
    async with make_broker(history=3) as broker:
        async with broker.subscribe(["a", "b"], on_lag="latest") as subscription:
            await publish(broker, ["bx0", "ax0", "by0", *[f"az{n}" for n in range(10)], "bx1"])
            assert await texts(subscription, 4) == ["ax0", "by0", "az9", "bx1"]


async def test_a_reader_of_the_latest_may_come_back_late(make_broker: MakeBroker) -> None:
    """A client whose id is too old for every event is not reset, as long as the newest of each key are known."""
    async with make_broker(history=3) as broker, broker.subscribe("a"):
        event_id = await publish(broker, ["ax0"])
        await publish(broker, ["ay0", *[f"az{n}" for n in range(10)]])
        async with broker.subscribe("a", event_id, on_lag="latest") as subscription:
            assert await texts(subscription, 2) == ["ay0", "az9"]


async def test_a_key_that_goes_before_it_is_given_is_a_reset(make_broker: MakeBroker) -> None:
    """The reader was about to get the newest of each, and one of them is kept no longer."""
    async with make_broker(history=3) as broker:
        async with broker.subscribe("a", on_lag="latest") as subscription:
            await publish(broker, ["ax0", *[f"ay{n}" for n in range(5)]])
            while subscription._errand is None or subscription._errand == subscription._catch_up:
                assert await subscription.pull() == b""
            await publish(broker, [f"a{chr(65 + n)}0" for n in range(20)])
            assert json.loads((await take(subscription, 1))[0].data)["reason"] == "lagged"


async def test_more_keys_than_can_be_kept_are_a_reset(make_broker: MakeBroker) -> None:
    """The newest events by key are bounded too; a reader that needs one that is gone is told."""
    async with make_broker(history=3) as broker:
        async with broker.subscribe("a", on_lag="latest") as subscription:
            await publish(broker, [f"a{chr(65 + n)}0" for n in range(20)])
            assert json.loads((await take(subscription, 1))[0].data)["reason"] == "lagged"


async def test_an_event_without_a_key_is_never_stood_for(make_broker: MakeBroker) -> None:
    """A keyed reader that has lost an event without a key is told."""
    async with make_broker(history=3) as broker:
        async with broker.subscribe("a", on_lag="latest") as subscription:
            await broker.publish("a", "no key")
            await publish(broker, [f"ax{n}" for n in range(10)])
            assert json.loads((await take(subscription, 1))[0].data)["reason"] == "lagged"


async def test_events_without_a_key_are_kept_among_the_latest(make_broker: MakeBroker) -> None:
    """What has no key and is still there comes in its place."""
    async with make_broker(history=4) as broker:
        async with broker.subscribe("a", on_lag="latest") as subscription:
            await publish(broker, [f"ax{n}" for n in range(10)])
            await broker.publish("a", "no key")
            await publish(broker, ["ay0"])
            assert await texts(subscription, 3) == ["ax9", "no key", "ay0"]


async def test_a_stalled_reader_holds_nothing_up(make_broker: MakeBroker) -> None:
    """Others go on at full speed, and what a reader that never reads costs does not grow."""
    async with make_broker(history=10) as broker, broker.subscribe("a") as stalled, broker.subscribe("a") as other:
        for n in range(50):
            await broker.publish("a", str(n))
            assert await texts(other, 1) == [str(n)]
        assert len(stalled._ready) == 1
        assert stalled._backlog == []
        assert len(broker._log.channels["a"].entries) < 100
