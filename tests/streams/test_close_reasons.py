"""Whatever ends a stream, its generator cleans up and ``on_disconnect`` is called once with the reason."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from starlette_sse import CloseReason, SSEEndpoint
from starlette_sse.observers import Observer
from starlette_sse.testing import Ending, capture_logs
from tests.streams.apps import Noting, serve
from tests.visits import scope_of

pytestmark = pytest.mark.anyio

ALL_STEPS = ["connected", "cleaned up"]


async def test_a_generator_that_runs_out_has_finished() -> None:
    """The body ends cleanly after the last event."""

    class Short(Noting):
        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield "only"
            self.notes.append("cleaned up")

    async with serve(Short) as client, client.stream("/") as stream:
        await stream.expect("only")
        assert await stream.closed() is Ending.FINISHED
    assert Short.notes == [*ALL_STEPS, CloseReason.FINISHED]


async def test_a_client_that_disconnects_is_gone() -> None:
    """The generator's ``finally`` may await, although it was interrupted while it waited."""

    class Endless(Noting): ...

    async with serve(Endless) as client, client.stream("/") as stream:
        await stream.expect("first")
        stream.disconnect()
        await stream.closed()
    assert Endless.notes == [*ALL_STEPS, CloseReason.CLIENT_GONE]


async def test_a_receive_that_fails_means_that_the_client_is_gone() -> None:
    """Some servers and middlewares raise there what others tell by a message."""

    class Endless(Noting): ...

    async def receive() -> Any:
        await anyio.sleep(5)
        raise OSError("connection lost")

    async def send(message: Any) -> None: ...

    scope = scope_of()
    with anyio.fail_after(3600):
        await Endless(scope, receive, send)
    assert Endless.notes == [*ALL_STEPS, CloseReason.CLIENT_GONE]


class Failures(Observer):
    """Notes what went wrong, and where."""

    def __init__(self) -> None:
        self.told: list[tuple[str, BaseException]] = []

    def failed(self, stream: Any, error: BaseException, *, during: str, propagates: bool) -> None:
        self.told.append((during, error))


@pytest.mark.parametrize("what", [b"data: second", b": ping"], ids=["event", "ping"])
@pytest.mark.parametrize("gone", [OSError, RuntimeError, anyio.BrokenResourceError, anyio.ClosedResourceError])
async def test_a_send_that_fails_means_that_the_client_is_gone(gone: type[Exception], what: bytes) -> None:
    """Whatever the server raises then: a client's going is no failure, which somebody would have to look into."""
    failures = Failures()

    class Endless(Noting):
        observers = (failures,)
        ping_interval = 15.0

        async def events(self, request: Request) -> AsyncIterator[Any]:
            try:
                yield "first"
                await anyio.sleep(20)
                yield "second"
                await anyio.sleep_forever()
            finally:
                self.notes.append("cleaned up")

    async def send(message: Any) -> None:
        if what in message.get("body", b""):
            raise gone

    scope = scope_of()
    await Endless(scope, anyio.sleep_forever, send)  # type: ignore[arg-type]
    assert Endless.notes == [*ALL_STEPS, CloseReason.CLIENT_GONE]
    assert failures.told == []


async def test_a_stalled_client_ends_by_send_timeout() -> None:
    """A send that blocks ends the stream after ``send_timeout``; the body is cut."""

    class Impatient(Noting):
        send_timeout = 7.0

        async def events(self, request: Request) -> AsyncIterator[Any]:
            try:
                yield "first"
                yield "second"
                self.notes.append("never")
            finally:
                await anyio.sleep(1)
                self.notes.append("cleaned up")

    async with serve(Impatient) as client, client.stream("/") as stream:
        await stream.expect("first")
        stream.stall()
        start = anyio.current_time()
        assert await stream.closed() is Ending.CUT
        assert anyio.current_time() - start == pytest.approx(7.0 + 1 + 1)
    assert Impatient.notes == [*ALL_STEPS, CloseReason.SEND_TIMEOUT]


async def test_a_drained_stream_says_farewell_and_ends() -> None:
    """The farewell tells the client when to come back, and the body ends cleanly."""

    class Endless(Noting): ...

    async with serve(Endless) as client, client.stream("/") as stream:
        await stream.expect("first")
        client.drain()
        assert await stream.closed() is Ending.FINISHED
        assert stream.comments[-1].text == "draining"
        assert stream.retry is not None
        assert 1000 <= stream.retry < 2000
    assert Endless.notes == [*ALL_STEPS, CloseReason.DRAINING]


async def test_a_stream_ends_after_its_lifetime() -> None:
    """The end comes after 80 to 100 % of ``max_lifetime``, with a fresh ``retry``."""

    class Mortal(Noting):
        max_lifetime = 3600.0

    async with serve(Mortal) as client, client.stream("/") as stream:
        start = anyio.current_time()
        await stream.expect("first")
        assert await stream.closed() is Ending.FINISHED
        assert 2880 <= anyio.current_time() - start <= 3603
        assert stream.retry is not None
    assert Mortal.notes == [*ALL_STEPS, CloseReason.LIFETIME]


