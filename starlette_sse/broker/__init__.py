"""Broadcast with resume: one log, many cursors.

General layout: :mod:`~starlette_sse.broker.hub` is what applications use, a :class:`Broker`. Its log
(:mod:`~starlette_sse.broker.log`) holds each channel (:mod:`~starlette_sse.broker.channel`) that live readers need,
with the newest event of each key (:mod:`~starlette_sse.broker.keyed`). A reader is a subscription
(:mod:`~starlette_sse.broker.subscription`), a cursor in them: cheap on the live path
(:mod:`~starlette_sse.broker.live`), and told by a reset where it has missed something
(:mod:`~starlette_sse.broker.resets`). A backend (:mod:`~starlette_sse.broker.base`) feeds the log and is asked for what
is older: :mod:`~starlette_sse.broker.memory`, where the log is all there is, or :mod:`~starlette_sse.broker.redis`; the
URL chooses (:mod:`~starlette_sse.broker.backends`). All of them speak of entries
(:mod:`~starlette_sse.broker.entries`), positions (:mod:`~starlette_sse.broker.positions`) and names
(:mod:`~starlette_sse.broker.names`), and what happens is counted (:mod:`~starlette_sse.broker.tally`).
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
