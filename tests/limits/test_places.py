"""A place is taken before ``on_connect`` and given back once, whatever happens to the stream."""

from __future__ import annotations

import contextlib
import gc
import itertools
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from starlette_sse import CloseReason, ConfigurationError, SSEEndpoint
from starlette_sse.limits import StreamLimit
from starlette_sse.refusals import StreamRefusedError
from starlette_sse.testing import nothing_left_running
from tests.visits import Visit, held
from tests.waiting import kept_out

pytestmark = pytest.mark.anyio

NOBODY: tuple[int, dict[str, int]] = (0, {})


class Counting(SSEEndpoint):
    """Knows by itself how many streams are between ``on_connect`` and ``on_disconnect``, and how many were at most."""

    observers = ()
    inside = most = 0

    async def on_connect(self, request: Request) -> Response | None:
        cls = type(self)
        cls.inside += 1
        cls.most = max(cls.most, cls.inside)
        await anyio.sleep(0.1)
        return None

    async def events(self, request: Request) -> AsyncIterator[Any]:
        yield "in"
        await anyio.sleep_forever()

    async def on_disconnect(self, request: Request, reason: CloseReason) -> None:
        await anyio.sleep(0.1)
        type(self).inside -= 1


async def rush(visits: list[Visit], left: anyio.Event, *, in_turn: bool = False) -> None:
    """Let all of the visits come at once, in any order or in turn; those that were let in leave together."""
    async with anyio.create_task_group() as tasks:
        for visit in visits:
            tasks.start_soon(visit.run)
            if in_turn:
                await anyio.sleep(0.01)
        await anyio.sleep(1.0)
        left.set()


async def test_two_hundred_at_once_never_exceed_the_limit() -> None:
    """Exactly as many as there are places get in, also while those before them are still connecting or cleaning up."""

    class Full(Counting):
        max_connections = 17

    for _ in range(2):
        left = anyio.Event()
        visits = [Visit(Full, f"10.0.0.{number}", left=left) for number in range(200)]
        await rush(visits, left)
        assert sorted(visit.status for visit in visits) == [200] * 17 + [503] * 183
        assert (Full.most, Full.inside) == (17, 0)
        assert held(Full) == NOBODY


async def test_two_hundred_at_once_never_exceed_the_limit_of_each_client() -> None:
    """Of 40 clients with five requests each, every one gets its two streams."""

    class Fair(Counting):
        max_connections_per_client = 2

    left = anyio.Event()
    clients = [f"10.0.0.{number}" for number in range(40)]
    visits = [Visit(Fair, client, left=left) for client in clients for _ in range(5)]
    await rush(visits, left)
    for first in range(0, 200, 5):
        assert sorted(visit.status for visit in visits[first : first + 5]) == [200, 200, 429, 429, 429]
    assert held(Fair) == NOBODY


async def test_both_limits_count_together() -> None:
    """Whichever is reached first refuses, with its own reason, and takes no place of the other's."""

    class Both(Counting):
        max_connections = 3
        max_connections_per_client = 2

    left = anyio.Event()
    visits = [Visit(Both, client, left=left) for client in ("a", "a", "a", "b", "c")]
    await rush(visits, left, in_turn=True)
    assert [visit.status for visit in visits] == [200, 200, 429, 200, 503]
    assert [visit.body for visit in visits if visit.status != 200] == [
        b"refused: max_connections_per_client",
        b"refused: max_connections",
    ]
    assert held(Both) == NOBODY


async def test_a_place_is_free_again_only_after_the_cleanup() -> None:
    """A stream that still cleans up still uses what the limit protects."""

    class One(Counting):
        max_connections = 1

        async def on_disconnect(self, request: Request, reason: CloseReason) -> None:
            await anyio.sleep(5.0)

    first, second, third = Visit(One), Visit(One), Visit(One)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(first.run)
        await anyio.sleep(1.0)
        first.left.set()
        await anyio.sleep(4.0)
        await second.run()
        await anyio.sleep(2.0)
        tasks.start_soon(third.run)
        await anyio.sleep(1.0)
        third.left.set()
    assert [first.status, second.status, third.status] == [200, 503, 200]


