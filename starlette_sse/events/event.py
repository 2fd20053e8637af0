"""The event as a value, and the one way from it to bytes.

Everything that a stream sends passes through :meth:`ServerSentEvent.encode`. A line end inside a field is what
forges fields and events, so no event holds one: ``event`` and ``id`` refuse it, ``data`` and ``comment`` keep it as a
bare LF, which the encoder turns into one more line of the same field.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from typing import Any, Self

from starlette_sse.events.fields import identifier, lines, milliseconds, one_line, separator
from starlette_sse.events.fragments import FRAME, ready
from starlette_sse.events.jsontext import dumps, escaped
from starlette_sse.exceptions import InvalidEventError

__all__ = ["JSONServerSentEvent", "ServerSentEvent", "as_event", "as_frame", "frame_encoder"]

PARAMETERS = ("data", "event", "id", "retry", "comment", "sep")
KNOWN = frozenset(PARAMETERS)
MAPPING = (dict, Mapping)


class ServerSentEvent:
    """One event for a stream of server-sent events; an immutable value that is valid from birth.

    Events are equal if their fields are; they can be hashed, copied and pickled.

    :param data: the payload. A ``str`` is sent as it is, anything else as the compact JSON text that :meth:`dumps`
        makes of it. ``""`` is a real, empty payload. None: no payload, the client's listeners see no event.
    :param event: the event's name, one line; browsers say ``message`` if there is none. Avoid ``open`` and ``error``:
        ``EventSource`` has events of its own by these names, and the same listener gets both.
    :param id: the event's id, one line. The client sends it as ``Last-Event-ID`` when it comes back, so keep to ASCII
        letters, digits and ``-``. ``""`` makes the client forget the id that it has. An ``int`` becomes its text.
    :param retry: how long the client waits before it reconnects, in milliseconds.
    :param comment: text that clients ignore.
    :param sep: the line end in this event's bytes, CR LF, LF or CR, instead of the stream's.
    :raises InvalidEventError: a value cannot be sent, or clients would drop the event: it has an ``event`` name and
        no ``data``, or no field at all.

    Whatever else is in ``data`` arrives, but for NUL, which Firefox leaves out; JSON has an escape for it.

    Lines in ``data`` and ``comment`` may end with CR LF, CR or LF. The wire carries that a line ended but not how
    (`HTML standard, 9.2.6 <https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation>`_),
    so both attributes hold what a client will get: LF.
    """

    # A comment, a reconnection time and a separator are rare: together they cost an event one slot and one check.
    __slots__ = ("_data", "_event", "_id", "_rare")

    _data: str | None
    _event: str | None
    _id: str | None
    _rare: tuple[str | None, int | None, str | None] | None

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
        if type(data) is str:
            self._data = data if data.isascii() and "\r" not in data else lines("data", data)
        elif data is not None:
            self._data = lines("data", data if isinstance(data, str) else json_text(self, data))
        elif event is not None or (id is None and retry is None and comment is None):
            raise InvalidEventError(
                "an event needs data (or an id, retry or comment, and no event name): clients drop one without; "
                "give data='' for an empty payload, data='null' for JSON's null"
            )
        else:
            self._data = None
        # What is printable has no CR, LF, NUL and no surrogate: the cheap proof for the names and ids of real life.
        proven = event is None or (type(event) is str and event.isprintable())
        self._event = event if proven else one_line("event", event)
        self._id = id if id is None or (type(id) is str and id.isprintable()) else identifier(id)
        if retry is None and comment is None and sep is None:
            self._rare = None
        else:
            self._rare = (
                None if comment is None else lines("comment", comment),
                None if retry is None else milliseconds(retry),
                None if sep is None else separator(sep),
            )

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
    def comment(self) -> str | None:
        """The comment, its lines separated by LF."""
        return None if self._rare is None else self._rare[0]

    @property
    def retry(self) -> int | None:
        """The reconnection time in milliseconds."""
        return None if self._rare is None else self._rare[1]

    @property
    def sep(self) -> str | None:
        """The line end of this event's bytes; None: the stream's."""
        return None if self._rare is None else self._rare[2]

    @staticmethod
    def dumps(value: Any) -> str | bytes:
        """Return the JSON text of ``data`` that is not a ``str``; override it in a subclass to use another encoder.

        The default knows dataclasses, pydantic models, attrs and msgspec classes, dates and times (ISO 8601), UUID,
        Decimal (a string, so that no digit is lost), Enum (its value), sets and other collections. Where the text has
        U+0085, U+2028 or U+2029, which some clients take for the end of a line, their escapes are sent.

        :raises TypeError: ``value`` has no JSON form.
        :raises ValueError: it holds NaN, an infinity or itself.
        """
        return dumps(value)

    def encode(self, sep: str | None = None) -> bytes:
        """Return the event's bytes, up to and with the blank line that ends it.

        :param sep: the stream's line end, CR LF if not given; the event's own ``sep`` wins.
        :raises InvalidEventError: ``sep`` is not a line end.
        """
        data, event, id_ = self._data, self._event, self._id
        if data is None:
            text = "\r\n" if id_ is None else f"id: {id_}\r\n\r\n"
        else:
            if "\n" in data:
                data = data.replace("\n", "\r\ndata: ")
            # Always with the space: clients take one away, and a payload that starts with one would lose it.
            if event is None:
                text = f"data: {data}\r\n\r\n" if id_ is None else f"id: {id_}\r\ndata: {data}\r\n\r\n"
            elif id_ is None:
                text = f"event: {event}\r\ndata: {data}\r\n\r\n"
            else:
                text = f"id: {id_}\r\nevent: {event}\r\ndata: {data}\r\n\r\n"
        if self._rare is not None:
            comment, retry, own = self._rare
            if comment is not None:
                text = ": " + comment.replace("\n", "\r\n: ") + "\r\n" + text
            if retry is not None:
                text = f"{text[:-2]}retry: {retry}\r\n\r\n"
            sep = own or sep
        if sep is not None and sep != "\r\n":
            # No field holds a CR, so each CR LF in the text is a line end that was written here.
            text = text.replace("\r\n", separator(sep))
        return text.encode()

    def replace(self, **changes: Any) -> Self:
        """Return a copy with other fields, as in ``event.replace(id="7")``.

        A subclass's own constructor is not called again, so it may take what it likes.

        :raises InvalidEventError: as the constructor does.
        """
        # A plain event holds nothing else that would need a copy.
        event = object.__new__(type(self)) if type(self) is ServerSentEvent else copy.copy(self)
        ServerSentEvent.__init__(event, **parameters(self) | changes)
        return event

    __replace__ = replace

    def __getstate__(self) -> object:
        # Slots are pickled by protocols 0 and 1 only if this is defined.
        return super().__getstate__()

    def __eq__(self, other: object) -> bool:
        return parameters(self) == parameters(other) if isinstance(other, ServerSentEvent) else NotImplemented

    def __hash__(self) -> int:
        return hash((self._data, self._event, self._id, self._rare))

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in parameters(self).items() if value is not None)
        return f"{type(self).__name__}({given})"


class JSONServerSentEvent(ServerSentEvent):
    """An event whose ``data`` always becomes JSON, a ``str`` too: ``JSONServerSentEvent("x")`` sends ``"x"``."""

    __slots__ = ()

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
        text = None if data is None else json_text(self, data)
        super().__init__(text, event=event, id=id, retry=retry, comment=comment, sep=sep)

    def replace(self, **changes: Any) -> Self:
        if changes.get("data") is not None:
            changes["data"] = json_text(self, changes["data"])
        return super().replace(**changes)

    __replace__ = replace


def as_event(item: Any, event_class: type[ServerSentEvent] = ServerSentEvent) -> ServerSentEvent:
    """Return the event that an application means by ``item``.

    :param item: an event is itself; a mapping holds the constructor's parameters by name; anything else is the data.
    :param event_class: what to make of it, for its :meth:`~ServerSentEvent.dumps`.
    :raises InvalidEventError: it cannot be an event; or it is bytes, which are a frame already; or a mapping with a
        key that is no field of an event.
    """
    if isinstance(item, ServerSentEvent):
        return item
    # Text first: to ask whether it is a mapping costs as much as its whole event.
    if isinstance(item, str):
        return event_class(item)
    if isinstance(item, MAPPING):
        return from_mapping(item, event_class)
    if isinstance(item, FRAME):
        raise InvalidEventError("bytes are a ready frame, not an event; decode them to send them as data")
    return event_class(item)


def as_frame(item: Any, sep: str | None = None, event_class: type[ServerSentEvent] = ServerSentEvent) -> bytes:
    """Return the bytes to send for ``item``: bytes are sent as they are, anything else as :func:`as_event` says.

    :param sep: the stream's line end, CR LF if not given.
    :raises InvalidEventError: as :func:`as_event`.
    """
    return frame_encoder(sep, event_class)(item)


def frame_encoder(
    sep: str | None = None, event_class: type[ServerSentEvent] = ServerSentEvent
) -> Callable[[Any], bytes]:
    """Return :func:`as_frame` for one stream."""
    # CR LF is what events are encoded with unless told otherwise.
    other = None if sep == "\r\n" else sep

    def encode(item: Any) -> bytes:
        if isinstance(item, ServerSentEvent):
            event = item
        # As as_event does, in place: many write their events so.
        elif type(item) is dict:
            event = from_mapping(item, event_class)
        elif isinstance(item, FRAME):
            return ready(item)
        else:
            event = as_event(item, event_class)
        # A subclass that was written for sse-starlette may have an encode() without parameters.
        return event.encode() if other is None else event.encode(other)

    return encode


def from_mapping(fields: Mapping[Any, Any], event_class: type[ServerSentEvent]) -> ServerSentEvent:
    """Return the event whose parameters ``fields`` holds by name."""
    if not KNOWN.issuperset(fields):
        # A key that is not like any field is the data's, and this is logged.
        other = "another key"
        for name in fields:
            if name not in KNOWN and (like := get_close_matches(str(name).lower(), PARAMETERS, 1)):
                other = f"{name!r} (did you mean {like[0]}?)"
        raise InvalidEventError(
            f"a mapping holds the fields of an event ({', '.join(PARAMETERS)}), and this one has {other}; "
            "if the mapping is the data, write ServerSentEvent(data=...)"
        )
    return event_class(**fields)


def parameters(event: ServerSentEvent) -> dict[str, Any]:
    """Return the constructor's parameters by name."""
    return {name: getattr(event, name) for name in PARAMETERS}


