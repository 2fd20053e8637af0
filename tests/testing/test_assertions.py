"""What a test may expect, and that a failure can be read."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import ANY

import anyio
import anyio.lowlevel
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from starlette_sse import ConfigurationError, ServerSentEvent, SSEEndpoint
from starlette_sse.broker import Broker
from starlette_sse.eventloop import current_event_loop
from starlette_sse.testing import (
    ReceivedEvent,
    SSETestClient,
    StillRunningError,
    StreamCutError,
    StreamEndedError,
    UnexpectedEventsError,
    assert_events,
    assert_gaps,
    nothing_left_running,
)

from .apps import Connection, clock, until_gone

TICK = ReceivedEvent("tick", '{"n": 1}', "7", 0.0)
HELLO = ReceivedEvent("message", "hello", "", 1.5)


@pytest.mark.parametrize(
    "expected",
    [
        {"event": "tick", "data": {"n": 1}, "id": "7"},
        {"data": {"n": 1}},
        {"data": '{"n": 1}'},
        {"id": "7"},
        {"id": 7},
        ServerSentEvent('{"n": 1}', event="tick"),
        ServerSentEvent('{"n": 1}', event="tick", id="7"),
        TICK,
    ],
    ids=str,
)
def test_what_an_event_is_expected_to_be_can_be_said_in_part_or_whole(expected: Any) -> None:
    """Fields that are left out may be anything; data that is no text is compared as JSON's value, not its spacing."""
    assert_events([TICK], [expected])


@pytest.mark.parametrize("expected", ["hello", ServerSentEvent("hello"), {"event": "message"}], ids=str)
def test_an_event_without_a_name_is_a_message(expected: Any) -> None:
    """As a browser's listener gets it."""
    assert_events([HELLO], [expected])


@pytest.mark.parametrize("expected", [[], [TICK], [TICK, HELLO, HELLO]], ids=len)
def test_fewer_and_more_events_than_expected_fail(expected: list[Any]) -> None:
    """Though all that can be compared is the same."""
    with pytest.raises(UnexpectedEventsError):
        assert_events([TICK, HELLO], expected)


@pytest.mark.parametrize(
    "expected",
    [
        {"event": "tock"},
        {"data": {"n": 2}},
        {"data": '{"n":1}'},
        {"id": "8"},
        {"id": 8},
        ServerSentEvent('{"n": 1}'),
        ServerSentEvent('{"n": 1}', event="tick", id="8"),
        '{"n": 1}',
    ],
    ids=str,
)
def test_what_differs_in_any_field_that_was_named_fails(expected: Any) -> None:
    """A wrong name, payload or id is found; a bare str also expects an event without a name."""
    with pytest.raises(UnexpectedEventsError):
        assert_events([TICK], [expected])


def test_payloads_that_are_no_json_do_not_equal_any_value() -> None:
    """Text is not taken for null, nor is it an error of its own."""
    with pytest.raises(UnexpectedEventsError):
        assert_events([HELLO], [{"data": None}])
    assert_events([HELLO], ["hello"])


@pytest.mark.parametrize(
    ("payload", "equal", "other"),
    [
        ("true", [True], [1, "True", None]),
        ("1", [1, 1.0], [True, 2]),
        ('{"a": [1, {"b": false}]}', [{"a": [1, {"b": False}]}, {"a": ANY}], [{"a": [1, {"b": 0}]}, {"a": [1]}, {}]),
        ("[0.1]", [[pytest.approx(0.1)], (0.1,)], [[], [0.1, 0.1], [False]]),
    ],
)
def test_payloads_are_compared_as_json(payload: str, equal: list[Any], other: list[Any]) -> None:
    """Python's ``True == 1`` is none of JSON's."""
    received = ReceivedEvent("message", payload, "", 0.0)
    for expected in equal:
        assert_events([received], [{"data": expected}])
    for expected in other:
        with pytest.raises(UnexpectedEventsError):
            assert_events([received], [{"data": expected}])


@pytest.mark.parametrize(
    "expected",
    [5, {}, {"name": "tick"}, ServerSentEvent(comment="ping"), None],
    ids=["int", "empty", "key", "comment", "none"],
)
def test_what_no_client_can_get_cannot_be_expected(expected: Any) -> None:
    """The mistake in the test is told as such, with how to write it."""
    with pytest.raises(ConfigurationError, match=r'as in \{"event": "tick", "data": \{"now": 1\}\}'):
        assert_events([TICK], [expected])


