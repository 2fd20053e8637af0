"""Broadcast with resume: one log, many cursors.

General layout: :mod:`~starlette_sse.broker.hub` is what applications use, a :class:`Broker`. Its
:class:`~starlette_sse.broker.log.Log` holds each :class:`~starlette_sse.broker.channel.Channel` that live readers
need; a reader is a :class:`Subscription`, a cursor in them. A :class:`Backend` feeds the log and is asked for what
is older: :mod:`~starlette_sse.broker.memory`, where the log is all there is, or :mod:`~starlette_sse.broker.redis`.
"""

from starlette_sse.broker.base import Backend
from starlette_sse.broker.entries import Entry, Gap, Page, Retention
from starlette_sse.broker.hub import Broker, BrokerHealth
from starlette_sse.broker.log import Log
from starlette_sse.broker.positions import Position, ResetReason
from starlette_sse.broker.subscription import Subscription

__all__ = [
    "Backend",
    "Broker",
    "BrokerHealth",
    "Entry",
    "Gap",
    "Log",
    "Page",
    "Position",
    "ResetReason",
    "Retention",
    "Subscription",
]
