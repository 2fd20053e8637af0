"""A client that has lost its rights loses its stream, and is not given later what it missed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

import anyio
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Route

import starlette_sse
from starlette_sse import Broker, ChannelEndpoint, CloseReason, SSEEndpoint, lifespan
from starlette_sse.observers import Observer
from starlette_sse.streams.companions import Companions
from starlette_sse.testing import CapturedLogs, Ending, SSETestClient, StreamEndedError, capture_logs

pytestmark = pytest.mark.anyio

TOKEN = "t0ken-nobody-may-see"


INTERVAL = 10.0


class Guarded(SSEEndpoint):
    """Lets in who has one of the valid tokens, and notes when streams ended."""

    authorize_interval = INTERVAL
    observers: Sequence[Observer] = ()
    valid: ClassVar[set[str]]
    rooms: ClassVar[list[str]]
    ends: ClassVar[list[tuple[float, CloseReason]]]

    async def authorize(self, request: Request) -> None:
        if request.query_params.get("token") not in self.valid:
            raise HTTPException(401, "the token is not valid")

    async def on_disconnect(self, request: Request, reason: CloseReason) -> None:
        self.ends.append((anyio.current_time(), reason))


class Ticks(Guarded):
    valid, ends, rooms = {TOKEN}, [], []

    async def events(self, request: Request) -> AsyncIterator[Any]:
        while True:
            yield "tick"
            await anyio.sleep(1.0)


class Rooms(Guarded, ChannelEndpoint):
    valid, ends, rooms = {TOKEN}, [], ["open", "secret"]
    broker = Broker(observers=())

    async def channels(self, request: Request) -> list[str]:
        return self.rooms


@pytest.fixture(autouse=True)
def _rights() -> None:
    Ticks.ends, Rooms.ends = [], []
    Ticks.valid, Rooms.valid = {TOKEN}, {TOKEN}
    Rooms.rooms = ["open", "secret"]
    Rooms.broker = Broker(observers=())


def serve(endpoint: type[SSEEndpoint]) -> SSETestClient:
    return SSETestClient(Starlette(routes=[Route("/", endpoint)], lifespan=lifespan), timeout=3600)


@pytest.mark.parametrize("after", [0.5, 9.5, 10.5, 47.0, 123.4])
async def test_a_revoked_clients_stream_ends_within_the_interval(after: float) -> None:
    """However long it has been open, with its reason, and with an event that says why."""
    async with serve(Ticks) as client, client.stream(f"/?token={TOKEN}") as stream:

        async def revoke() -> None:
            await anyio.sleep(after)
            Ticks.valid.clear()

        revoked = anyio.current_time() + after
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(revoke)
            assert await stream.closed() is Ending.FINISHED
        ((ended, reason),) = Ticks.ends
        assert reason is CloseReason.UNAUTHORIZED
        assert 0 <= ended - revoked <= INTERVAL + 0.1
        last = stream.events[-1]
        assert (last.event, last.json()["status"]) == ("stream-error", 401)


async def test_a_client_that_keeps_its_rights_keeps_its_stream() -> None:
    """Being asked again and again is not noticed."""
    async with serve(Ticks) as client, client.stream(f"/?token={TOKEN}") as stream:
        await stream.expect(*["tick"] * 100)
    assert [reason for _, reason in Ticks.ends] == [CloseReason.CLIENT_GONE]


async def test_a_revoked_client_is_not_given_what_it_missed() -> None:
    """It comes back with its last id, and is refused before anything is read from the log."""
    async with serve(Rooms) as client:
        stream = await client.stream(f"/?token={TOKEN}")
        await Rooms.broker.publish("secret", "still allowed")
        await stream.expect("still allowed")
        Rooms.valid.clear()
        await anyio.sleep(10.5)
        await Rooms.broker.publish("secret", "not for you")
        assert await stream.closed() is Ending.FINISHED
        assert [event.event for event in stream.events] == ["message", "stream-error"]
        assert stream.last_event_id
        again = await client.reconnect(stream).open()
        assert again.response.status_code == 401
        assert b"not for you" not in stream.body + await again.read()
        await again.aclose()


async def test_a_client_that_lost_one_channel_is_given_the_others_alone() -> None:
    """The channels are asked for anew by each request, whatever position its id names."""
    async with serve(Rooms) as client:
        stream = await client.stream(f"/?token={TOKEN}")
        await Rooms.broker.publish("secret", "a secret")
        await stream.expect("a secret")
        stream.disconnect()
        await stream.closed()
        Rooms.rooms = ["open"]
        await Rooms.broker.publish("secret", "not for you")
        await Rooms.broker.publish("open", "for all")
        again = await client.reconnect(stream).open()
        await again.expect("for all")
        await Rooms.broker.publish("secret", "not for you either")
        await Rooms.broker.publish("open", "more for all")
        await again.expect("more for all")
        assert b"not for you" not in again.body
        await again.aclose()


async def test_tokens_are_not_logged() -> None:
    """Neither those of the URL nor of headers, whatever becomes of the stream."""

    class Logged(Ticks):
        observers = SSEEndpoint.observers
        max_connections = 1

        def client_key(self, request: Request) -> str:
            return request.headers["authorization"]

        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield "tick"
            await anyio.sleep(60.0)
            raise LookupError

    headers = {"authorization": f"Bearer {TOKEN}", "cookie": f"session={TOKEN}"}
    with capture_logs() as logs:
        async with serve(Logged) as client:
            for leaves in (True, False):
                async with client.stream(f"/?token={TOKEN}", headers=headers) as stream:
                    await stream.expect("tick")
                    async with client.stream(f"/?token={TOKEN}", headers=headers) as refused:
                        assert (await refused.next_event()).event == "stream-rejected"
                    if not leaves:
                        await stream.closed()
            async with client.stream(f"/?token={TOKEN}", headers=headers) as stream:
                await stream.expect("tick")
                Logged.valid.clear()
                await stream.closed()
    events = {entry["event"] for entry in logs}
    assert {"stream.opened", "stream.rejected", "stream.failed", "stream.closed"} <= events
    reasons = {entry.get("reason") for entry in logs if entry["event"] == "stream.closed"}
    assert reasons == {"client_gone", "error", "unauthorized"}
    assert TOKEN not in repr(list(logs))


class Hanging(Guarded):
    """Answers the first time, and never again."""

    valid, ends, rooms = {TOKEN}, [], []
    asked: ClassVar[int] = 0

    async def authorize(self, request: Request) -> None:
        type(self).asked += 1
        if self.asked > 1:
            await anyio.sleep_forever()


@pytest.mark.parametrize("kind", [Ticks, Rooms])
async def test_an_authorization_that_gives_no_answer_ends_the_stream(kind: type[Guarded]) -> None:
    """Within an interval, and the stream goes on until then: whoever cannot be asked is not let in."""

    class Hung(Hanging, kind):  # type: ignore[valid-type,misc]
        valid, ends, rooms = {TOKEN}, [], ["open"]
        asked = 0

    app = Starlette(routes=[Route("/", Hung)], lifespan=lifespan)
    async with SSETestClient(app, timeout=100) as client, client.stream(f"/?token={TOKEN}") as stream:
        began = (await stream.next_comment()).time
        await anyio.sleep_until(began + INTERVAL + 2.5)
        if kind is Rooms:
            await Rooms.broker.publish("open", "news")
            await stream.expect("news")
        event = await stream.next_event()
        while event.event != "stream-error":
            assert event.time < began + 2 * INTERVAL
            event = await stream.next_event()
        assert event.time == pytest.approx(began + 2 * INTERVAL)
        assert await stream.closed() is Ending.FINISHED
    assert [reason for _, reason in Hung.ends] == [CloseReason.ERROR]


class AskedTwice(Guarded):
    """Sends one event, lets its client in once, and logs what becomes of it."""

    valid, ends, rooms = {TOKEN}, [], []
    observers = SSEEndpoint.observers

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.ends = []

    async def authorize(self, request: Request) -> Any:
        asked, self.asked = getattr(self, "asked", False), True
        return self.again() if asked else None

    def again(self) -> Any:
        """Answer the second time."""

    async def events(self, request: Request) -> AsyncIterator[Any]:
        yield "first"
        await anyio.sleep_forever()


async def log_of(endpoint: type[SSEEndpoint]) -> CapturedLogs:
    """Return what is logged of a stream that an error ends after its first event."""
    with capture_logs() as logs:
        async with serve(endpoint) as client, client.stream("/") as stream:
            await stream.expect("first")
            assert (await stream.next_event()).event == "stream-error"
    return logs


async def test_an_error_of_a_later_authorization_ends_the_stream() -> None:
    """Its place in the log is its own."""

    class Failing(AskedTwice):
        def again(self) -> Any:
            raise ConnectionError("the database is away")

    logs = await log_of(Failing)
    assert logs.named("stream.failed")[0]["during"] == "authorize"
    assert [reason for _, reason in Failing.ends] == [CloseReason.ERROR]


async def test_what_an_authorization_raises_after_the_end_is_logged() -> None:
    """It was cancelled with its stream, and its own cleanup failed."""

    class Checked(SSEEndpoint):
        authorize_interval = 10.0
        asked = 0

        async def authorize(self, request: Request) -> None:
            type(self).asked += 1
            if self.asked > 1:
                try:
                    await anyio.sleep_forever()
                finally:
                    raise ValueError("the directory has gone")

        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield "first"
            await anyio.sleep(11)

    with capture_logs() as logs:
        async with serve(Checked) as client, client.stream("/") as stream:
            await stream.expect("first")
            await stream.closed()
    (failed,) = logs.named("stream.failed")
    assert (failed["during"], failed["error"]) == ("authorize", "ValueError('the directory has gone')")
    assert logs.named("stream.closed")[0]["reason"] == "finished"


async def test_an_answer_that_is_no_answer_is_not_logged() -> None:
    """Who returns the user instead of nothing finds no token in the log."""

    class Returning(AskedTwice):
        def again(self) -> Any:
            return {"token": TOKEN}

    logs = await log_of(Returning)
    assert "or return None; not dict" in logs.named("stream.failed")[0]["error"]
    assert TOKEN not in repr(logs)


async def test_a_refusal_that_is_not_told_propagates() -> None:
    """``on_error`` returns None: the body is cut, and the server sees why."""

    class Silent(Guarded):
        valid, ends, rooms = {TOKEN}, [], []

        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield "first"
            await anyio.sleep_forever()

        async def on_error(self, request: Request, error: Exception) -> None:
            return None

    raised = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await Silent(scope, receive, send)
        except HTTPException as exc:
            raised.append(exc.status_code)

    async with SSETestClient(app, timeout=100, lifespan=False) as client:
        async with client.stream(f"/?token={TOKEN}") as stream:
            await stream.expect("first")
            Silent.valid.clear()
            assert await stream.closed() is Ending.CUT
    Silent.valid.add(TOKEN)
    assert raised == [401]
    assert [reason for _, reason in Silent.ends] == [CloseReason.UNAUTHORIZED]


async def test_a_client_that_is_stuck_is_asked_in_time() -> None:
    """A ping that it does not read holds up neither the question nor the end, and nothing comes behind it."""

    class Stuck(Rooms):
        valid, ends, rooms = {TOKEN}, [], ["secret"]
        ping_interval = 4.0
        send_timeout = None

    async with serve(Stuck) as client:
        stream = await client.stream(f"/?token={TOKEN}")
        assert (await stream.next_comment()).text == "open"
        Stuck.valid.clear()
        await anyio.sleep(INTERVAL + 0.5)
        await Stuck.broker.publish("secret", "not for you")
        assert await stream.closed() is Ending.FINISHED
        assert [event.event for event in stream.events] == ["stream-error"]
    assert [reason for _, reason in Stuck.ends] == [CloseReason.UNAUTHORIZED]


async def test_an_answer_that_is_there_at_once_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """An eager task, as Python 3.12 has them, may have ended when the call that starts it returns."""
    original = Companions.start

    def start_eagerly(function: Callable[[], Coroutine[Any, Any, None]]) -> Any:
        with pytest.raises(StopIteration):
            function().send(None)
        return SimpleNamespace(cancel=bool)

    def start(companions: Companions, *args: Any) -> None:
        companions._tasks = SimpleNamespace(start=start_eagerly)
        original(companions, *args)

    monkeypatch.setattr(Companions, "start", start)
    async with serve(Ticks) as client, client.stream(f"/?token={TOKEN}") as stream:
        await stream.expect(*["tick"] * 35)
    assert [reason for _, reason in Ticks.ends] == [CloseReason.CLIENT_GONE]


@pytest.mark.parametrize("way", ["authorize", "close"])
async def test_a_snapshot_that_comes_too_late_is_not_sent(way: str) -> None:
    """What was read after the right was lost is for nobody; the client comes back without it, if it may."""

    class Secrets(Guarded, ChannelEndpoint):
        valid, ends, rooms = {TOKEN}, [], []
        broker = Broker(observers=())
        channels = ("secret",)

        async def snapshot(self, request: Request) -> str:
            if way == "authorize":
                self.valid.clear()
                await anyio.sleep(INTERVAL)
            else:
                starlette_sse.close(endpoint=Secrets)
            await anyio.sleep(2)
            return "secret"

    async with serve(Secrets) as client, client.stream(f"/?token={TOKEN}") as stream:
        if way == "authorize":
            assert (await stream.next_event()).event == "stream-error"
        with pytest.raises(StreamEndedError, match="finished"):
            await stream.next_event()
    assert [reason for _, reason in Secrets.ends] == [
        CloseReason.UNAUTHORIZED if way == "authorize" else CloseReason.CLOSED
    ]
