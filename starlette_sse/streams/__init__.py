"""The driver of a stream, from its first byte to its cleanup.

:mod:`~starlette_sse.streams.stream` has the rules: who runs, what ends a stream, and in which order it is wound up. It
sends through a writer (:mod:`~starlette_sse.streams.writers`), lets a producer run ``events()``
(:mod:`~starlette_sse.streams.producers`) or pulls from a source (:mod:`~starlette_sse.streams.sources`), has companions
(:mod:`~starlette_sse.streams.companions`), hears that the client has gone
(:mod:`~starlette_sse.streams.listeners`), watches the clock by one alarm (:mod:`~starlette_sse.streams.deadlines`),
takes the steps of the end (:mod:`~starlette_sse.streams.endings`) and asks its owner for what is the endpoint's
(:mod:`~starlette_sse.streams.owners`). Why something beside it has ended, an exception tells
(:mod:`~starlette_sse.streams.causes`). A ``send`` that has been begun in a callback is ended in a task
(:mod:`~starlette_sse.streams.resumed`). What is known of particular servers is in
:mod:`~starlette_sse.streams.servers`, and how uvicorn's ``send`` is passed by in :mod:`~starlette_sse.streams.chunks`.
"""

from starlette_sse.streams.deadlines import StreamSettings
from starlette_sse.streams.sources import FrameSource
from starlette_sse.streams.stream import Stream

__all__ = ["FrameSource", "Stream", "StreamSettings"]
