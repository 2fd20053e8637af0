"""Who sends in which turn of the event loop, and what one that fails costs the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from starlette_sse.eventloop import current_event_loop
from starlette_sse.eventloop.sprints import Sprint

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Runner:
    def __init__(self, name: str, ran: list[str], then: Callable[[], object] = lambda: None) -> None:
        self._name = name
        self._ran = ran
        self._then = then

    def sprint(self) -> None:
        self._ran.append(self._name)
        self._then()


async def test_each_sends_once_in_the_next_turn_in_the_order_in_which_it_came() -> None:
    """However often it was added, and again when it is added again."""
    ran: list[str] = []
    sprint = Sprint.of(current_event_loop())
    first, second = Runner("first", ran), Runner("second", ran)
    for runner in (first, second, first):
        sprint.add(runner)
    assert ran == []
    await asyncio.sleep(0)
    assert ran == ["first", "second"]
    sprint.add(first)
    await asyncio.sleep(0)
    assert ran == ["first", "second", "first"]


async def test_who_gets_frames_while_others_send_does_so_in_the_same_turn() -> None:
    """A history of one event does not last for another."""
    ran: list[str] = []
    sprint = Sprint.of(current_event_loop())
    second = Runner("second", ran)
    sprint.add(Runner("first", ran, lambda: sprint.add(second)))
    await asyncio.sleep(0)
    assert ran == ["first", "second"]


async def test_who_gets_frames_while_it_sends_itself_sends_again() -> None:
    """An observer may publish what its own stream follows."""
    ran: list[str] = []
    sprint = Sprint.of(current_event_loop())

    def again() -> None:
        if len(ran) < 3:
            sprint.add(runner)

    runner = Runner("it", ran, again)
    sprint.add(runner)
    await asyncio.sleep(0)
    assert ran == ["it"] * 3


async def test_one_that_fails_does_not_hold_up_the_others() -> None:
    """They send a turn later, not with the next event, and the event loop hears of the failure."""
    ran: list[str] = []
    failures: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context["exception"]))
    error = ValueError("broken")

    def fail() -> None:
        raise error

    sprint = Sprint.of(current_event_loop())
    for runner in (Runner("first", ran), Runner("broken", ran, fail), Runner("last", ran)):
        sprint.add(runner)
    await asyncio.sleep(0)
    assert (ran, failures) == (["first", "broken"], [error])
    await asyncio.sleep(0)
    assert (ran, failures) == (["first", "broken", "last"], [error])
