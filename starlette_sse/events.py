"""The event as a value, and the one way from it to bytes.

Everything that a stream sends passes through :meth:`ServerSentEvent.encode`. A line end inside a field is what
forges fields and events, so no event can hold one: ``event`` and ``id`` refuse it, ``data`` and ``comment`` keep it
as a bare LF, which the encoder turns into one more line of the same field.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any, Self

from .exceptions import InvalidEventError
from .jsontext import dumps

__all__ = ["SEPARATORS", "JSONServerSentEvent", "ServerSentEvent", "as_event", "as_frame"]

SEPARATORS = ("\r\n", "\n", "\r")
"""The line ends of the standard."""

LONGEST_RETRY = 2**31 - 1
FIELDS = frozenset({"data", "event", "id", "retry", "comment", "sep"})
UNSEEN = (
    "an event needs data (or an id, retry or comment and no event name): clients drop one without; "
    "give data='' for an empty payload, data='null' for JSON's null"
)
NOT_IN_ONE_LINE = re.compile("[\r\n\0\ud800-\udfff]")


class ServerSentEvent:
    """One event for a stream of server-sent events; an immutable value that is valid from birth.

    Events are equal if their fields are; they can be hashed, copied and pickled.

    :param data: the payload. A ``str`` is sent as it is, anything else as the compact JSON text that :meth:`dumps`
        makes of it. ``""`` is a real, empty payload. None: no payload, the browser sees no event.
    :param event: the event's name, one line; ``message`` for the browser if not given. Avoid ``open`` and ``error``:
        the browser's ``EventSource`` has events of its own by these names and the same listener gets both.
    :param id: the event's id, one line. The client sends it as ``Last-Event-ID`` when it comes back, so keep to ASCII
        letters, digits and ``-``. ``""`` makes the client forget the id that it has. An ``int`` becomes its text.
    :param retry: how long the client waits before it reconnects, in milliseconds.
    :param comment: text that clients ignore.
    :param sep: the line end in this event's bytes, CR LF, LF or CR, instead of the stream's.
    :raises InvalidEventError: a value cannot be sent, or clients would drop the event: an ``event`` name without
        ``data``, or no field at all.

    Lines in ``data`` and ``comment`` may end with CR LF, CR or LF. The wire carries that a line ended but not how
    (`HTML standard, 9.2.6 <https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation>`_),
    so both attributes hold what a client will get: LF.
    """

    __slots__ = ("_comment", "_data", "_event", "_id", "_retry", "_sep")

    def __init__(
        self,
        data: Any = None,
        *,
        event: str | None = None,
        id: str | int | None = None,
        retry: int | None = None,
        comment: str | None = None,
        sep: str | None = None,
    ) -> None:
        # Every stream pays for this once per event, so each field has a cheap proof and a slow way with the errors.
        if type(data) is str:
            if "\r" in data or not data.isascii():
                data = lines("data", data)
        elif data is not None:
            data = lines("data", data if isinstance(data, str) else json_text(self, data))
        elif event is not None or (id is None and retry is None and comment is None):
            raise InvalidEventError(UNSEEN)
        # What is printable has no CR, LF, NUL and no surrogate.
        if event is not None and not (type(event) is str and event.isprintable()):
            event = one_line("event", event)
        if id is not None and not (type(id) is str and id.isprintable()):
            self._id: str | None = identifier(id)
        else:
            self._id = id
        self._data: str | None = data
        self._event = event
        self._retry = None if retry is None else milliseconds(retry)
        self._comment = None if comment is None else lines("comment", comment)
        self._sep = None if sep is None else separator(sep)

    @property
    def data(self) -> str | None:
        """The payload as text, its lines separated by LF."""
        return self._data

    @property
    def event(self) -> str | None:
        """The event's name."""
        return self._event

    @property
    def id(self) -> str | None:
        """The event's id."""
        return self._id

    @property
    def retry(self) -> int | None:
        """The reconnection time in milliseconds."""
        return self._retry

    @property
    def comment(self) -> str | None:
        """The comment, its lines separated by LF."""
        return self._comment

    @property
    def sep(self) -> str | None:
        """The line end of this event's bytes; None: the stream's."""
        return self._sep

    @staticmethod
    def dumps(value: Any) -> str | bytes:
        """Return the JSON text of ``data`` that is not a ``str``; override it in a subclass to use another encoder.

        The default knows dataclasses, pydantic models, attrs and msgspec classes, dates and times (ISO 8601), UUID,
        Decimal (as a string, so that no digit is lost), Enum (its value), sets and other collections.

        :raises TypeError: ``value`` has no JSON form.
        :raises ValueError: it holds NaN, an infinity or itself.
        """
        return dumps(value)

    def encode(self, sep: str | None = None) -> bytes:
        r"""Return the event's bytes, up to and with the blank line that ends it.

        :param sep: the stream's line end, CR LF if not given; the event's own ``sep`` wins.
        :raises InvalidEventError: ``sep`` is not a line end.
        """
        head = ""
        if self._comment is not None:
            head = ": " + self._comment.replace("\n", "\r\n: ") + "\r\n"
        if self._id is not None:
            head = f"{head}id: {self._id}\r\n"
        if self._event is not None:
            head = f"{head}event: {self._event}\r\n"
        tail = "\r\n" if self._retry is None else f"retry: {self._retry}\r\n\r\n"
        data = self._data
        if data is None:
            text = head + tail
        else:
            # Without the space a payload that starts with one would lose it.
            if "\n" in data:
                data = data.replace("\n", "\r\ndata: ")
            text = f"{head}data: {data}\r\n{tail}"
        sep = self._sep or sep
        # No field holds a CR, so each CR LF in the text is a line end that was written here.
        return (text if sep is None or sep == "\r\n" else text.replace("\r\n", separator(sep))).encode()

    def replace(self, **changes: Any) -> Self:
        """Return a copy with other fields, as in ``event.replace(id="7")``.

        It works for subclasses with a constructor of their own too, as that is not called again.

        :raises InvalidEventError: as the constructor does.
        """
        event = copy.copy(self)
        ServerSentEvent.__init__(event, **{**fields(self), **changes})
        return event

    __replace__ = replace

    def __eq__(self, other: object) -> bool:
        return fields(self) == fields(other) if isinstance(other, ServerSentEvent) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(fields(self).values()))

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in fields(self).items() if value is not None)
        return f"{type(self).__name__}({given})"


