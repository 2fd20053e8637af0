"""The server's half of ASGI: its rules, and the end of a request as the app sees it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from starlette_sse.testing import (
    ASGIProtocolError,
    Ending,
    SSETestClient,
    StillRunningError,
)

from .apps import Connection, app

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        ([{"type": "http.response.body", "body": b""}], "'http.response.body' before 'http.response.start'"),
        ([{"type": "http.response.start", "status": 200}] * 2, "'http.response.start' twice"),
        ([{"type": "http.response.push"}], "'http.response.push', which the scope's extensions do not offer"),
        (
            [{"type": "http.response.start", "status": 200}, {"type": "http.response.body", "body": "text"}],
            "a body of type str; encode it to bytes",
        ),
        (
            [{"type": "http.response.start", "status": 200}, *[{"type": "http.response.body"}] * 2],
            "'http.response.body' after the body was complete",
        ),
    ],
)
async def test_an_app_that_breaks_asgi_is_told_so(messages: list[dict[str, Any]], complaint: str) -> None:
    """What a real server refuses is refused here, inside the app's send."""

    async def wrong(connection: Connection) -> None:
        for message in messages:
            await connection.send(message)

    async with SSETestClient(app(wrong)) as client:
        with pytest.raises(ASGIProtocolError, match=complaint):
            async with client.stream("/") as stream:
                await stream.closed()


async def test_an_app_that_swallows_the_complaint_fails_the_test_all_the_same() -> None:
    """Streams take an error of send for the client's going; the mistake must not pass for that."""

    async def deaf(connection: Connection) -> None:
        await connection.start()
        with contextlib.suppress(RuntimeError):
            await connection.write("text")  # type: ignore[arg-type]  # the mistake

    async with SSETestClient(app(deaf)) as client:
        with pytest.raises(ASGIProtocolError, match="a body of type str"):
            async with client.stream("/") as stream:
                await stream.next_event()


async def test_an_app_that_ignores_the_disconnect_is_cancelled_after_the_grace() -> None:
    """It would live on for ever on a real server, so the test fails and names it."""
    ended = []

    async def deaf(connection: Connection) -> None:
        await connection.start()
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.01)
            ended.append(True)

    async with SSETestClient(app(deaf), close_grace=0.01) as client:
        with pytest.raises(StillRunningError, match=r"GET /deaf had to be cancelled.*0.01 s after its client had gone"):
            async with client.stream("/deaf"):
                pass
        assert ended == [True]


async def test_an_app_that_sends_on_without_end_is_cancelled() -> None:
    """A loop of sends that nobody hears would never let virtual time pass; it is ended by count."""

    async def deaf(connection: Connection) -> None:
        await connection.start()
        while True:
            await connection.event("anyone?")

    async with SSETestClient(app(deaf), close_grace=math.inf) as client:
        with pytest.raises(StillRunningError, match="or went on sending"):
            async with client.stream("/"):
                pass


async def test_the_app_gets_time_to_clean_up_after_the_disconnect() -> None:
    """http.disconnect comes first and the app is not cancelled within the grace, so its cleanup completes."""
    steps = []

    async def tidy(connection: Connection) -> None:
        await connection.start()
        await connection.gone()
        await anyio.sleep(0.01)
        steps.append("cleaned up")

    async with SSETestClient(app(tidy)) as client:
        async with client.stream("/"):
            pass
        assert steps == ["cleaned up"]
        async with client.stream("/") as stream:
            stream.disconnect()
            assert steps == ["cleaned up"]
            assert await stream.closed() is Ending.DISCONNECTED
            assert steps == ["cleaned up"] * 2


async def test_a_send_that_waits_for_the_client_returns_when_it_goes() -> None:
    """On real servers the app hears nothing of it from send, before or after; it has to receive."""
    sent = []

    async def talk(connection: Connection) -> None:
        await connection.start()
        for number in range(3):
            await connection.event(str(number))
            sent.append(number)

    async with SSETestClient(app(talk)) as client, client.stream("/") as stream:
        await stream.next_event()
        await anyio.wait_all_tasks_blocked()
        assert sent == [0]
        stream.disconnect()
        assert await stream.closed() is Ending.DISCONNECTED
    assert sent == [0, 1, 2]


