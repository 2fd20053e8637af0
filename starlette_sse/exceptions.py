"""Everything the package raises of its own.

* :exc:`SSEError`

  * :exc:`ConfigurationError` (also a :exc:`ValueError`): a class attribute or parameter is wrong
  * :exc:`InvalidEventError` (also a :exc:`ValueError`): a value cannot be an event
  * :exc:`SendTimeoutError` (also a :exc:`TimeoutError`): the client took longer than ``send_timeout``
  * :exc:`SlowReaderError`: a reader fell off the broker's log
  * :exc:`MissingDependencyError` (also an :exc:`ImportError`): an extra is not installed
  * :exc:`BrokerError`

    * :exc:`BrokerUnavailableError` (also a :exc:`ConnectionError`): the backend cannot be reached
    * :exc:`BrokerClosedError`: the broker's ``async with`` has ended
"""

from __future__ import annotations

__all__ = [
    "BrokerClosedError",
    "BrokerError",
    "BrokerUnavailableError",
    "ConfigurationError",
    "InvalidEventError",
    "MissingDependencyError",
    "SSEError",
    "SendTimeoutError",
    "SlowReaderError",
]


class SSEError(Exception):
    """The root of every error that the package raises of its own."""


class ConfigurationError(SSEError, ValueError):
    """Raised when a class attribute or a parameter has a value that cannot work."""


class InvalidEventError(SSEError, ValueError):
    """Raised when a value cannot be sent as an event; the message names the field and the remedy."""


class SendTimeoutError(SSEError, TimeoutError):
    """Raised when one send took longer than the response's ``send_timeout`` seconds."""


class SlowReaderError(SSEError):
    """Raised by a subscription whose reader was slower than the broker's retention, with ``on_lag="disconnect"``."""


class MissingDependencyError(SSEError, ImportError):
    """Raised when a feature needs an extra that is not installed; the message names the command."""


class BrokerError(SSEError):
    """The root of what goes wrong with a :class:`~starlette_sse.Broker`, and raised when it is not used as it must be.

    Parameters and events that cannot work raise what they raise elsewhere.
    """


class BrokerUnavailableError(BrokerError, ConnectionError):
    """Raised by ``publish``, and by subscribing to a channel that is new in this process, while the backend is away.

    :param in_doubt: whether what was asked for may have been done all the same: the answer was lost, or came halfway.
    """

    def __init__(self, message: str, *, in_doubt: bool = False) -> None:
        super().__init__(message)
        self.in_doubt = in_doubt


class BrokerClosedError(BrokerError):
    """Raised when a broker is used after its ``async with`` block has ended."""
