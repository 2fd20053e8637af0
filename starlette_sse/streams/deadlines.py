"""Every time limit of a stream, watched by one alarm."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal

from starlette_sse.eventloop import Alarm, EventLoop
from starlette_sse.streams.writers import FrameWriter

__all__ = ["Deadlines", "Due", "StreamSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings:
    """The times and policies of a stream, in seconds; None means never."""

    ping_interval: float | None
    ping_only_when_idle: bool = True
    send_timeout: float | None
    max_lifetime: float | None = None
    cleanup_timeout: float | None
    drain_policy: Literal["close", "finish"]
    drain_grace: float
    authorize_interval: float | None = None

    @property
    def longest_end(self) -> float:
        """How long a stream may take from the call to drain to the end of its cleanup."""
        cleanup = math.inf if self.cleanup_timeout is None else self.cleanup_timeout
        return 2 * self.drain_grace + 2 * cleanup + 1.0


class Due(Enum):
    """What the alarm rings for."""

    GRACE_OVER = auto()
    CLOSING_OVER = auto()
    SEND_TIMEOUT = auto()
    LIFETIME = auto()
    AUTHORIZE = auto()
    PING = auto()


class Deadlines:
    """Rings when something is due, and at least once in each interval of pings.

    The alarm is set for the earliest time at which anything could be due, and set again when it rings. A send only
    notes the time: it neither sets nor cancels a timer.

    :param on_due: called when it rings, with what is due, if anything is.
    """

    __slots__ = (
        "_alarm",
        "_authorize_at",
        "_closed_by",
        "_expires_at",
        "_give_up_at",
        "_head_start",
        "_last_ping",
        "_loop",
        "_settings",
        "_stopped",
        "_writer",
        "context",
        "on_due",
    )

    def __init__(
        self, loop: EventLoop, settings: StreamSettings, writer: FrameWriter, on_due: Callable[[Due | None], None]
    ) -> None:
        self._loop = loop
        self._settings = settings
        self._writer = writer
        self.on_due = on_due
        self._alarm: Alarm | None = None
        #: The request's, for what runs outside of its task: else that would have the context of who set the alarm.
        self.context = copy_context()
        self._last_ping = loop.time()
        self._head_start = 0.0
        self._expires_at = math.inf
        self._authorize_at = math.inf
        self._give_up_at = math.inf
        self._closed_by = math.inf
        self._stopped = False

    def opening(self) -> None:
        """Watch the send that opens the response."""
        if self._settings.ping_interval is not None and self._settings.ping_only_when_idle:
            # Streams that were opened together don't ping together.
            self._head_start = self._settings.ping_interval * random.uniform(0.0, 0.5)  # noqa: S311
        self._set_alarm()

    def opened(self) -> None:
        """Start the clocks that run from the opening."""
        now, settings = self._loop.time(), self._settings
        self._last_ping = now
        if settings.max_lifetime is not None:
            self._expires_at = now + settings.max_lifetime * random.uniform(0.8, 1.0)  # noqa: S311
            self._set_alarm()
        # Else the alarm of the opening may ring a little early, which costs less than another.
        self.authorized()

    def authorized(self) -> None:
        """Start the time until the next authorization."""
        if self._settings.authorize_interval is not None:
            self._authorize_at = self._loop.time() + self._settings.authorize_interval
            self._set_alarm()

    def pinged(self) -> None:
        """Start the time until the next ping."""
        self._last_ping = self._loop.time()
        self._head_start = 0.0

    def grace_begins(self, seconds: float | None) -> None:
        """Give the stream so long to end, if it has not less time already; None: any time."""
        if seconds is not None and not self._stopped:
            self._give_up_at = min(self._give_up_at, self._loop.time() + seconds)
            self._set_alarm()

    def closing(self) -> None:
        """Give the closing of the events, which goes before the stream's end, the time of a cleanup."""
        if self._settings.cleanup_timeout is not None and not self._stopped:
            self._closed_by = self._loop.time() + self._settings.cleanup_timeout
            self._set_alarm()

    def stop(self) -> None:
        """Ring no more."""
        self._stopped = True
        self._cancel_alarm()

    def _cancel_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _set_alarm(self) -> None:
        self._cancel_alarm()
        due = self._next_due(self._loop.time())
        if due < math.inf:
            self._alarm = self._loop.call_at(due, self._ring, self.context)

    def _next_due(self, now: float) -> float:
        due = min(self._expires_at, self._authorize_at, self._give_up_at, self._closed_by)
        if self._settings.send_timeout is not None:
            # A send that begins after now times out later than this.
            since = self._writer.sending_since
            due = min(due, (now if since is None else since) + self._settings.send_timeout)
        if self._settings.ping_interval is not None:
            ping_at = self._quiet_since() + self._settings.ping_interval
            due = min(due, ping_at if ping_at > now else now + self._settings.ping_interval)
        return due

    def _quiet_since(self) -> float:
        if not self._settings.ping_only_when_idle:
            return self._last_ping
        # What is sent before the first ping must not bring those into step that were sent it together.
        return self._writer.last_write - self._head_start

    def _ring(self) -> None:
        due = self._due(self._loop.time())
        if due is Due.GRACE_OVER:
            self._give_up_at = math.inf
        elif due is Due.CLOSING_OVER:
            self._closed_by = math.inf
        elif due is Due.AUTHORIZE:
            self._authorize_at = math.inf
        elif due is Due.LIFETIME:
            self._expires_at = math.inf
        if due is not Due.SEND_TIMEOUT:
            self._set_alarm()
        self.on_due(due)

    def _due(self, now: float) -> Due | None:
        settings, since = self._settings, self._writer.sending_since
        if now >= self._give_up_at:
            return Due.GRACE_OVER
        if now >= self._closed_by:
            return Due.CLOSING_OVER
        if settings.send_timeout is not None and since is not None and now >= since + settings.send_timeout:
            return Due.SEND_TIMEOUT
        if now >= self._expires_at:
            return Due.LIFETIME
        if now >= self._authorize_at:
            return Due.AUTHORIZE
        if settings.ping_interval is not None and now >= self._quiet_since() + settings.ping_interval:
            return Due.PING
        return None
