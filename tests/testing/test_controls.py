"""What real clients do: vanish, stall, break off in a frame, come back, and meet a server that shuts down."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount, Route

import starlette_sse
from starlette_sse import CloseReason, EventSourceResponse, ServerSentEvent, SSEEndpoint
from starlette_sse.testing import Ending, SSETestClient, StillRunningError

from .apps import Connection, app, until_gone

pytestmark = pytest.mark.anyio


class Numbers(SSEEndpoint):
    """Sends numbers from the one after the client's last id."""

    async def events(self, request: Request) -> AsyncIterator[Any]:
        number = int(self.last_event_id or 0)
        while True:
            number += 1
            yield ServerSentEvent({"n": number}, id=number)
            await anyio.sleep(float(request.query_params.get("interval", 0)))


def serve(*endpoints: type, **options: Any) -> Starlette:
    return Starlette(routes=[Route(f"/{each.__name__.lower()}", each) for each in endpoints], **options)


async def test_a_client_that_disconnects_is_seen_by_the_app() -> None:
    """The app gets http.disconnect; the close reason that it reports is the client's going."""
    gone: list[CloseReason] = []

    class Watched(Numbers):
        async def on_disconnect(self, request: Request, reason: CloseReason) -> None:
            gone.append(reason)

    async with SSETestClient(serve(Watched)) as client, client.stream("/watched") as stream:
        await stream.next_event()
        while_open = stream.is_open, stream.close_reason
        stream.disconnect()
        assert not stream.is_open
        assert await stream.closed() is Ending.DISCONNECTED
        assert stream.close_reason is CloseReason.CLIENT_GONE
    assert while_open == (True, None)
    assert gone == [CloseReason.CLIENT_GONE]


async def test_the_events_of_a_disconnected_stream_end() -> None:
    """A loop over the stream ends with the client's going; what came before stays."""
    async with SSETestClient(serve(Numbers)) as client, client.stream("/numbers") as stream:
        async for event in stream:
            if event.id == "3":
                stream.disconnect()
        assert [event.id for event in stream.events] == ["1", "2", "3"]


async def test_a_stalled_client_blocks_the_apps_send_until_it_resumes() -> None:
    """While stalled no reader gets anything, and the app does not get on; then both do."""
    sent = []

    async def count(connection: Connection) -> None:
        for number in range(10):
            await connection.event(str(number))
            sent.append(number)

    async with SSETestClient(until_gone(count)) as client, client.stream("/") as stream:
        await stream.next_event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stream.closed)
            stream.stall()
            await anyio.wait_all_tasks_blocked()
            assert sent == [0]
            stream.resume()
        assert sent == list(range(10))


async def test_a_stall_that_outlasts_the_send_timeout_ends_the_stream(virtual_clock: Any) -> None:
    """Thirty seconds of a stalled client take no time to test."""
    async with SSETestClient(serve(Numbers)) as client, client.stream("/numbers") as stream:
        await stream.next_event()
        start = anyio.current_time()
        stream.stall()
        assert await stream.closed() is Ending.CUT
        assert anyio.current_time() - start == pytest.approx(30.0, abs=1.0)
        assert stream.close_reason is CloseReason.SEND_TIMEOUT


async def test_a_client_cut_off_in_a_frame_neither_sees_the_event_nor_keeps_its_id() -> None:
    """The standard discards an incomplete event, its id included; the half of it is in the body."""
    async with SSETestClient(serve(Numbers)) as client, client.stream("/numbers") as stream:
        await stream.expect({"id": "1"})
        await stream.cut()
        assert await stream.closed() is Ending.DISCONNECTED
        assert [event.id for event in stream.events] == ["1"]
        assert stream.last_event_id == "1"
        assert stream.body.endswith(b"id: 2\r\ndata: ")


@pytest.mark.parametrize("size", range(30))
async def test_a_cut_can_be_at_any_byte(size: int) -> None:
    """Wherever the connection breaks off, the client resumes after the last event that it has whole."""
    frame = b'id: 2\r\ndata: {"n":2}\r\n\r\n'
    async with SSETestClient(serve(Numbers)) as client, client.stream("/numbers") as stream:
        await stream.next_event()
        before = stream.body
        await stream.cut(at=size)
        assert stream.body == before + frame[:size]
        # The blank line is complete with its CR.
        assert stream.last_event_id == ("2" if size >= len(frame) - 1 else "1")