def test_the_diff_shows_what_is_missing_and_what_came_instead() -> None:
    """Expectations that are met read like their events, so only the difference stands out."""
    received = [TICK, HELLO, ReceivedEvent("message", "a\nb", "", 2.0)]
    with pytest.raises(UnexpectedEventsError) as raised:
        assert_events(
            received, [{"id": "7"}, {"event": "joined", "data": {"who": "é"}}, "hello", {"id": "9"}], source="GET /x"
        )
    assert str(raised.value).splitlines() == [
        "the events of GET /x are not the expected ones",
        "  (- expected, + received)",
        '  tick #7: {"n": 1}',
        '- joined: {"who":"é"}',
        "  message: hello",
        "- (any event) #9: (any data)",
        "+ message: 'a\\nb'",
    ]


def test_the_diff_marks_what_differs_within_an_event() -> None:
    """An expectation that others meet as well reads like the event in its place, and any value can be shown."""
    received = [ReceivedEvent("message", text, "", 0.0) for text in ("one", "two", "three", '{"a":1,"b":2}')]
    with pytest.raises(UnexpectedEventsError) as raised:
        assert_events(received, [{"event": "message"}, {"event": "message"}, "tiree", {"data": {"a": ANY, "b": 3}}])
    assert str(raised.value).splitlines()[2:] == [
        "  message: one",
        "  message: two",
        "- message: tiree",
        "?           ^",
        "+ message: three",
        "?           ^",
        '- (any event): {"a":"<ANY>","b":3}',
        '+ message: {"a":1,"b":2}',
    ]


def test_the_diff_knows_events_that_come_in_another_place() -> None:
    """Behind one that is missing the others are as they were expected."""
    with pytest.raises(UnexpectedEventsError) as raised:
        assert_events([HELLO, TICK], ["lost", {"data": "hello"}, {"id": "7"}])
    assert str(raised.value).splitlines()[2:] == ["- message: lost", "  message: hello", '  tick #7: {"n": 1}']


def test_gaps_are_compared_one_by_one() -> None:
    """The time between events is checked against one number for all, or each against its own."""
    events = [ReceivedEvent("message", "", "", time) for time in (0.0, 1.0, 3.0)]
    assert_gaps(events, [1.0, 2.0])
    assert_gaps(events, 1.5, tolerance=0.5)
    with pytest.raises(UnexpectedEventsError) as raised:
        assert_gaps(events, 1)
    assert str(raised.value).splitlines() == [
        "the 2 gaps between 3 items are not the 2 expected ones, within 1e-06 s",
        "  1 s, expected 1 s",
        "> 2 s, expected 1 s",
    ]
    with pytest.raises(UnexpectedEventsError, match="the 2 gaps between 3 items are not the 3 expected ones"):
        assert_gaps(events, [1, 2, 3])
    with pytest.raises(UnexpectedEventsError, match="the 0 gaps between 1 items"):
        assert_gaps(events[:1], 1)


@pytest.mark.anyio
async def test_expect_tells_when_too_few_events_come() -> None:
    """The diff is there as well when the stream ends or stays silent, with how long that was waited for."""

    async def one(connection: Connection) -> None:
        await connection.event("one")
        if connection.scope["path"] == "/silent":
            await anyio.sleep_forever()
        if connection.scope["path"] == "/cut":
            raise EOFError

    async with SSETestClient(until_gone(one), raise_app_exceptions=False) as client:
        async with client.stream("/") as stream:
            with pytest.raises(UnexpectedEventsError) as raised:
                await stream.expect("one", "two")
            assert isinstance(raised.value.__cause__, StreamEndedError)
            first, *lines = str(raised.value).splitlines()
            assert first.startswith("1 of 2 events came: GET / was finished before event came; it brought no comments")
            assert lines == [
                "  (- expected, + received)",
                "  message: one",
                "- message: two",
            ]
        async with client.stream("/silent") as stream:
            with pytest.raises(UnexpectedEventsError, match=r"brought no event within 0\.01 s"):
                await stream.expect("one", "two", timeout=0.01)
        async with client.stream("/cut") as stream:
            with pytest.raises(UnexpectedEventsError, match="1 of 2 events came: GET /cut broke off before") as raised:
                await stream.expect("one", "two")
            assert isinstance(raised.value.__cause__, StreamCutError)
        async with client.stream("/other") as stream:
            with pytest.raises(UnexpectedEventsError, match="the events of GET /other are not the expected ones"):
                await stream.expect("other")


