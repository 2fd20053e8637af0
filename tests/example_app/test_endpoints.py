"""Each panel's endpoint, by the test kit; these tests double as examples of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import anyio
import pytest

from example_app import app
from example_app.answers import tokens_of
from example_app.chaos import FLOOD
from example_app.clock import first_second
from example_app.metrics import Sampler
from example_app.news import REMEMBERED_KEYS, broker, keep_newest
from example_app.registry import Registry
from starlette_sse import CloseReason, ServerSentEvent
from starlette_sse.testing import EventStream, ReceivedEvent, SSETestClient

pytestmark = pytest.mark.anyio

#: Seconds that the app gets for anything.
PATIENCE = 15.0

QUESTION = "Is  it <i>live</i>?"


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what waits for the reader's eyes take a fraction of its time."""
    for waits in ("answers.PACE", "jobs.PACE", "metrics.SAMPLE_INTERVAL", "inspector.LOOK_INTERVAL"):
        monkeypatch.setattr(f"example_app.{waits}", 0.002 if waits.endswith("PACE") else 0.1)


@pytest.fixture
async def client() -> AsyncIterator[SSETestClient]:
    async with SSETestClient(app, timeout=PATIENCE) as client:
        yield client


async def post(client: SSETestClient, path: str, status: int = 202, **payload: Any) -> str:
    """Post JSON as the page does, and return the response's text."""
    response = await client.request("POST", path, json=payload)
    assert response.status_code == status, response.text
    return response.text


async def until(stream: EventStream, name: str, /, **facts: Any) -> dict[str, Any]:
    """Read up to the first event of that name whose data has those facts, and return its data."""
    with anyio.fail_after(PATIENCE):
        async for event in stream:
            if event.event == name and facts.items() <= event.json().items():
                data: dict[str, Any] = event.json()
                return data
    raise AssertionError(f"the stream ended before {name} with {facts}")


async def test_the_clock_ticks_without_a_gap_and_pings_in_between(client: SSETestClient) -> None:
    """Every second has its tick, and the silence before it its ping."""
    async with client.stream("/clock") as stream:
        events = [await stream.next_event() for _ in range(4)]
    seconds = [event.json()["second"] for event in events if event.event == "tick"]
    assert seconds == list(range(seconds[0], seconds[0] + len(seconds)))
    assert "ping" in [event.event for event in events]


async def test_a_clock_that_was_cut_gives_the_seconds_that_were_missed(client: SSETestClient) -> None:
    """After a reconnect the first tick is the one behind the last that the client has seen."""
    async with client.stream("/clock") as stream:
        seen = await stream.next_event()
        async with client.reconnect(stream) as again:
            following = await until(again, "tick")
    assert following["second"] == seen.json()["second"] + 1


@pytest.mark.parametrize(
    ("last_event_id", "first"),
    [(None, 1000), ("", 1000), ("x", 1000), ("٣", 1000), ("990", 991), ("1", 700), ("1000", 1001), ("9" * 40, 1001)],
)
def test_a_clock_begins_behind_the_last_tick_within_bounds(last_event_id: str | None, first: int) -> None:
    """What a client claims to have seen neither floods it with the past nor leaves it waiting for the future."""
    assert first_second(last_event_id, 1000) == first


async def test_a_stream_that_fails_half_way_tells_its_client(client: SSETestClient) -> None:
    """The last event is a problem-details object without the exception's text."""
    async with client.stream("/fails") as stream:
        await stream.expect({"event": "progress"}, {"event": "progress"}, {"event": "progress"})
        problem = (await stream.next_event()).json()
        await stream.closed()
    assert stream.close_reason is CloseReason.ERROR
    assert problem["status"] == 500
    assert "half-way" not in json.dumps(problem)


async def test_an_answer_arrives_word_by_word_with_its_white_space(client: SSETestClient) -> None:
    """The words put together are the text, with each leading space, tab and line break."""
    async with client.stream("/answer", method="POST", json={"question": QUESTION}) as stream:
        words, done = await answered(stream)
    assert words == tokens_of(QUESTION)
    assert "\n    class Clock(SSEEndpoint):\n        ping_interval = 15.0\n\n        async def" in "".join(words)
    assert done == {"tokens": len(words), "characters": len("".join(words))}