class Limited(SSEEndpoint):
    """One place; what goes wrong is in the subclasses."""

    max_connections = 1
    cleanup_timeout = 1.0
    observers = ()

    async def events(self, request: Request) -> AsyncIterator[Any]:
        yield "in"
        await anyio.sleep_forever()


class ConnectRaises(Limited):
    async def on_connect(self, request: Request) -> Response | None:
        raise HTTPException(404)


class ConnectAnswers(Limited):
    async def on_connect(self, request: Request) -> Response | None:
        return PlainTextResponse("not now")


class ConnectIsWrong(Limited):
    async def on_connect(self, request: Request) -> Any:
        return "not a response"


class AuthorizeRaises(Limited):
    async def authorize(self, request: Request) -> None:
        raise HTTPException(401)


class WrongOnTheInstance(Limited):
    async def on_connect(self, request: Request) -> Response | None:
        self.ping_interval = -1
        return None


class EventsCannotBeIterated(Limited):
    def events(self, request: Request) -> Any:
        return 7


class EventsRaise(Limited):
    async def events(self, request: Request) -> AsyncIterator[Any]:
        if not request.query_params:
            raise LookupError
        yield ""


class DisconnectRaises(Limited):
    async def on_disconnect(self, request: Request, reason: CloseReason) -> None:
        raise LookupError


class DisconnectHangs(Limited):
    async def on_disconnect(self, request: Request, reason: CloseReason) -> None:
        await anyio.sleep_forever()


class CleanupHangs(Limited):
    async def events(self, request: Request) -> AsyncIterator[Any]:
        try:
            yield "in"
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(300)


TROUBLES = [
    Limited,
    ConnectRaises,
    ConnectAnswers,
    ConnectIsWrong,
    AuthorizeRaises,
    WrongOnTheInstance,
    EventsCannotBeIterated,
    EventsRaise,
    DisconnectRaises,
    DisconnectHangs,
    CleanupHangs,
]


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.__name__)
async def test_a_place_is_given_back_whatever_goes_wrong(trouble: type[Limited]) -> None:
    """Ten such streams one after the other each find the one place free."""
    for _ in range(10):
        visit = Visit(trouble)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(swallowing, visit)
            await anyio.sleep(1.0)
            visit.left.set()
        assert visit.status != 503
        assert held(trouble) == NOBODY


async def swallowing(visit: Visit) -> None:
    with contextlib.suppress(HTTPException, LookupError, ConfigurationError):
        await visit.run()


@pytest.mark.parametrize("steps", range(12))
async def test_a_place_is_given_back_when_the_server_cancels(steps: int) -> None:
    """At any step: before the response, in ``on_connect``, or with the stream open."""
    for moment in ("now", "connecting", "open"):
        visit = Visit(Cancelled)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(visit.run)
            if moment != "now":
                await anyio.sleep(0.5 if moment == "connecting" else 2.0)
            for _ in range(steps):
                await checkpoint()
            tasks.cancel_scope.cancel()
        assert held(Cancelled) == NOBODY


class Cancelled(Limited):
    async def on_connect(self, request: Request) -> Response | None:
        await anyio.sleep(1.0)
        return None


async def test_a_place_is_given_back_when_the_client_leaves_during_on_connect() -> None:
    """Nobody reads the stream that starts then; it ends at once."""
    reasons = []

    class Slow(Cancelled):
        async def on_disconnect(self, request: Request, reason: CloseReason) -> None:
            reasons.append(reason)

    visit = Visit(Slow)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(visit.run)
        await anyio.sleep(0.5)
        visit.left.set()
    assert reasons == [CloseReason.CLIENT_GONE]
    assert held(Slow) == NOBODY


async def test_a_client_key_that_fails_takes_no_place() -> None:
    """The error is the app's own; nothing was counted."""

    class Keyless(Limited):
        def client_key(self, request: Request) -> str:
            raise LookupError

    with pytest.raises(LookupError):
        await Visit(Keyless).run()
    assert held(Keyless) == NOBODY


