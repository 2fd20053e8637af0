"""Server-Sent Events for Starlette, as classes with a guaranteed lifecycle.

General layout: an endpoint (:mod:`~starlette_sse.endpoints`) is what users subclass. If there is a place for a request
(:mod:`~starlette_sse.limits`), its body is read (:mod:`~starlette_sse.bodies`) and it runs a stream
(:mod:`~starlette_sse.streams`), as a response does (:mod:`~starlette_sse.responses`); else it is refused so that
browsers come back (:mod:`~starlette_sse.refusals`). The stream iterates over ``events()``
(:mod:`~starlette_sse.iterators`) or reads a subscription (:mod:`~starlette_sse.broker`), and joins a domain that ends
it at shutdown (:mod:`~starlette_sse.draining`), where the app can find it (:mod:`~starlette_sse.registry`). The
processes of an app follow a channel of their broker (:mod:`~starlette_sse.following`) to end streams
(:mod:`~starlette_sse.closing`) and to count them (:mod:`~starlette_sse.presence`) together. What asyncio and trio do
differently is in one place (:mod:`~starlette_sse.eventloop`). Observers (:mod:`~starlette_sse.observers`) are told what
happens; only they log, or count it (:mod:`~starlette_sse.metrics`) for :mod:`~starlette_sse.prometheus` and
:mod:`~starlette_sse.opentelemetry`. The bottom is pure: events to bytes (:mod:`~starlette_sse.events`) and back
(:mod:`~starlette_sse.decoding`), an error's event (:mod:`~starlette_sse.error_events`), a response's headers
(:mod:`~starlette_sse.headers`), what may be given (:mod:`~starlette_sse.attributes`), and what is raised if it is not
that (:mod:`~starlette_sse.exceptions`). Modules import only downwards. Sockets that notice who has gone
(:mod:`~starlette_sse.sockets`) stand by themselves, and so do the tests' tools (:mod:`~starlette_sse.testing`).

Apps import from here, and from ``broker``, ``closing``, ``decoding``, ``events``, ``iterators``, ``observers``,
``presence``, ``sockets``, ``prometheus``, ``opentelemetry`` and ``testing``. All else is free to change.
"""

__version__ = "0.1.0"

from starlette_sse.broker import Broker, Subscription
from starlette_sse.draining import drain, lifespan
from starlette_sse.endpoints import ChannelEndpoint, EndpointResponse, SSEEndpoint
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
    "EndpointResponse",
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