async def test_what_an_app_gave_up_sending_does_not_arrive() -> None:
    """As little as what comes too late."""
    gave_up = anyio.Event()

    async def impatient(connection: Connection) -> None:
        await connection.start()
        with anyio.move_on_after(0.01):
            await connection.event("lost")
        gave_up.set()
        await connection.event("kept")
        await connection.finish()

    async with SSETestClient(app(impatient)) as client, client.stream("/") as stream:
        await gave_up.wait()
        await stream.expect("kept")


async def test_the_request_is_over_for_the_app_when_its_response_is() -> None:
    """receive() gives the request, then blocks, then tells the end, as on a real server."""
    got = []

    async def listen(connection: Connection) -> None:
        got.append(await connection.receive())
        await connection.start()
        await connection.finish()
        got.extend([await connection.receive(), await connection.receive()])

    async with SSETestClient(app(listen)) as client, client.stream("/", method="POST", content=b"x") as stream:
        await stream.read()
    gone = {"type": "http.disconnect"}
    assert got == [{"type": "http.request", "body": b"x", "more_body": False}, gone, gone]


async def test_a_body_that_is_read_too_late_is_lost() -> None:
    """Its client has gone, and that is what the app is told."""
    got = []

    async def late(connection: Connection) -> None:
        await connection.start()
        await connection.event("go")
        got.append(await connection.receive())

    async with SSETestClient(app(late)) as client, client.stream("/", method="POST", content=b"x") as stream:
        stream.disconnect()
        await stream.closed()
    assert got == [{"type": "http.disconnect"}]


async def test_an_empty_piece_of_a_body_waits_for_no_reader_and_lets_others_run() -> None:
    """There is nothing to send, and an app may send it again and again."""
    seen = []

    async def talk(connection: Connection) -> None:
        async with anyio.create_task_group() as tasks:
            await connection.start()
            tasks.start_soon(note)
            for _ in range(3):
                await connection.write(b"")
            seen.append("sent")
            await connection.write(b"data: x\n\n")
        await connection.finish()

    async def note() -> None:
        seen.append("ran")

    async with SSETestClient(app(talk)) as client, client.stream("/") as stream:
        await anyio.wait_all_tasks_blocked()
        assert seen == ["ran", "sent"]
        await stream.expect("x")


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_a_body_may_be_of_any_kind_of_bytes(kind: Callable[[bytes], Any]) -> None:
    """As servers take it."""

    async def body(connection: Connection) -> None:
        await connection.start()
        await connection.write(kind(b"data: x\n\n"), more=False)

    async with SSETestClient(app(body)) as client, client.stream("/") as stream:
        assert await stream.read() == b"data: x\n\n"


@pytest.mark.parametrize("content_type", ["text/event-stream", "text/event-stream ; a=b", "Text/Event-Stream"])
async def test_an_event_stream_is_known_by_its_type_however_that_is_written(content_type: str) -> None:
    """As a browser reads it."""

    async def one(connection: Connection) -> None:
        await connection.start(headers=[(b"content-type", content_type.encode())])
        await connection.event("one")
        await connection.finish()

    async with SSETestClient(app(one)) as client, client.stream("/") as stream:
        await stream.expect("one")


async def test_starlettes_own_streams_work() -> None:
    """StreamingResponse on an endless generator: read in part, its generator is ended by the disconnect."""
    ended = []

    async def numbers() -> AsyncIterator[str]:
        try:
            for number in range(10**9):
                yield f"data: {number}\n\n"
                await checkpoint()
        finally:
            ended.append(True)

    async def endpoint(request: Request) -> StreamingResponse:
        if request.query_params.get("refuse"):
            raise HTTPException(403, "no")
        return StreamingResponse(numbers(), media_type="text/event-stream")

    async with SSETestClient(Starlette(routes=[Route("/", endpoint)])) as client:
        async with client.stream("/") as stream:
            await stream.expect("0", "1", "2")
        assert ended == [True]
        assert (await client.request("GET", "/?refuse=1")).status_code == 403