async def test_the_client_key_says_who_counts_as_one_client() -> None:
    """Such as a user's name, wherever the requests come from."""

    class ByUser(Limited):
        max_connections = 100
        max_connections_per_client = 1

        def client_key(self, request: Request) -> str:
            return request.headers["x-user"]

    left = anyio.Event()
    visits = [Visit(ByUser, f"10.0.0.{n}", headers={"x-user": user}, left=left) for n, user in enumerate("aab")]
    await rush(visits, left, in_turn=True)
    assert [visit.status for visit in visits] == [200, 429, 200]


async def test_classes_count_apart() -> None:
    """A subclass has places of its own."""

    class Sub(Limited):
        pass

    left = anyio.Event()
    visits = [Visit(each, left=left) for each in (Limited, Sub)]
    await rush(visits, left)
    assert [visit.status for visit in visits] == [200, 200]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_place_that_cannot_be_told_of_is_not_taken(error: type[BaseException]) -> None:
    """What counts together with other processes may fail, and no place is lost by that."""
    limit = StreamLimit(1, 1)

    def fail() -> None:
        raise error("the event loop has ended")

    limit.on_change = fail
    with pytest.raises(error, match="has ended"):
        limit.take("a")
    limit.on_change = None
    limit.take("a")
    assert limit.by_client() == {"a": 1}


def test_a_place_that_cannot_be_told_of_is_given_back_all_the_same() -> None:
    """Its stream has ended, whether the other processes hear of it or not."""
    limit = StreamLimit(1, 1)
    limit.take("a")

    def fail() -> None:
        raise RuntimeError("the event loop has ended")

    limit.on_change = fail
    with pytest.raises(RuntimeError, match="has ended"):
        limit.give_back("a")
    assert (len(limit), limit.by_client()) == (0, {})


def test_one_thread_at_a_time_counts() -> None:
    """Of two that look at once, both would find the last place free."""
    waits: list[bool] = []

    class Key(str):
        __slots__ = ()

        def __hash__(self) -> int:
            waits.append(kept_out(limit._lock))
            return super().__hash__()

    limit = StreamLimit(2, 2)
    limit.take(Key("a"))
    taken = len(waits)
    limit.give_back(Key("a"))
    assert 0 < taken < len(waits)
    assert all(waits)


def test_what_each_client_has_is_told_as_it_is_at_the_moment() -> None:
    """Who asked may go through it while streams come and go."""
    limit = StreamLimit(None, 2)
    limit.take("a")
    told = limit.by_client()
    limit.take("b")
    assert told == {"a": 1}


def test_threads_never_exceed_the_limit() -> None:
    """Event loops in threads of their own share the places of a class."""
    limit = StreamLimit(3, 2)
    inside: list[str] = []
    most, refused = [], []

    def come_and_go(client: str) -> None:
        for _ in range(2000):
            try:
                limit.take(client)
                inside.append(client)
                most.append((len(inside), inside.count(client)))
                inside.remove(client)
                limit.give_back(client)
            except StreamRefusedError as exc:
                refused.append(exc.refusal)

    threads = [threading.Thread(target=come_and_go, args=(client,)) for client in "aabbccdd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(total for total, _ in most) <= 3
    assert max(own for _, own in most) <= 2
    assert len(limit) == 0


async def test_ten_thousand_refused_and_accepted_streams_leave_nothing_behind() -> None:
    """No place, no client's name, no task, and no memory that grows with their number."""

    class Busy(Limited):
        max_connections = 25
        max_connections_per_client = 1
        connect_rate = 1000.0

    clients = (f"10.{number >> 8}.0.{number & 255}" for number in itertools.count())
    statuses: list[int] = []

    async def wave() -> None:
        left = anyio.Event()
        visits = [Visit(Busy, next(clients), left=left) for _ in range(50)]
        await rush(visits, left)
        statuses.extend(visit.status for visit in visits)

    async with nothing_left_running():
        for _ in range(20):
            await wave()
        before = blocks()
        for _ in range(180):
            await wave()
        assert blocks() - before < 1000
    assert statuses.count(200) == statuses.count(503) == 5000
    assert held(Busy) == NOBODY
    limit = Busy._sse_configuration.limit
    assert limit is not None
    assert limit._rate is not None
    assert len(limit._rate) <= 50


def blocks() -> int:
    """Return how many pieces of memory are in use."""
    gc.collect()
    return sys.getallocatedblocks()
