"""Checking what a class or a caller was given, with errors that name the attribute and the remedy."""

from __future__ import annotations

import inspect
import math
import re
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any

from starlette_sse.events.fields import LONGEST_RETRY
from starlette_sse.exceptions import ConfigurationError

__all__ = [
    "annotations_of",
    "check_callables",
    "check_choice",
    "check_count",
    "check_encodable_headers",
    "check_headers",
    "check_methods",
    "check_milliseconds",
    "check_number",
    "check_rate",
    "check_seconds",
    "check_settable",
    "check_status",
    "is_kind",
]

#: What methods and names of headers are made of (RFC 9110, 5.6.2).
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

#: Final statuses whose responses have no body (RFC 9110, 15.3.5, 15.3.6 and 15.4.5).
BODILESS = frozenset({204, 205, 304})


def annotations_of(owner: Any) -> dict[str, Any]:
    """Return the annotations of a class or a function itself, as they were written where they cannot be worked out."""
    if sys.version_info >= (3, 14):
        import annotationlib  # noqa: PLC0415 - older Pythons have none

        return annotationlib.get_annotations(owner, format=annotationlib.Format.FORWARDREF)
    return inspect.get_annotations(owner)


def check_seconds(name: str, value: Any, *, optional: bool = True) -> None:
    """Check a time in seconds, None for never."""
    if value is None and optional:
        return
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value < math.inf:
        never = ", or None for never" if optional else ""
        raise ConfigurationError(f"{name} must be a positive number of seconds{never}; not {value!r}")


def check_rate(name: str, value: Any) -> None:
    """Check how many per second, None for as many as come."""
    if value is None:
        return
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value < math.inf:
        raise ConfigurationError(f"{name} must be a positive number per second, or None for no limit; not {value!r}")


def check_count(name: str, value: Any, *, optional: bool = True) -> None:
    """Check a number of things, None for any number."""
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        unlimited = ", or None for any number" if optional else ""
        raise ConfigurationError(f"{name} must be a whole number from 1{unlimited}; not {value!r}")


def check_milliseconds(name: str, value: Any) -> None:
    """Check a reconnection time, None for none."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LONGEST_RETRY):
        raise ConfigurationError(f"{name} must be whole milliseconds from 0 to {LONGEST_RETRY}, or None; not {value!r}")


def check_status(name: str, value: Any) -> None:
    """Check the status of a response that has a body."""
    if isinstance(value, bool) or not isinstance(value, int) or not 200 <= value <= 599 or value in BODILESS:
        raise ConfigurationError(f"{name} must be an HTTP status from 200 to 599 that has a body; not {value!r}")


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Check one of a few words."""
    if value not in choices:
        raise ConfigurationError(f"{name} must be one of {', '.join(map(repr, choices))}; not {value!r}")


def check_methods(name: str, value: Any) -> None:
    """Check the HTTP methods that open a stream."""
    # Not an iterator, which is used up by the first look.
    words = tuple(value) if isinstance(value, Collection) and not isinstance(value, str) else ()
    if not words or not all(isinstance(word, str) and word.isupper() and TOKEN.fullmatch(word) for word in words):
        raise ConfigurationError(f'{name} must be upper-case HTTP methods such as ("GET", "POST"); not {value!r}')
    if "HEAD" in words:
        raise ConfigurationError(f"{name} must not hold HEAD: it is answered by itself, without a body")


def check_headers(name: str, value: Any) -> None:
    """Check response headers of an event stream."""
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{name} must map header names to values; not {value!r}")
    for key, text in value.items():
        for part in (key, text):
            if not isinstance(part, str) or not part.isprintable() or not is_latin_1(part):
                raise ConfigurationError(f"{name} must map one-line Latin-1 text to the same; not {key!r}: {text!r}")
        if not TOKEN.fullmatch(key):
            raise ConfigurationError(f"{name} must not hold {key!r}: a header's name has letters, digits and hyphens")
        if key.lower() in {"content-length", "transfer-encoding"}:
            raise ConfigurationError(f"{name} must not hold {key}: a stream has no length, and its server frames it")
        if key.lower() == "content-type" and not text.lower().startswith("text/event-stream"):
            raise ConfigurationError(f"{name} must not make {key} {text!r}: clients take nothing but text/event-stream")


def is_latin_1(text: Any) -> bool:
    """Tell whether it is text that a header can carry."""
    return isinstance(text, str) and (text.isascii() or all(ord(char) < 256 for char in text))


def check_number(name: str, value: object) -> None:
    """Check that a time is a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be int or float, not {type(value).__name__}")


def check_encodable_headers(headers: object) -> None:
    """Check that headers can be encoded."""
    if headers is None:
        return
    if not isinstance(headers, Mapping):
        raise ConfigurationError(f"headers must map names to values, or be None; not {headers!r:.200}")
    for name, value in headers.items():
        if not (is_latin_1(name) and is_latin_1(value)):
            raise ConfigurationError(f"headers must map Latin-1 text to the same; not {name!r}: {value!r:.200}")


def check_settable(name: str, value: object) -> None:
    """Check what is to be set; other libraries have events too."""
    if value is not None and (isinstance(value, type) or not hasattr(value, "set")):
        raise ConfigurationError(f"{name} must be an anyio.Event(), or None; not {value!r:.200}")


def check_callables(**given: object) -> None:
    """Refuse what could only fail once the stream is open.

    :raises ConfigurationError: calling one of those given would not run it.
    :raises TypeError: one of them cannot be called.
    """
    for name, value in given.items():
        if inspect.iscoroutine(value):
            value.close()
            raise TypeError(f"{name} must be a function, not the coroutine that calling it gave; leave out the ()")
        if value is not None and not callable(value):
            raise TypeError(f"{name} must be a function, not {type(value).__name__}")
        if is_kind(inspect.isasyncgenfunction, value) or is_kind(inspect.isgeneratorfunction, value):
            raise ConfigurationError(f"{name} has a yield, so that calling it would not run it")


def is_kind(kind: Callable[[object], bool], function: object) -> bool:
    """Tell whether a function, or what makes an object callable, is of a kind."""
    return kind(function) or kind(getattr(function, "__call__", None))  # noqa: B004 - any callable has it
