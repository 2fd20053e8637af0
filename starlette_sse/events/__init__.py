"""Events as values, and the one way from them to bytes.

The event is in :mod:`~starlette_sse.events.event`, and what its fields may hold in
:mod:`~starlette_sse.events.fields`. What becomes of data that is not text is in :mod:`~starlette_sse.events.jsontext`,
and of bytes in :mod:`~starlette_sse.events.fragments`.
"""

from starlette_sse.events.event import (
    JSONServerSentEvent,
    ServerSentEvent,
    as_event,
    as_frame,
    frame_encoder,
)
from starlette_sse.events.fragments import FRAME, Fragment, OpenEvent, ready

__all__ = [
    "FRAME",
    "Fragment",
    "JSONServerSentEvent",
    "OpenEvent",
    "ServerSentEvent",
    "as_event",
    "as_frame",
    "frame_encoder",
    "ready",
]