async def test_a_broken_answer_goes_on_behind_its_last_word(client: SSETestClient) -> None:
    """Asking again with the number of the last word gives the rest, and nothing twice."""
    words = tokens_of(QUESTION)
    async with client.stream(
        "/answer", method="POST", json={"question": QUESTION}, last_event_id=str(len(words) - 3)
    ) as stream:
        rest, _ = await answered(stream)
    assert rest == words[-3:]


async def answered(stream: EventStream) -> tuple[list[str], dict[str, int]]:
    events: list[ReceivedEvent] = [event async for event in stream if event.event != "ping"]
    return [event.data for event in events if event.event == "token"], events[-1].json()


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b'{"question": "why?"}', "text/plain", 415),
        (b"question=why", "application/json", 400),
        (b'["why?"]', "application/json", 400),
        (b'{"question": "  "}', "application/json", 422),
        (b'{"question": 7}', "application/json", 422),
        (b'{"question": "\\ud800"}', "application/json", 422),
        (b'{"question": "' + b"x" * 501 + b'"}', "application/json", 422),
        (b" " * 20_000, "application/json", 413),
    ],
)
async def test_what_the_page_never_posts_is_refused(
    client: SSETestClient, body: bytes, content_type: str, status: int
) -> None:
    """A body that is no question gets a status that says so, and no stream."""
    async with client.stream("/answer", method="POST", content=body, headers={"content-type": content_type}) as stream:
        await stream.read()
        assert stream.response.status_code == status


async def test_what_is_said_in_a_room_is_heard_in_that_room_alone(client: SSETestClient) -> None:
    """A message goes to the room's readers, as text, and to no other room's."""
    async with client.stream("/chat/lobby?name=ann") as lobby, client.stream("/chat/ideas?name=bob") as ideas:
        await post(client, "/say", 201, room="lobby", name="ann", text="<b>hello</b>")
        await post(client, "/say", 201, room="ideas", name="bob", text="an idea")
        assert (await until(lobby, "chat"))["text"] == "<b>hello</b>"
        assert (await until(ideas, "chat"))["text"] == "an idea"


async def test_a_newcomer_gets_a_rooms_history_and_its_people(client: SSETestClient) -> None:
    """The first event of a stream without an id tells what was said before."""
    await post(client, "/say", 201, room="kitchen", name="ann", text="coffee is ready")
    async with client.stream("/chat/kitchen", params={"name": "bob"}) as stream:
        history = await until(stream, "chat-so-far")
        assert [item["text"] for item in history["items"] if "text" in item] == ["coffee is ready"]
        await until(stream, "presence", people=["bob"])
        async with client.stream("/chat/kitchen", params={"name": "ann"}):
            await until(stream, "presence", people=["ann", "bob"])
        await until(stream, "presence", people=["bob"])


async def test_who_was_away_resumes_behind_the_last_message(client: SSETestClient) -> None:
    """What was said while a client was away comes once, in order, and without the history again."""
    async with client.stream("/chat/ideas") as stream:
        await post(client, "/say", 201, room="ideas", name="ann", text="one")
        await until(stream, "chat", text="one")
        stream.disconnect()
        for text in ("two", "three"):
            await post(client, "/say", 201, room="ideas", name="ann", text=text)
        async with client.reconnect(stream) as again:
            await until(again, "chat", text="three")
    assert [event.json()["text"] for event in again.events if event.event == "chat"] == ["two", "three"]
    assert "chat-so-far" not in [event.event for event in again.events]


async def test_a_room_that_is_not_there_is_not_found(client: SSETestClient) -> None:
    """A client cannot name a channel by itself."""
    async with client.stream("/chat/orders") as stream:
        await stream.read()
        assert stream.response.status_code == 404
    await post(client, "/say", 422, room="orders", name="ann", text="drain")


