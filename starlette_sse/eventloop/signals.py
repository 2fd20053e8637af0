"""The shutdown signals: a handler that is chained over the server's own, as long as somebody needs it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeGuard

from starlette_sse.eventloop import running_trio

try:
    # The public one spends 3 us on an enum that it throws away, and it is asked for each stream.
    from _signal import getsignal  # type: ignore[import-not-found]
except ImportError:  # pragma: no cover - another Python than CPython
    from signal import getsignal

__all__ = ["SignalChain"]

#: Servers handle both or none.
SIGNALS = (signal.SIGINT, signal.SIGTERM)

SignalHandler = Callable[[int, FrameType | None], Any]


class ChainedHandler:
    """Does what is to be done at a signal, and then what the handler before it did."""

    def __init__(self, on_signal: Callable[[], None], previous: SignalHandler) -> None:
        self._on_signal = on_signal
        self.previous = previous

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        self._on_signal()
        if running_trio() is None:
            self.previous(signum, frame)
            return
        # A KeyboardInterrupt of trio's does not tear a stream apart.
        from starlette_sse.eventloop.on_trio import call_protected  # noqa: PLC0415 - trio is optional

        call_protected(self.previous, signum)


def chainable(handler: object) -> TypeGuard[SignalHandler]:
    """Tell whether a server's own Python handler is in place, which chaining keeps at work.

    Over ``SIG_DFL`` and ``SIG_IGN``, which are not callable, a handler would stop SIGTERM from killing.
    """
    return callable(handler) and handler is not signal.default_int_handler and not isinstance(handler, ChainedHandler)


class SignalChain:
    """Handlers of this process's shutdown signals; only its main thread can put them in place.

    :param on_signal: called in the main thread, wherever that is at the moment.
    """

    def __init__(self, on_signal: Callable[[], None]) -> None:
        self._on_signal = on_signal
        #: How often a handler was put in place; a server that starts makes it grow.
        self.installations = 0

    @property
    def installed(self) -> bool:
        """Whether nobody has put a handler over it."""
        # One look will do, as this is asked for each stream.
        return isinstance(getsignal(signal.SIGTERM), ChainedHandler)

    def install(self) -> None:
        """Chain a handler over each one that can be chained."""
        if threading.current_thread() is not threading.main_thread():
            return
        for signum in SIGNALS:
            handler = getsignal(signum)
            if chainable(handler):
                signal.signal(signum, ChainedHandler(self._on_signal, handler))
                self.installations += 1

    def uninstall(self) -> None:
        """Take the handlers off again, but those that somebody has put another over."""
        if threading.current_thread() is not threading.main_thread():
            return
        for signum in SIGNALS:
            handler = getsignal(signum)
            if isinstance(handler, ChainedHandler):
                signal.signal(signum, handler.previous)
