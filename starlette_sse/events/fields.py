"""What each field of an event may hold, and the errors that say so."""

from __future__ import annotations

import re
from typing import Any

from starlette_sse.exceptions import InvalidEventError

__all__ = ["LONGEST_RETRY", "SEPARATORS", "identifier", "lines", "milliseconds", "one_line", "separator"]

SEPARATORS = ("\r\n", "\n", "\r")
"""The line ends of the standard."""

#: In milliseconds.
LONGEST_RETRY = 2**31 - 1
NOT_IN_ONE_LINE = re.compile("[\r\n\0]")


def plain(field: str, value: Any) -> str:
    """Return ``value``, of any class of strings, as a plain ``str`` that UTF-8 can carry."""
    if not isinstance(value, str):
        raise InvalidEventError(f"{field} must be a str, not {type(value).__name__}; convert it first, as by str()")
    # A subclass may print as something else than it holds, as an Enum's member does, or behave otherwise.
    text = str.__str__(value)
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise InvalidEventError(
            f"{field} has a lone surrogate at position {exc.start}, which UTF-8 cannot carry; "
            "replace it, as by .encode('utf-8', 'replace').decode()"
        ) from None
    return text


def lines(field: str, value: Any) -> str:
    """Return text whose lines end with CR LF, CR or LF with LF alone."""
    text = plain(field, value)
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def one_line(field: str, value: Any) -> str:
    """Return text that is one line without NUL."""
    line = plain(field, value)
    found = NOT_IN_ONE_LINE.search(line)
    if found:
        raise InvalidEventError(
            f"{field} must be one line without NUL, but has {found[0]!r} at position {found.start()}; "
            "remove it, or send the text as data"
        )
    return line


def identifier(value: Any) -> str:
    """Return an event's id, which may be given as a number."""
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            return str(int(value))
        except ValueError as exc:  # Python prints a few thousand digits at most
            raise InvalidEventError(f"id is too long a number, give a shorter one: {exc}") from exc
    return one_line("id", value)


def milliseconds(value: Any) -> int:
    """Return a reconnection time that every client can keep."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidEventError(f"retry must be an int in milliseconds, not {type(value).__name__}")
    if not 0 <= value <= LONGEST_RETRY:
        # JavaScript's timers hold 31 bits and fire at once beyond that.
        raise InvalidEventError(
            f"retry must be 0 to {LONGEST_RETRY} milliseconds (24 days); clients ignore a negative time, "
            "and many reconnect at once when a longer one overflows their timer"
        )
    return int(value)


def separator(value: Any) -> str:
    """Return ``value`` if it is a line end."""
    if value not in SEPARATORS:
        raise InvalidEventError(f"sep must be one of '\\r\\n', '\\n', '\\r', not {value!r}")
    return str(value)
