"""Events as values, and the one way from them to bytes.

The event is in :mod:`~starlette_sse.events.event`, what its fields may hold in :mod:`~starlette_sse.events.fields`, and
what becomes of data that is not text in :mod:`~starlette_sse.events.jsontext`.
"""

from starlette_sse.events.event import (
    FRAME,
    JSONServerSentEvent,
    ServerSentEvent,
    as_event,
    as_frame,
    frame_encoder,
)

__all__ = ["FRAME", "JSONServerSentEvent", "ServerSentEvent", "as_event", "as_frame", "frame_encoder"]