@pytest.mark.parametrize("outcome", ["done", "failed"])
async def test_a_job_runs_to_its_outcome(client: SSETestClient, outcome: str) -> None:
    """Every step's progress only grows, and a job that fails tells why."""
    async with client.stream("/jobs") as stream:
        job = json.loads(await post(client, "/job", 202, outcome=outcome))["job"]
        last = await until(stream, "job", job=job, state=outcome)
    told = [event.json() for event in stream.events if event.event == "job"]
    assert [state["steps"]["fetch"] for state in told] == sorted(state["steps"]["fetch"] for state in told)
    assert ("error" in last) == (outcome == "failed")
    async with client.stream("/jobs") as newcomer:
        assert (await until(newcomer, "jobs-so-far"))["items"][-1]["state"] == outcome


async def test_a_job_can_be_cancelled(client: SSETestClient) -> None:
    """A cancelled job stops where it is and says so."""
    async with client.stream("/jobs") as stream:
        job = json.loads(await post(client, "/job", 202, outcome="done"))["job"]
        await until(stream, "job", job=job)
        await post(client, "/chaos/order", order="cancel", target=job)
        assert (await until(stream, "job", state="cancelled"))["job"] == job


async def test_a_late_joiner_gets_the_metrics_so_far_at_once(client: SSETestClient) -> None:
    """The first event has the samples that were taken before, and the next sample follows without a gap."""
    async with client.stream("/metrics") as early:
        await until(early, "sample")
        await until(early, "sample")
        async with client.stream("/metrics") as late:
            history = await until(late, "metrics-so-far")
            following = await until(late, "sample")
    assert len(history["items"]) >= 2
    assert following["number"] == history["items"][-1]["number"] + 1
    assert following["memory"] > 1024 * 1024


async def test_the_inspector_lists_a_stream_and_why_it_ended(client: SSETestClient) -> None:
    """A stream is listed while it is open, and its end is told with its reason, in the list and in the log."""
    async with client.stream("/inspector?client=me") as inspector:
        async with client.stream("/clock?client=other") as clock:
            await clock.next_event()
            row = await opened(inspector, client="other")
            assert row["endpoint"] == "Clock"
        await until(inspector, "log", event="stream.closed")
        report = await until(inspector, "streams")
    assert ("Clock", "client_gone") in [(end["endpoint"], end["reason"]) for end in report["ends"]]


async def test_a_stream_can_be_dropped(client: SSETestClient) -> None:
    """The app closes the stream; its client sees a clean end and may come back."""
    async with client.stream("/inspector?client=me") as inspector, client.stream("/clock?client=other") as victim:
        await victim.next_event()
        row = await opened(inspector, client="other")
        await post(client, "/chaos/order", order="drop", target=row["id"])
        await victim.closed()
    assert victim.close_reason is CloseReason.CLOSED


async def test_a_stalled_stream_gets_everything_once_it_is_released(client: SSETestClient) -> None:
    """Nothing is sent to a stalled client, and nothing of it is lost."""
    async with client.stream("/inspector?client=me") as inspector, client.stream("/clock?client=other") as victim:
        await victim.next_event()
        row = await opened(inspector, client="other")
        await post(client, "/chaos/order", order="stall", target=row["id"])
        assert (await opened(inspector, client="other", stalled=True))["id"] == row["id"]
        await post(client, "/chaos/order", order="release", target=row["id"])
        ticks = [await until(victim, "tick") for _ in range(3)]
    assert [tick["second"] for tick in ticks] == list(range(ticks[0]["second"], ticks[0]["second"] + 3))


async def test_draining_says_farewell_and_lets_clients_come_back(client: SSETestClient) -> None:
    """Every open stream ends with a ``retry``, and the next one is welcome."""
    async with client.stream("/live") as live, client.stream("/clock") as clock:
        await until(live, "jobs-so-far")
        await clock.next_event()
        await post(client, "/chaos/order", order="drain")
        await clock.closed()
        await live.closed()
        assert (live.close_reason, clock.close_reason) == (CloseReason.DRAINING, CloseReason.DRAINING)
        async with client.reconnect(live) as again:
            await until(again, "sample")


async def test_a_flood_arrives_whole(client: SSETestClient) -> None:
    """Every event of a flood comes, in order, on the stream that carries all panels."""
    async with client.stream("/live") as stream, anyio.create_task_group() as tasks:
        # A client that does not read while it floods is a stalled one.
        tasks.start_soon(partial(until, stream, "flood", drop=FLOOD))
        await post(client, "/chaos/flood", 204)
    drops = [event.json()["drop"] for event in stream.events if event.event == "flood"]
    assert drops == list(range(1, FLOOD + 1))


