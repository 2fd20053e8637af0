"""Ending streams in every process of an app, by a channel of the broker that they share."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio

from starlette_sse.broker import Broker
from starlette_sse.decoding import EventDecoder
from starlette_sse.events import ServerSentEvent
from starlette_sse.exceptions import BrokerClosedError, BrokerUnavailableError
from starlette_sse.registry import ANY, Selection, end
from starlette_sse.streams import Stream

__all__ = ["CHANNEL", "close_everywhere", "follow_closes"]

#: The channel of the orders. Nobody but the app's own processes may publish to it.
CHANNEL = "starlette_sse.close"

ORDER = "close"

#: Seconds between attempts to listen while the broker's backend is away.
PAUSE = 1.0


@dataclass(frozen=True, slots=True)
class Order:
    """Which streams are meant, in words that every process understands."""

    criteria: dict[str, str]

    @classmethod
    def of(cls, selection: Selection) -> Order:
        given = {"client_key": selection.client_key, "connection_id": selection.connection_id}
        criteria = {name: value for name, value in given.items() if value is not ANY}
        if selection.endpoint is not ANY:
            criteria["endpoint"] = name_of(selection.endpoint)
        return cls(criteria)

    def holds(self, stream: Stream) -> bool:
        """Tell whether ``stream`` is open and one of those that are meant."""
        return stream.reason is None and all(self._agrees(stream, *criterion) for criterion in self.criteria.items())

    def _agrees(self, stream: Stream, name: str, value: str) -> bool:
        identity = stream.identity
        if name == "endpoint":
            return identity.kind is not None and value in map(name_of, identity.kind.__mro__)
        return bool(getattr(identity, name) == value)


async def close_everywhere(
    broker: Broker, *, client_key: str = ANY, endpoint: type[Any] = ANY, connection_id: str = ANY
) -> None:
    """End streams as :func:`starlette_sse.close` does, in every process that runs :func:`follow_closes`.

    It returns when the order is in the broker's log; nobody tells how many streams have followed it. A process that
    cannot reach the broker follows it as soon as it can, unless the log has lost it by then: what *must* end, such as
    the stream of a client that is not allowed any more, needs the endpoint's ``authorize_interval`` besides.

    :raises ConfigurationError: a criterion is None, or ``endpoint`` is no class.
    :raises BrokerUnavailableError: the broker's backend is away.
    """
    selection = Selection(client_key=client_key, endpoint=endpoint, connection_id=connection_id)
    await broker.publish(CHANNEL, ServerSentEvent(Order.of(selection).criteria, event=ORDER))


@asynccontextmanager
async def follow_closes(broker: Broker) -> AsyncIterator[None]:
    """Follow the orders of :func:`close_everywhere` in this process; enter it in the app's lifespan::

    async with broker, follow_closes(broker), starlette_sse.lifespan(app) as state:
        yield state
    """
    error: Exception | None = None
    async with anyio.create_task_group() as tasks:
        listening = anyio.Event()
        tasks.start_soon(follow, broker, listening)
        await listening.wait()
        try:
            yield
        except Exception as exc:  # noqa: BLE001 - raised below, without the task group around it
            error = exc
        tasks.cancel_scope.cancel()
    if error is not None:
        raise error


async def follow(broker: Broker, listening: anyio.Event) -> None:
    position: str | None = None
    while True:
        try:
            async with broker.subscribe(CHANNEL, position, on_lag="reset") as subscription:
                listening.set()
                async for entry in subscription:
                    position = subscription.position
                    for order in orders_in(entry.frame):
                        end(order)
        except BrokerUnavailableError:
            # The app starts without its broker, too.
            listening.set()
            await anyio.sleep(PAUSE)
        except BrokerClosedError:
            return


def orders_in(frame: bytes) -> Iterator[Order]:
    """Give the order that a frame of the channel holds; what the broker itself tells, such as a reset, is none."""
    for event in EventDecoder().feed(frame):
        if event.type == ORDER:
            yield Order(json.loads(event.data))


def name_of(kind: type[Any]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