async def test_silence_is_the_absence_of_events_while_the_stream_is_open(virtual_clock: Any) -> None:
    """Comments may come; an event, or the stream's end, fails."""

    async def talk(connection: Connection) -> None:
        await anyio.sleep(10)
        await connection.write(b": ping\n\n")
        await anyio.sleep(10)
        await connection.event("late")
        await anyio.sleep(10)

    async with SSETestClient(until_gone(talk)) as client:
        # As long as it was asked for, whatever a read would wait.
        async with client.stream("/", timeout=5.0) as stream:
            await stream.expect_silence(19)
            assert len(stream.comments) == 1
            with pytest.raises(UnexpectedEventsError, match="GET / brought an event within 2 s: message: late"):
                await stream.expect_silence(2)
            with pytest.raises(StreamEndedError):
                await stream.expect_silence(60)
        async with client.stream("/") as stream:
            with pytest.raises(UnexpectedEventsError, match="GET / brought an event within any time: message: late"):
                await stream.expect_silence(math.inf)


class Idle(SSEEndpoint):
    async def events(self, request: Request) -> AsyncIterator[str]:
        yield "one"
        await anyio.sleep_forever()


async def test_the_time_between_pings_is_that_of_the_app(virtual_clock: Any) -> None:
    """Times are taken when the app sends, on the loop's clock: pings of an idle stream come every 15 s."""
    async with SSETestClient(Starlette(routes=[Route("/", Idle)])) as client, client.stream("/") as stream:
        await stream.next_event()
        pings = [comment for _ in range(6) if "open" not in (comment := await stream.next_comment()).text]
        assert_gaps(pings[1:], 15.0)


# What is left running.


@pytest.mark.anyio
async def test_a_block_that_leaves_nothing_running_passes() -> None:
    """Streams, their apps, lifespan and the package's own timers have all ended."""
    async with nothing_left_running():
        async with SSETestClient(clock) as client, client.stream("/") as stream:
            await stream.next_event()
        async with SSETestClient(Starlette(routes=[Route("/", Idle)])) as client, client.stream("/") as stream:
            await stream.next_event()


@pytest.mark.anyio
async def test_a_task_that_is_left_running_is_named() -> None:
    """The name says which one it is."""
    async with anyio.create_task_group() as tasks:
        with pytest.raises(StillRunningError, match=r"left running: the task .*forgotten"):
            async with nothing_left_running():
                tasks.start_soon(anyio.sleep_forever, name="forgotten")
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_that_an_app_started_and_lost_is_found(anyio_backend: str) -> None:
    """asyncio lets an app leave tasks behind; one that is about to end does not count."""
    tasks: list[asyncio.Task[None]] = []

    async def careless(connection: Connection) -> None:
        tasks.extend(asyncio.create_task(anyio.sleep_forever(), name=name) for name in ("lost", "ending"))
        await connection.event("one")

    with pytest.raises(StillRunningError, match=r"left running: the task lost \(sleep_forever\)$"):
        async with nothing_left_running():
            async with SSETestClient(until_gone(careless)) as client, client.stream("/") as stream:
                await stream.read()
            tasks[1].cancel()
    tasks[0].cancel()


@pytest.mark.anyio
async def test_trios_system_tasks_do_not_count() -> None:
    """They belong to the run, as the one that serves the package's timers."""
    async with nothing_left_running():
        loop = current_event_loop()
        loop.call_at(loop.time() + 3600, lambda: None)
        await anyio.lowlevel.checkpoint()


@pytest.mark.anyio
async def test_a_subscription_that_is_left_is_counted() -> None:
    """A broker that still has a reader when the block ends has been leaked one."""
    async with Broker() as broker:
        async with nothing_left_running(broker):
            async with broker.subscribe(["news"]):
                pass
        subscription = broker.subscribe(["news"])
        async with broker.subscribe(["before"]), nothing_left_running(broker):
            pass
        with pytest.raises(StillRunningError, match="1 subscriptions to"):
            async with nothing_left_running(broker):
                await subscription.__aenter__()
        await subscription.__aexit__(None, None, None)
