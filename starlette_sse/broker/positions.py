"""Where a reader stands in the log, as the id that its client sends back."""

from __future__ import annotations

import re
import secrets
import string
from enum import StrEnum
from typing import NamedTuple

__all__ = ["Position", "ResetReason", "new_epoch"]

ALPHABET = string.ascii_letters + string.digits

#: Fifteen digits stay below 2**53, which a Redis script counts exactly.
FORM = re.compile(r"([A-Za-z0-9]{1,32})-(0|[1-9][0-9]{0,14})", re.ASCII)


class Position(NamedTuple):
    """A place in one log: behind the event with sequence number ``seq``. It is a cursor for any set of channels.

    As text it is an event's id, ``<epoch>-<seq>``: ASCII letters, digits and ``-`` only, so it is safe in a
    cross-origin ``Last-Event-ID`` without a preflight.
    """

    epoch: str
    """Which log, random at its birth."""
    seq: int
    """How many events the log had, of all its channels."""

    def __str__(self) -> str:
        return f"{self.epoch}-{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Position | None:
        """Return the position that ``text`` names, or None if it has not the form of an id."""
        match = FORM.fullmatch(text)
        return None if match is None else cls(match[1], int(match[2]))


class ResetReason(StrEnum):
    """Why a reader is told that its events are not complete."""

    MALFORMED = "malformed"
    """What the client sent was never an id of any log."""
    EPOCH = "epoch"
    """The id is of another log, or of this one before it lost its data."""
    FUTURE = "future"
    """The id is newer than anything in the log."""
    EVICTED = "evicted"
    """Events after the id have left the log."""
    LAGGED = "lagged"
    """The reader was slower than retention while it was connected."""
    LOST = "lost"
    """The backend lost events that this reader may have missed."""


def new_epoch() -> str:
    """Return a random name for a log."""
    return "".join(secrets.choice(ALPHABET) for _ in range(8))