async def test_a_cut_waits_for_an_event_and_lets_comments_pass() -> None:
    """Only an event can be lost; what comes before it is received."""

    async def talk(connection: Connection) -> None:
        await connection.write(b": data: none\n\n")
        await connection.write(b"event: x\ndata\n\n")

    async with SSETestClient(until_gone(talk)) as client, client.stream("/") as stream:
        await stream.cut()
        assert [comment.text for comment in stream.comments] == ["data: none"]
        assert stream.body.endswith(b"event: x\nda")
        assert stream.events == ()


async def test_cutting_a_stream_that_brings_nothing_fails_in_time() -> None:
    """The test is told what did not come."""

    async def silent(connection: Connection) -> None:
        await anyio.sleep_forever()

    async with SSETestClient(until_gone(silent)) as client, client.stream("/") as stream:
        with pytest.raises(TimeoutError, match=r"GET / brought no data to cut within 0\.01 s"):
            await stream.cut(timeout=0.01)


async def test_a_client_reconnects_with_the_last_id_that_it_has_seen() -> None:
    """The same request goes on where the old stream was, which the client leaves if it has not yet."""
    async with SSETestClient(serve(Numbers)) as client:
        async with client.stream("/numbers?interval=0", headers={"X-Tab": "1"}) as first:
            await first.expect({"id": "1"}, {"id": "2"})
            async with client.reconnect(first) as second:
                assert not first.is_open
                await second.expect({"id": "3"})
                await second.cut()
            async with client.reconnect(second) as third:
                assert dict(third.request.headers)[b"x-tab"] == b"1"
                assert dict(third.request.headers)[b"last-event-id"] == b"3"
                await third.expect({"id": "4"})


async def test_a_client_that_reconnects_is_the_same_client() -> None:
    """It comes from where it was, and has as much patience."""

    async def tell(connection: Connection) -> None:
        await connection.event(connection.scope["client"][0])
        await anyio.sleep_forever()

    async with SSETestClient(until_gone(tell)) as client:
        async with client.stream("/", scope={"client": ("10.0.0.1", 1)}, timeout=0.01) as first:
            await first.expect("10.0.0.1")
        async with client.reconnect(first) as second:
            await second.expect("10.0.0.1")
            with pytest.raises(TimeoutError, match=r"within 0\.01 s"):
                await second.next_event()


async def test_a_client_reconnects_without_an_id_if_it_has_none() -> None:
    """The header is left out rather than sent empty, and an id that the stream reset is not sent again."""

    async def talk(connection: Connection) -> None:
        await connection.write(b"id\ndata: x\n\n")

    async with SSETestClient(until_gone(talk)) as client, client.stream("/", last_event_id="7") as stream:
        assert stream.last_event_id == "7"
        await stream.next_event()
        assert stream.last_event_id == ""
        async with client.reconnect(stream) as again:
            assert b"last-event-id" not in dict(again.request.headers)


async def test_an_id_goes_out_as_utf_8() -> None:
    """As browsers send it: the app that decodes it so gets it back whole."""
    seen = []

    class Echo(SSEEndpoint):
        async def events(self, request: Request) -> AsyncIterator[Any]:
            seen.append(self.last_event_id)
            yield "x"

    async with SSETestClient(serve(Echo)) as client, client.stream("/echo", last_event_id="späť") as stream:
        await stream.read()
    assert seen == ["späť"]


# Shutdown.


@pytest.mark.parametrize("options", [{}, {"lifespan": starlette_sse.lifespan}], ids=["without lifespan", "lifespan"])
async def test_a_drain_ends_the_apps_streams_with_their_farewell(options: dict[str, Any]) -> None:
    """Each stream says farewell and ends cleanly, whether the app has the package's lifespan or not."""
    async with SSETestClient(serve(Numbers, **options)) as client:
        async with client.stream("/numbers?interval=1") as first, client.stream("/numbers?interval=1") as second:
            await first.next_event()
            client.drain()
            for stream in (first, second):
                assert await stream.closed() is Ending.FINISHED
                assert stream.close_reason is CloseReason.DRAINING
                assert stream.retry is not None


async def test_a_drain_concerns_the_app_under_test_only() -> None:
    """Two clients in one event loop are two servers: the other's streams go on."""
    async with SSETestClient(serve(Numbers)) as one, SSETestClient(serve(Numbers)) as other:
        async with one.stream("/numbers?interval=0") as first, other.stream("/numbers?interval=0") as second:
            one.drain()
            assert await first.closed() is Ending.FINISHED
            await second.next_event()
            assert second.close_reason is None


