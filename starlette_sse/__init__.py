"""Server-Sent Events for Starlette, as classes with a guaranteed lifecycle.

General layout: an endpoint (:mod:`~starlette_sse.endpoints`, or :mod:`~starlette_sse.channels` for what a broker
brings) is what users subclass; a visit (:mod:`~starlette_sse.visits`) answers one request to it by its hooks. If there
is a place for it (:mod:`~starlette_sse.limits`) it runs a stream (:mod:`~starlette_sse.streams`), as a response
(:mod:`~starlette_sse.responses`) does. The stream runs ``events()`` or reads a subscription
(:mod:`~starlette_sse.broker`), and joins a domain that ends it at shutdown (:mod:`~starlette_sse.draining`), where the
app can find it (:mod:`~starlette_sse.registry`). What asyncio and trio do differently is in one place
(:mod:`~starlette_sse.eventloop`). Observers (:mod:`~starlette_sse.observers`) are told what happens; only they log, or
count it for who shows metrics (:mod:`~starlette_sse.metrics`). The bottom is pure: events to bytes
(:mod:`~starlette_sse.events`) and back (:mod:`~starlette_sse.decoding`). Modules import only downwards.
"""

__version__ = "0.1.0"

from starlette_sse.broker import Broker, Subscription
from starlette_sse.channels import ChannelEndpoint
from starlette_sse.draining import drain, lifespan
from starlette_sse.endpoints import SSEEndpoint
from starlette_sse.events import JSONServerSentEvent, ServerSentEvent
from starlette_sse.exceptions import (
    BrokerClosedError,
    BrokerError,
    BrokerUnavailableError,
    ConfigurationError,
    InvalidEventError,
    MissingDependencyError,
    SendTimeoutError,
    SlowReaderError,
    SSEError,
)
from starlette_sse.observers import CloseReason
from starlette_sse.registry import OpenStream, close, open_streams
from starlette_sse.responses import EventSourceResponse

__all__ = [
    "Broker",
    "BrokerClosedError",
    "BrokerError",
    "BrokerUnavailableError",
    "ChannelEndpoint",
    "CloseReason",
    "ConfigurationError",
    "EventSourceResponse",
    "InvalidEventError",
    "JSONServerSentEvent",
    "MissingDependencyError",
    "OpenStream",
    "SSEEndpoint",
    "SSEError",
    "SendTimeoutError",
    "ServerSentEvent",
    "SlowReaderError",
    "Subscription",
    "close",
    "drain",
    "lifespan",
    "open_streams",
]
