"""How fast a client may open streams."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from starlette_sse import SSEEndpoint, limits
from starlette_sse.limits import ConnectRate, StreamLimit, one_client
from starlette_sse.refusals import StreamRefusedError
from tests.visits import Visit, held


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Tried:
    """A rate on a clock of its own."""

    def __init__(self, rate: float, burst: int) -> None:
        self.clock = Clock()
        self.rate = ConnectRate(rate, burst, self.clock)

    def take(self, client: str = "a", times: int = 1) -> int:
        """Try some times at once and return how often it worked."""
        taken = 0
        for _ in range(times):
            try:
                self.rate.take(client)
            except StreamRefusedError:
                continue
            taken += 1
        return taken

    def wait(self, client: str = "a") -> float:
        """Return how long a client that is refused is told to wait."""
        with pytest.raises(StreamRefusedError) as caught:
            self.rate.take(client)
        assert (caught.value.refusal.reason, caught.value.refusal.status) == ("connect_rate", 429)
        return caught.value.wait


def test_a_burst_is_let_in_and_then_one_at_a_time() -> None:
    """Two per second, five at once: a new one every half second after that."""
    tried = Tried(2.0, 5)
    assert tried.take(times=20) == 5
    tried.clock.now += 0.4
    assert tried.take() == 0
    tried.clock.now += 0.1
    assert tried.take(times=2) == 1
    tried.clock.now += 1.0
    assert tried.take(times=5) == 2


def test_a_client_that_pauses_gets_its_burst_back_and_no_more() -> None:
    """A bucket never holds more than the burst."""
    tried = Tried(1.0, 3)
    assert tried.take(times=5) == 3
    tried.clock.now += 3600.0
    assert tried.take(times=10) == 3


def test_each_client_has_a_bucket_of_its_own() -> None:
    """One that storms holds back nobody else."""
    tried = Tried(1.0, 1)
    assert tried.take("storm", times=1000) == 1
    assert tried.take("calm") == 1


def test_a_refused_client_is_told_when_it_has_a_chance() -> None:
    """It is let in at just that time, and being refused costs it nothing."""
    tried = Tried(0.1, 2)
    assert tried.take(times=2) == 2
    assert tried.wait() == pytest.approx(10.0)
    tried.clock.now += 4.0
    assert tried.take(times=100) == 0
    assert tried.wait() == pytest.approx(6.0)
    tried.clock.now += tried.wait()
    assert tried.take() == 1


@pytest.mark.parametrize("rate", [0.001, 0.7, 2e6])
def test_nobody_is_let_in_before_its_time_but_for_a_rounding_error(rate: float) -> None:
    """However long or short the time is."""
    tried = Tried(rate, 1)
    assert tried.take() == 1
    began, wait = tried.clock.now, tried.wait()
    tried.clock.now = began + wait * 0.999
    assert tried.take() == 0
    tried.clock.now = began + wait * (1 - 1e-7)
    assert tried.take() == 1


@given(
    st.floats(0.01, 100), st.integers(1, 20), st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 5)), max_size=60)
)
def test_it_is_a_token_bucket(rate: float, burst: int, visits: list[tuple[str, float]]) -> None:
    """Whatever comes when, it lets in what a bucket that counts its tokens lets in."""
    tried = Tried(rate, burst)
    tokens = dict.fromkeys("ab", float(burst))
    for client, pause in visits:
        tried.clock.now += pause
        tokens = {each: min(burst, held + pause * rate) for each, held in tokens.items()}
        if abs(tokens[client] - 1) < 1e-5:
            return
        assert tried.take(client) == (tokens[client] > 1)
        tokens[client] -= tokens[client] > 1


def test_clients_whose_bucket_is_full_are_forgotten() -> None:
    """A million visitors in the course of a day need no more memory than those of the last seconds."""
    tried = Tried(10.0, 5)
    for number in range(10_000):
        tried.clock.now += 0.01
        tried.take(str(number))
        assert len(tried.rate) <= 61


def test_a_flood_of_addresses_cannot_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more clients than are remembered, the one that came least recently is forgotten first."""
    monkeypatch.setattr(limits, "MOST_CLIENTS", 100)
    tried = Tried(0.001, 1)
    for number in range(1000):
        assert tried.take(str(number)) == 1
        assert len(tried.rate) <= 100
    assert tried.take("950") == 0
    assert tried.take("850") == 1