async def test_a_drain_reaches_mounted_apps_and_function_routes() -> None:
    """The state that names the app's streams is in every request's scope."""

    async def function(request: Request) -> EventSourceResponse:
        async def events() -> AsyncIterator[str]:
            yield "one"
            await anyio.sleep_forever()

        return EventSourceResponse(events())

    mounted = Starlette(routes=[Mount("/inner", Starlette(routes=[Route("/", function)]))])
    async with SSETestClient(mounted) as client, client.stream("/inner/") as stream:
        await stream.expect("one")
        client.drain()
        await stream.closed()
        assert stream.close_reason is CloseReason.DRAINING


async def test_a_stream_that_a_lifespan_drains_at_shutdown_has_its_farewell_read() -> None:
    """The client's exit closes the streams before the app's shutdown begins, so nothing is left to wait for."""
    order = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        async with starlette_sse.lifespan(app) as state:
            yield state
        order.append("shut down")

    class Watched(Numbers):
        async def on_disconnect(self, request: Request, reason: CloseReason) -> None:
            order.append(reason.value)

    async with SSETestClient(serve(Watched, lifespan=lifespan)) as client:
        async with client.stream("/watched"):
            pass
    assert order == ["client_gone", "shut down"]


async def test_no_signal_handler_is_left_behind() -> None:
    """A test's stream changes nothing in the process: Ctrl-C still stops the test run."""
    before = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    async with SSETestClient(serve(Numbers)) as client, client.stream("/numbers") as stream:
        await stream.next_event()
    assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)] == before


# Reasons.


async def test_the_close_reason_of_another_librarys_stream_is_unknown() -> None:
    """Only this package's streams report one."""

    async def one(connection: Connection) -> None:
        await connection.event("one")

    async with SSETestClient(until_gone(one)) as client, client.stream("/") as stream:
        await stream.closed()
        assert stream.close_reason is None


async def test_every_reason_that_a_client_can_cause_or_see_is_reported(virtual_clock: Any) -> None:
    """Finished, error and lifetime, as the app's own log has them."""
    seen = []

    class Three(SSEEndpoint):
        max_lifetime = 3600.0

        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield "one"
            if "error" in request.query_params:
                raise ValueError
            if "finish" not in request.query_params:
                await anyio.sleep(7200)

    async with SSETestClient(serve(Three)) as client:
        for query in ("finish", "error", "lifetime"):
            async with client.stream(f"/three?{query}") as stream:
                await stream.closed()
                seen.append(stream.close_reason)
    assert seen == [CloseReason.FINISHED, CloseReason.ERROR, CloseReason.LIFETIME]


async def test_a_stream_that_stays_registered_fails_the_test() -> None:
    """A registry entry that outlives its stream is a leak, and is found when the client closes."""

    class Entry:
        longest_end = 0.0

        def drain(self) -> None:
            pass

    async def leak(connection: Connection) -> None:
        connection.scope["state"]["starlette_sse"].join(Entry())
        await connection.start()
        await connection.finish()

    with pytest.raises(StillRunningError, match="1 streams are registered after the last has ended"):
        async with SSETestClient(app(leak)) as client, client.stream("/") as stream:
            await stream.closed()
            assert stream.close_reason is None


async def test_the_domain_in_the_scope_is_a_domain_like_any_other() -> None:
    """An app that looks at its own domain finds all of it."""
    seen: list[Any] = []

    class Entry:
        longest_end = 20.0

        def drain(self) -> None:
            seen.append("farewell")

        async def leave(self, domain: Any) -> None:
            seen.append("leaves")
            domain.leave(self)

    async def look(connection: Connection) -> None:
        domain, entry = connection.scope["state"]["starlette_sse"], Entry()
        domain.join(entry)
        seen.extend([len(domain), list(domain) == [entry], domain.draining])
        domain.dismiss()
        seen.append(domain.draining)
        domain.drain()
        seen.append(domain.draining)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(entry.leave, domain)
            await domain.drained()
            seen.append(len(domain))
        await connection.start()
        await connection.finish()

    async with SSETestClient(app(look)) as client:
        await client.request("GET", "/")
    assert seen == [1, True, False, "farewell", False, "farewell", True, "leaves", 0]
