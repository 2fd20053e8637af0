"""Everything the test kit raises of its own.

* :exc:`StreamTestError` (an :exc:`~starlette_sse.exceptions.SSEError` and an :exc:`AssertionError`)

  * :exc:`NoEventError` (also a :exc:`TimeoutError`): what the test waits for did not come in time
  * :exc:`UnexpectedEventsError`: what came is not what the test expects
  * :exc:`StreamEndedError`: the stream ended cleanly, and the test waits for more
  * :exc:`StreamCutError`: the stream broke off without its proper end
  * :exc:`NotAnEventStreamError`: the response is no event stream
  * :exc:`StreamForgottenError`: the test left a stream open
  * :exc:`StillRunningError`: something of the app outlived what it was for

* :exc:`ASGIProtocolError` (an :exc:`~starlette_sse.exceptions.SSEError` and a :exc:`RuntimeError`): raised inside the
  app, which broke a rule of ASGI
"""

from __future__ import annotations

from starlette_sse.exceptions import SSEError

__all__ = [
    "ASGIProtocolError",
    "NoEventError",
    "NotAnEventStreamError",
    "StillRunningError",
    "StreamCutError",
    "StreamEndedError",
    "StreamForgottenError",
    "StreamTestError",
    "UnexpectedEventsError",
]


class StreamTestError(SSEError, AssertionError):
    """The root of what fails a test; a failed assertion to every test runner."""


class NoEventError(StreamTestError, TimeoutError):
    """Raised when what the test waits for did not come within its timeout."""


class UnexpectedEventsError(StreamTestError):
    """Raised by the ``expect`` methods; the message is a diff of what was expected and what came."""


class StreamEndedError(StreamTestError):
    """Raised when the test waits for an event and the stream has ended cleanly."""


class StreamCutError(StreamTestError):
    """Raised when the test reads on after the stream broke off without its proper end.

    The ``__cause__`` is the exception that left the app, if one did.
    """


class NotAnEventStreamError(StreamTestError):
    """Raised when the test waits for an event and the response is no event stream; the message shows its start."""


class StreamForgottenError(StreamTestError):
    """Raised when the client closes and the test has left a stream open; the message says which and where."""


class StillRunningError(StreamTestError):
    """Raised when something outlived its purpose: an app its client, or a task, subscription or stream the test."""


class ASGIProtocolError(SSEError, RuntimeError):
    """Raised inside the app, by ``send``, when it sends what no ASGI server accepts."""