def json_text(event: ServerSentEvent, value: Any) -> str:
    """Return the JSON text that ``event``'s class makes of ``value``."""
    if type(value).__name__ == ServerSentEvent.__name__:
        # Another library's may be a model, which would become the data.
        raise InvalidEventError(
            f"data is an event of the module {type(value).__module__}; import ServerSentEvent from starlette_sse"
        )
    try:
        text = event.dumps(value)
    except (TypeError, ValueError, RecursionError) as exc:
        check_dumps(event, value)
        raise InvalidEventError(
            f"data of type {type(value).__name__} cannot become JSON: {remedy(event, value, exc)}"
        ) from exc
    try:
        return escaped(text if isinstance(text, str) else str(text, "utf-8"))
    except (TypeError, UnicodeDecodeError) as exc:
        raise InvalidEventError(
            f"{type(event).__qualname__}.dumps must return a str, or bytes in UTF-8; not {type(text).__name__}: {exc}"
        ) from exc


def check_dumps(event: ServerSentEvent, value: Any) -> None:
    """Check that a class's ``dumps`` can be called with data."""
    try:
        inspect.signature(event.dumps).bind(value)
    except ValueError:
        return  # what is written in C may not tell its parameters
    except TypeError as exc:
        raise InvalidEventError(
            f"{type(event).__qualname__}.dumps must take the value alone: {exc}; is its @staticmethod missing?"
        ) from None


def remedy(event: ServerSentEvent, value: Any, error: Exception) -> str:
    """Return what to do about data that JSON does not know."""
    if inspect.isawaitable(value):
        if inspect.iscoroutine(value):
            value.close()
        return "it has to be awaited first"
    if isinstance(value, Collection) and any(isinstance(item, ServerSentEvent) for item in value):
        return "it holds events; yield them one by one"
    return (
        f"{error}; give a str, such as str(value), or convert it first (bytes by .decode(), NaN to None), "
        f"or override dumps in a subclass of {type(event).__name__}"
    )