async def test_the_joined_stream_starts_with_every_panels_snapshot(client: SSETestClient) -> None:
    """A newcomer gets all that the panels' own streams would begin with."""
    async with client.stream("/live?room=lobby") as stream:
        names = [(await stream.next_event()).event for _ in range(6)]
    assert names == [f"{name}-so-far" for name in ("chat", "jobs", "metrics", "streams", "log", "flood")]


@pytest.mark.parametrize("order", [{"order": "reboot"}, {"order": "drop"}, {}])
async def test_an_order_that_nobody_knows_is_refused(client: SSETestClient, order: dict[str, str]) -> None:
    """Only what the page offers can be ordered."""
    await post(client, "/chaos/order", 422, **order)


async def test_an_order_for_a_stream_that_is_gone_does_nothing(client: SSETestClient) -> None:
    """The stream may have ended before the order arrives."""
    async with client.stream("/jobs") as stream:
        for order in ("drop", "stall", "release", "cancel"):
            await post(client, "/chaos/order", order=order, target="nobody")
        job = json.loads(await post(client, "/job", 202, outcome="done"))["job"]
        await until(stream, "job", job=job)


async def test_the_page_and_all_that_it_loads_are_served(client: SSETestClient) -> None:
    """The page allows its own files alone, and each of them is there."""
    page = await client.request("GET", "/")
    assert page.headers["content-security-policy"].startswith("default-src 'self'")
    for path in ("board.css", "icon.svg", "main.js", "dom.js", "requests.js", "livestream.js", "inspector.js"):
        assert (await client.request("GET", f"/static/{path}")).status_code == 200
    for name in ("Answer", "Chat", "Clock", "Fails", "Inspector", "Jobs", "Live", "Metrics"):
        assert f'href="source/{name}"' in page.text
        assert f"class {name}(" in (await client.request("GET", f"/source/{name}")).text
    assert (await client.request("GET", "/source/os")).status_code == 404


async def opened(inspector: EventStream, **facts: Any) -> dict[str, Any]:
    """Return the inspector's row of a stream once it has one with those facts."""
    with anyio.fail_after(PATIENCE):
        async for event in inspector:
            rows: list[dict[str, Any]] = event.json()["open"] if event.event == "streams" else []
            for row in rows:
                if facts.items() <= row.items():
                    return row
    raise AssertionError(f"the inspector never had a stream with {facts}")


async def test_what_is_remembered_is_whole_again_after_a_flood_that_was_too_fast(client: SSETestClient) -> None:
    """Whoever remembers for newcomers fell off the log, and reads again what the log still has."""
    last = 2100
    for number in range(1, last + 1):
        await broker.publish("flood", ServerSentEvent({"worker": "fast", "number": number}, event="flood"))
    async with client.stream("/inspector") as stream:
        told = await until(stream, "flood-so-far")
    assert told["seen"]["fast"] == last


async def test_what_befalls_the_broker_is_told_in_the_log() -> None:
    """Every happening becomes a line with a constant name."""
    registry = Registry()
    registry.rejected("Live", "/live", "draining")
    registry.lagged(["jobs"], "reset")
    registry.reset(["jobs"], "lagged")
    registry.backend_lost(OSError("away"))
    registry.backend_back(1.5)
    names = []
    for _ in range(5):
        names.append((await registry.line())["event"])
        registry.done_with_line()
    assert names == [
        "stream.rejected",
        "subscription.lagged",
        "subscription.reset",
        "broker.lost",
        "broker.recovered",
    ]


def test_of_many_keys_the_newest_are_remembered() -> None:
    """What a newcomer is told is bounded, whatever was published."""
    latest: dict[str, dict[str, Any]] = {}
    for number in range(REMEMBERED_KEYS + 2):
        keep_newest(latest, str(number), {"number": number})
    assert [*latest] == [str(number) for number in range(2, REMEMBERED_KEYS + 2)]


def test_memory_is_told_where_the_system_has_no_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Without /proc the sample has the most memory that the process ever had."""
    monkeypatch.setattr("example_app.metrics.STATM", tmp_path / "statm")
    assert Sampler().sample()["memory"] > 1024 * 1024