class JSONServerSentEvent(ServerSentEvent):
    """An event whose ``data`` always becomes JSON, a ``str`` too: ``JSONServerSentEvent("x")`` sends ``"x"``."""

    __slots__ = ()

    def __init__(self, data: Any = None, **fields: Any) -> None:
        super().__init__(None if data is None else json_text(self, data), **fields)


def as_event(item: Any, event_class: type[ServerSentEvent] = ServerSentEvent) -> ServerSentEvent:
    """Return the event that an application means by ``item``.

    :param item: an event is itself; a mapping holds the constructor's parameters by name; anything else is the data.
    :param event_class: what to make of it, for its :meth:`~ServerSentEvent.dumps`.
    :raises InvalidEventError: it cannot be an event; it is bytes, which are a frame already; or a mapping has a key
        that is no field of an event.
    """
    if isinstance(item, ServerSentEvent):
        return item
    if isinstance(item, bytes | bytearray | memoryview):
        raise InvalidEventError("bytes are a ready frame and not an event; decode them to send them as data")
    if isinstance(item, Mapping):
        unknown = item.keys() - FIELDS
        if unknown:
            raise InvalidEventError(
                f"a mapping holds an event's fields, and {min(map(repr, unknown))} is none of them "
                "(data, event, id, retry, comment, sep); to send the mapping as data write ServerSentEvent(data=...)"
            )
        return event_class(**item)
    return event_class(item)


def as_frame(item: Any, sep: str | None = None, event_class: type[ServerSentEvent] = ServerSentEvent) -> bytes:
    """Return the bytes to send for ``item``: bytes are sent as they are, anything else as :func:`as_event` says.

    :param sep: the stream's line end, CR LF if not given.
    :raises InvalidEventError: as :func:`as_event`.
    """
    if isinstance(item, bytes | bytearray | memoryview):
        return bytes(item)
    return as_event(item, event_class).encode(sep)


def fields(event: ServerSentEvent) -> dict[str, Any]:
    """Return the constructor's parameters by name."""
    return {
        "data": event.data,
        "event": event.event,
        "id": event.id,
        "retry": event.retry,
        "comment": event.comment,
        "sep": event.sep,
    }


def json_text(event: ServerSentEvent, value: Any) -> str:
    """Return the JSON text that ``event``'s class makes of ``value``."""
    try:
        text = event.dumps(value)
        return text if isinstance(text, str) else str(text, "utf-8")
    except (TypeError, ValueError, RecursionError) as exc:
        raise InvalidEventError(
            f"data of type {type(value).__name__} cannot become JSON: {exc}; give a str, or convert what JSON does not "
            f"know (bytes by .decode(), NaN to None), or override dumps in a subclass of {type(event).__name__}"
        ) from exc


def text(field: str, value: Any) -> str:
    """Return ``value``, of any class of strings, as a plain ``str`` that UTF-8 can carry."""
    if not isinstance(value, str):
        raise InvalidEventError(f"{field} must be a str, not {type(value).__name__}; convert it first, as by str()")
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        raise InvalidEventError(
            f"{field} has a lone surrogate at position {exc.start}, which UTF-8 cannot carry; "
            "replace it, as by .encode('utf-8', 'replace').decode()"
        ) from None
    # A subclass may print as something else than it holds, as an Enum member does.
    return str.__str__(value)


def lines(field: str, value: Any) -> str:
    """Return text whose lines end with CR LF, CR or LF with LF alone."""
    return text(field, value).replace("\r\n", "\n").replace("\r", "\n")


def one_line(field: str, value: Any) -> str:
    """Return text that is one line."""
    line = text(field, value)
    found = NOT_IN_ONE_LINE.search(line)
    if found:
        raise InvalidEventError(
            f"{field} must be one line, but has {found[0]!r} at position {found.start()}, with which it could forge "
            "a field or an event; remove it, or send the text as data"
        )
    return line


def identifier(id: Any) -> str:
    """Return an event's id as one line."""
    if isinstance(id, int) and not isinstance(id, bool):
        try:
            return str(int(id))
        except ValueError as exc:  # Python prints a few thousand digits at most
            raise InvalidEventError(f"id is too long: {exc}") from exc
    return one_line("id", id)


def milliseconds(retry: Any) -> int:
    """Return a reconnection time that every client can keep."""
    if isinstance(retry, bool) or not isinstance(retry, int):
        raise InvalidEventError(f"retry must be an int in milliseconds, not {type(retry).__name__}")
    if not 0 <= retry <= LONGEST_RETRY:
        # The timers of JavaScript hold 31 bits and fire at once beyond that.
        raise InvalidEventError(
            f"retry must be 0 to {LONGEST_RETRY} milliseconds (24 days); clients ignore a negative time, "
            "and reconnect at once when a longer one overflows their timer"
        )
    return int(retry)


def separator(sep: Any) -> str:
    """Return ``sep`` if it is a line end."""
    if sep not in SEPARATORS:
        raise InvalidEventError(f"sep must be one of '\\r\\n', '\\n', '\\r', not {sep!r}")
    return str(sep)
