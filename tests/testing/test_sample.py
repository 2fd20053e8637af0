"""Tests of an app's streams, as its authors would write them: hours of streaming that take no time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import starlette_sse
from starlette_sse import Broker, ChannelEndpoint, CloseReason, ServerSentEvent, SSEEndpoint
from starlette_sse.testing import CapturedLogs, Ending, SSETestClient, assert_gaps, nothing_left_running


class Clock(SSEEndpoint):
    async def events(self, request: Request) -> AsyncIterator[ServerSentEvent]:
        for hour in range(3):
            yield ServerSentEvent({"hour": hour}, event="tick", id=hour)
            await anyio.sleep(3600)
        raise RuntimeError("the clock's spring broke")


class Chat(ChannelEndpoint):
    broker = Broker()

    async def authorize(self, request: Request) -> None:
        if request.query_params.get("key") != "secret":
            raise HTTPException(403)

    async def channels(self, request: Request) -> list[str]:
        return ["room"]


async def say(request: Request) -> JSONResponse:
    return JSONResponse(await Chat.broker.publish("room", await request.json()))


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
    async with Chat.broker, starlette_sse.lifespan(app) as state:
        yield state


routes = [Route("/clock", Clock), Route("/chat", Chat), Route("/say", say, methods=["POST"])]
app = Starlette(routes=routes, lifespan=lifespan)

pytestmark = pytest.mark.usefixtures("virtual_clock")


async def test_the_clock_ticks_every_hour() -> None:
    async with SSETestClient(app) as client, client.stream("/clock") as stream:
        await stream.expect(
            {"event": "tick", "data": {"hour": 0}},
            {"event": "tick", "data": {"hour": 1}},
            {"event": "tick", "data": {"hour": 2}, "id": "2"},
        )
        assert_gaps(stream.events, 3600)
        await stream.expect_silence(3599)
        assert_gaps(stream.comments[-10:], 15)


async def test_who_was_away_gets_what_was_said_meanwhile() -> None:
    async with SSETestClient(app) as client, client.stream("/chat?key=secret") as ann:
        async with client.stream("/chat?key=secret") as bob:
            await client.request("POST", "/say", json="hello")
            await ann.expect("hello")
            await bob.expect("hello")
            await client.request("POST", "/say", json="is anybody there?")
            await bob.cut()
        await client.request("POST", "/say", json="bob?")
        async with client.reconnect(bob) as bob_again:
            await bob_again.expect("is anybody there?", "bob?")
        await ann.expect("is anybody there?", "bob?")


async def test_strangers_are_refused() -> None:
    async with SSETestClient(app) as client:
        assert (await client.request("GET", "/chat?key=guessed")).status_code == 403


async def test_an_error_is_told_to_the_client_without_its_secrets(sse_logs: CapturedLogs) -> None:
    async with SSETestClient(app) as client, client.stream("/clock") as stream:
        assert await stream.closed() is Ending.FINISHED
        assert stream.close_reason is CloseReason.ERROR
        error = stream.events[-1]
        assert (error.event, error.json()["status"]) == ("stream-error", 500)
        assert "spring" not in error.data
    assert "spring" in sse_logs.named("stream.failed")[0]["error"]


async def test_a_shutdown_says_farewell() -> None:
    async with SSETestClient(app) as client, client.stream("/clock") as stream:
        await stream.expect({"event": "tick"})
        client.drain()
        assert await stream.closed() is Ending.FINISHED
        assert stream.close_reason is CloseReason.DRAINING
        assert stream.retry is not None


async def test_a_client_that_reads_nothing_is_let_go_after_thirty_seconds(sse_logs: CapturedLogs) -> None:
    async with nothing_left_running(Chat.broker), SSETestClient(app) as client:
        async with client.stream("/chat?key=secret") as stream:
            stream.stall()
            await client.request("POST", "/say", json="hello")
            assert await stream.closed() is Ending.CUT
    assert sse_logs.named("stream.closed")[-1]["reason"] == "send_timeout"