def test_a_client_that_keeps_coming_is_not_the_one_that_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """However early it came first: else it would have its burst again and again."""
    monkeypatch.setattr(limits, "MOST_CLIENTS", 100)
    tried = Tried(0.001, 2)
    assert tried.take("busy") == 1
    for number in range(60):
        tried.take(str(number))
    assert tried.take("busy") == 1
    for number in range(60, 120):
        tried.take(str(number))
    assert tried.take("busy") == 0


def test_a_stream_that_is_refused_for_another_reason_takes_no_token() -> None:
    """A client that finds the process full is let in at once when there is a place."""
    limit = StreamLimit(1, None, ConnectRate(0.001, 1))
    limit.take("first")
    for _ in range(5):
        with pytest.raises(StreamRefusedError, match="max_connections"):
            limit.take("second")
    limit.give_back("first")
    limit.take("second")
    assert limit.by_client() == {"second": 1}


def test_a_client_that_is_too_fast_takes_no_place() -> None:
    """What the rate refuses is not counted as open."""
    limit = StreamLimit(2, None, ConnectRate(0.001, 1))
    limit.take("a")
    limit.give_back("a")
    for _ in range(5):
        with pytest.raises(StreamRefusedError, match="connect_rate"):
            limit.take("a")
    assert len(limit) == 0


@pytest.mark.anyio
async def test_two_hundred_at_once_get_no_more_than_the_burst() -> None:
    """And the next ones no more than the rate."""

    class Storm(SSEEndpoint):
        connect_rate = 0.001
        connect_burst = 3
        observers = ()

        async def on_connect(self, request: Request) -> None:
            await anyio.sleep(0.01)

        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield "in"

    visits = [Visit(Storm) for _ in range(200)]
    async with anyio.create_task_group() as tasks:
        for visit in visits:
            tasks.start_soon(visit.run)
    assert sorted(visit.status for visit in visits) == [200] * 3 + [429] * 197
    # Trio starts tasks in any order, so the last may be one that got in.
    refused = next(visit for visit in visits if visit.status == 429)
    assert refused.body == b"refused: connect_rate"
    assert 1000 <= int(refused.headers["retry-after"]) <= 1016
    assert held(Storm) == (0, {})


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:0:1:aaaa::1", "2001:db8:0:1::/64"),
        ("2001:db8:0:1::2", "2001:db8:0:1::/64"),
        ("2001:db8:0:2::1", "2001:db8:0:2::/64"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("64:ff9b::192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("testclient:1", "testclient:1"),
    ],
)
def test_one_client_is_one_however_many_addresses_it_has(address: str, counted: str) -> None:
    """Else the limits of a client would not hold for those of IPv6."""
    assert one_client(address) == counted


def test_a_long_key_costs_no_more_than_a_short_one() -> None:
    """It is remembered after its stream is closed, and a client may choose it."""
    tried = Tried(0.001, 1)
    assert tried.take("x" * 100_000) == 1
    assert tried.take("x" * 100_000) == 0
    assert tried.take("x" * 99_999) == 1
    assert tried.take("x" * 65) == 1
    assert max(map(len, tried.rate._full_at)) <= 64


@pytest.mark.parametrize("key", ["\ud83d", "\ud83d" * 65])
def test_any_text_is_a_key(key: str) -> None:
    """One that comes by JSON may hold half a character."""
    tried = Tried(1.0, 1)
    assert tried.take(key, times=2) == 1
