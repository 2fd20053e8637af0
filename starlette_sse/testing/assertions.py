"""What a test may expect of events, and how it is told what came instead."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

from starlette_sse.events import ServerSentEvent
from starlette_sse.exceptions import ConfigurationError
from starlette_sse.testing.exceptions import UnexpectedEventsError
from starlette_sse.testing.received import ReceivedEvent, line

__all__ = ["Expectation", "assert_events", "assert_gaps", "diff"]

FIELDS = ("event", "data", "id")
ANYTHING: Any = object()


class Timed(Protocol):
    """Something that came at a time: an event or a comment."""

    @property
    def time(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Expectation:
    """What the test knows of one event; what it leaves out may be anything."""

    event: str = ANYTHING
    data: Any = ANYTHING
    id: str = ANYTHING

    @classmethod
    def of(cls, expected: Any) -> Expectation:
        """Return the expectation that a test means by ``expected``.

        A ``str`` is the payload of a ``message``. A mapping names the fields that matter, ``event``, ``data`` and
        ``id``; its ``data`` is compared as text if it is a ``str``, else as the value of the payload's JSON. An
        event is compared by its name, its payload's text and its id if it has one.

        :raises ConfigurationError: it is none of these, or an event without data, which no client gets.
        """
        match expected:
            case Expectation():
                return expected
            case str():
                return cls(event="message", data=expected)
            case ServerSentEvent(data=str()) | ReceivedEvent():
                return cls(expected.event or "message", expected.data, ANYTHING if expected.id is None else expected.id)
            case Mapping() if expected and expected.keys() <= set(FIELDS):
                fields = dict(expected)
                if isinstance(fields.get("id"), int):
                    # As an event's own id becomes its text.
                    fields["id"] = str(fields["id"])
                return cls(**fields)
        raise ConfigurationError(
            f"cannot expect {expected!r}: give the payload as a str, a ServerSentEvent with data, or the fields that "
            'matter as a mapping with some of "event", "data" and "id", as in {"event": "tick", "data": {"now": 1}}'
        )

    def matches(self, received: ReceivedEvent) -> bool:
        """Tell whether an event is what the test expects."""
        return (
            self.event in (ANYTHING, received.event)
            and self.id in (ANYTHING, received.id)
            and (self.data is ANYTHING or self._matches_data(received.data))
        )

    def _matches_data(self, text: str) -> bool:
        if isinstance(self.data, str):
            return self.data == text
        try:
            return same(json.loads(text), self.data)
        except ValueError:
            return False

    def __str__(self) -> str:
        data = self.data
        if not isinstance(data, str) and data is not ANYTHING:
            data = json.dumps(data, separators=(",", ":"), ensure_ascii=False, default=repr)
        return line(
            "(any event)" if self.event is ANYTHING else self.event,
            "" if self.id is ANYTHING else self.id,
            "(any data)" if data is ANYTHING else data,
        )


def same(value: Any, expected: Any) -> bool:
    """Compare JSON values; Python's ``True == 1`` is none of JSON's."""
    match value, expected:
        case bool() | int() | float(), bool() | int() | float():
            return isinstance(value, bool) is isinstance(expected, bool) and value == expected
        case dict(), Mapping():
            return value.keys() == expected.keys() and all(same(value[key], expected[key]) for key in value)
        case list(), list() | tuple():
            return len(value) == len(expected) and all(map(same, value, expected))
    return bool(value == expected)


def assert_events(received: Sequence[ReceivedEvent], expected: Iterable[Any], *, source: str = "the stream") -> None:
    """Compare events, one by one and in order, with what the test expects.

    :param expected: for each event a payload, a mapping of the fields that matter, or an event; see
        :meth:`Expectation.of`.
    :param source: where the events come from, for the message.
    :raises UnexpectedEventsError: they differ; the message is a diff.
    """
    wanted = [Expectation.of(each) for each in expected]
    if len(wanted) != len(received) or not all(map(Expectation.matches, wanted, received)):
        raise UnexpectedEventsError(f"the events of {source} are not the expected ones\n{diff(wanted, received)}")


def diff(wanted: Sequence[Expectation], received: Sequence[ReceivedEvent]) -> str:
    """Return expected (-) and received (+) events line by line; an expectation that is met reads like its event."""
    expected_lines = []
    for place, expectation in enumerate(wanted):
        candidates = [*received[place : place + 1], *received]
        met = next((event for event in candidates if expectation.matches(event)), None)
        expected_lines.append(str(met or expectation))
    lines = difflib.ndiff(expected_lines, [str(event) for event in received])
    return "\n".join(["  (- expected, + received)", *map(str.rstrip, lines)])


def assert_gaps(items: Sequence[Timed], expected: float | Iterable[float], *, tolerance: float = 1e-6) -> None:
    """Check the seconds between events, or comments, one after the other.

    :param expected: the seconds between each two, or one number for them all.
    :param tolerance: by how many seconds a gap may differ; the default is for a virtual clock.
    :raises UnexpectedEventsError: a gap differs by more, or there is another number of them.
    """
    gaps = [later.time - earlier.time for earlier, later in pairwise(items)]
    wanted = [float(expected)] * len(gaps) if isinstance(expected, int | float) else list(expected)
    pairs = list(zip(gaps, wanted, strict=False))
    fits = [math.isclose(gap, want, rel_tol=0, abs_tol=tolerance) for gap, want in pairs]
    if gaps and len(gaps) == len(wanted) and all(fits):
        return
    lines = [
        f"{'  ' if fit else '> '}{gap:.6g} s, expected {want:g} s" for (gap, want), fit in zip(pairs, fits, strict=True)
    ]
    raise UnexpectedEventsError(
        f"the {len(gaps)} gaps between {len(items)} items are not the {len(wanted) or ''} expected ones, "
        f"within {tolerance:g} s\n" + "\n".join(lines)
    )