async def test_a_revoked_client_is_unauthorized() -> None:
    """``authorize`` is asked again every interval; its refusal is told by an event."""

    class Revocable(Noting):
        authorize_interval = 60.0
        asked = 0

        async def authorize(self, request: Request) -> None:
            type(self).asked += 1
            if self.asked == 3:
                raise HTTPException(403, "revoked")

    async with serve(Revocable) as client, client.stream("/") as stream:
        start = anyio.current_time()
        await stream.expect("first")
        event = await stream.next_event()
        assert anyio.current_time() - start == pytest.approx(120, abs=1)
        assert event.event == "stream-error"
        assert event.json()["status"] == 403
        assert await stream.closed() is Ending.FINISHED
    assert Revocable.notes == [*ALL_STEPS, CloseReason.UNAUTHORIZED]


async def test_an_exception_ends_the_stream_by_an_error_event() -> None:
    """The client is told, so the body ends cleanly and nothing is raised."""

    class Failing(Noting):
        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield "first"
            self.notes.append("cleaned up")
            raise ValueError("a secret")

    async with serve(Failing) as client, client.stream("/") as stream:
        await stream.expect("first", {"event": "stream-error"})
        assert "secret" not in stream.events[-1].data
        assert await stream.closed() is Ending.FINISHED
    assert Failing.notes == [*ALL_STEPS, CloseReason.ERROR]


async def test_the_app_closes_a_stream() -> None:
    """``close()`` on the endpoint ends its stream cleanly."""

    class Closable(Noting):
        latest: SSEEndpoint

        async def on_connect(self, request: Request) -> None:
            self.notes.append("connected")
            type(self).latest = self

    async with serve(Closable) as client, client.stream("/") as stream:
        await stream.expect("first")
        Closable.latest.close()
        assert await stream.closed() is Ending.FINISHED
    assert Closable.notes == [*ALL_STEPS, CloseReason.CLOSED]


async def visit_that_is_cancelled(endpoint: Any, send: Any, went_on: anyio.Event) -> None:
    """Serve a client that stays; tell whether the cancellation of its request goes on its way."""
    try:
        await endpoint(scope_of(), anyio.sleep_forever, send)
    except anyio.get_cancelled_exc_class():
        went_on.set()
        raise


async def test_a_request_that_the_server_cancels_is_cancelled() -> None:
    """The cleanup completes under a shield, and the cancellation goes on its way after it."""

    class Endless(Noting): ...

    sent, went_on = anyio.Event(), anyio.Event()

    async def send(message: Any) -> None:
        if b"first" in message.get("body", b""):
            sent.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(visit_that_is_cancelled, Endless, send, went_on)
        await sent.wait()
        tasks.cancel_scope.cancel()
    assert Endless.notes == [*ALL_STEPS, CloseReason.CANCELLED]
    assert went_on.is_set()


async def test_a_request_that_is_cancelled_during_its_last_frame_cleans_up_too() -> None:
    """The last frame is not waited for any more, and the cancellation goes on its way after the cleanup."""

    class Brief(Noting):
        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield "first"

    stuck, went_on = anyio.Event(), anyio.Event()

    async def send(message: Any) -> None:
        if message.get("more_body") is False:
            stuck.set()
            await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(visit_that_is_cancelled, Brief, send, went_on)
        await stuck.wait()
        start = anyio.current_time()
        tasks.cancel_scope.cancel()
    assert anyio.current_time() - start == pytest.approx(Brief.pause)
    assert Brief.notes == ["connected", CloseReason.FINISHED]
    assert went_on.is_set()


async def test_on_disconnect_runs_for_a_generator_that_never_started() -> None:
    """A client that is gone before the first step still ends exactly once."""

    class Late(Noting):
        async def events(self, request: Request) -> AsyncIterator[Any]:
            self.notes.append("started")
            await anyio.sleep_forever()
            yield ""

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None: ...

    scope = scope_of()
    await Late(scope, receive, send)
    assert Late.notes[0] == "connected"
    assert Late.notes[-1] is CloseReason.CLIENT_GONE
    assert Late.notes.count(CloseReason.CLIENT_GONE) == 1


async def test_a_second_reason_changes_nothing() -> None:
    """A client that goes during the cleanup of a finished stream is not a second ending."""

    class Short(Noting):
        cleanup_timeout = 60.0

        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield "only"

        async def on_disconnect(self, request: Request, reason: CloseReason) -> None:
            await anyio.sleep(30)
            self.notes.append(reason)

    async with serve(Short) as client, client.stream("/") as stream:
        await stream.expect("only")
        await anyio.sleep(1)
        client.drain()
        stream.disconnect()
    assert Short.notes == ["connected", CloseReason.FINISHED]


@pytest.mark.parametrize("sends", [0, 1, 2])
@pytest.mark.parametrize(
    "error", [ConnectionResetError, RuntimeError, anyio.BrokenResourceError, anyio.ClosedResourceError]
)
async def test_a_client_that_is_gone_at_any_send_is_no_failure(error: type[Exception], sends: int) -> None:
    """Whatever the server raises from ``send`` then, at the response's start too; nothing is sent behind it."""

    class Endless(Noting):
        observers = SSEEndpoint.observers
        ping_interval = None

        async def events(self, request: Request) -> AsyncIterator[Any]:
            await anyio.sleep(1)
            yield "first"
            await anyio.sleep_forever()

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)
        if len(sent) == sends + 1:
            raise error

    scope = scope_of()
    with capture_logs() as logs, anyio.fail_after(3600):
        await Endless(scope, anyio.sleep_forever, send)  # type: ignore[arg-type]
    assert Endless.notes[-1] is CloseReason.CLIENT_GONE
    assert len(sent) == sends + 1
    assert logs.named("stream.failed") == []
