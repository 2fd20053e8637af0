"""Ending streams in every process of an app, by a channel of the broker that they share."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette_sse.broker import Broker
from starlette_sse.broker.names import OwnName
from starlette_sse.decoding import MessageEvent
from starlette_sse.events import ServerSentEvent
from starlette_sse.following import check_broker, following, pseudonym
from starlette_sse.observers import StreamIdentity
from starlette_sse.registry import ANY, Closable, Selection, end

__all__ = ["CHANNEL", "close_everywhere", "follow_closes"]

#: The channel of the orders.
CHANNEL = OwnName("starlette_sse.close")

ORDER = "close"

#: The words of an order. One that has others is not followed: with half of its criteria it would end too many streams.
WORDS = frozenset({"client", "connection_id", "endpoint"})


@dataclass(frozen=True, slots=True)
class Order:
    """Which streams are meant, in words that every process understands and anybody may read."""

    criteria: dict[str, str]

    @classmethod
    def of(cls, selection: Selection) -> Order:
        criteria = {}
        if selection.client_key is not ANY:
            criteria["client"] = pseudonym(selection.client_key)
        if selection.connection_id is not ANY:
            criteria["connection_id"] = selection.connection_id
        if selection.endpoint is not ANY:
            criteria["endpoint"] = name_of(selection.endpoint)
        return cls(criteria)

    @classmethod
    def parse(cls, text: str) -> Order:
        """Return an order of another process.

        :raises ValueError: it is none, or has a word that is not known here.
        """
        criteria = json.loads(text)
        if not isinstance(criteria, dict) or not WORDS.issuperset(criteria):
            raise ValueError(f"not an order to close streams, or one of another version: {text:.200}")
        return cls(criteria)

    def holds(self, stream: Closable) -> bool:
        """Tell whether ``stream`` is one of those that are meant."""
        return all(self._agrees(stream.identity, word, value) for word, value in self.criteria.items())

    def _agrees(self, identity: StreamIdentity, word: str, value: str) -> bool:
        if word == "client":
            return identity.client_key is not None and pseudonym(identity.client_key) == value
        if word == "endpoint":
            return identity.kind is not None and value in map(name_of, identity.kind.__mro__)
        return identity.connection_id == value


async def close_everywhere(
    broker: Broker, *, client_key: str = ANY, endpoint: type[Any] = ANY, connection_id: str = ANY
) -> None:
    """End streams as :func:`starlette_sse.close` does, in every process that runs :func:`follow_closes`.

    It returns when the order is in the broker's log; nobody tells how many streams have followed it. A process that
    cannot reach the broker follows it as soon as it can, unless the log has lost it by then: what *must* end, such as
    the stream of a client that is not allowed any more, needs the endpoint's ``authorize_interval`` besides.

    :raises ConfigurationError: a criterion is None or no text, or ``endpoint`` is no class, or ``broker`` no broker.
    :raises BrokerError: as :meth:`Broker.publish <starlette_sse.Broker.publish>`: its backend is away, it was closed,
        or not entered.
    """
    check_broker(broker)
    selection = Selection(client_key=client_key, endpoint=endpoint, connection_id=connection_id)
    await broker.publish(CHANNEL, ServerSentEvent(Order.of(selection).criteria, event=ORDER))


@asynccontextmanager
async def follow_closes(broker: Broker) -> AsyncIterator[None]:
    """Follow the orders of :func:`close_everywhere` in this process; enter it in the app's lifespan::

    async with broker, follow_closes(broker), starlette_sse.lifespan(app) as state:
        yield state

    :raises ConfigurationError: ``broker`` is no broker.
    :raises BrokerClosedError: it was closed.
    """
    async with following(broker, CHANNEL, obey):
        yield


def obey(event: MessageEvent) -> None:
    # What the broker itself tells, such as a reset, is no order.
    if event.type == ORDER:
        end(Order.parse(event.data))


def name_of(kind: type[Any]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
