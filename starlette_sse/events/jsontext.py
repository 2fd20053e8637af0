"""The JSON text of what an application hands over as an event's data."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from datetime import date, time
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

__all__ = ["dumps", "escaped"]

#: What str.splitlines() takes for a line's end and JSON lets stand, with its escape. No line of an event ends there
#: (HTML, 9.2.5), but some clients split so, among them who reads by httpx's iter_lines().
NO_LINE_ENDS = {"\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def jsonable(value: Any) -> Any:
    """Return ``value`` in terms that the JSON encoder knows, one level deep."""
    match value:
        case date() | time():
            return value.isoformat()
        case UUID() | Decimal():
            return str(value)
        case Enum():
            return value.value
        case bytes() | bytearray() | memoryview():
            raise TypeError(f"{type(value).__name__} is not text")
        case _ if hasattr(type(value), "model_dump"):  # pydantic
            return value.model_dump(mode="json")
        case _ if (names := record_fields(type(value))) is not None:
            return {name: getattr(value, attribute) for name, attribute in names}
        case Mapping():
            return dict(value)
        case Set() | Sequence():
            return list(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def record_fields(cls: Any) -> Iterable[tuple[str, str]] | None:
    """Return the names of a record's fields, in JSON and as attributes; None if it is no record.

    No library of records is imported to find out.
    """
    if dataclasses.is_dataclass(cls):
        return [(field.name, field.name) for field in dataclasses.fields(cls)]
    if hasattr(cls, "__attrs_attrs__"):
        return [(field.name, field.name) for field in cls.__attrs_attrs__]
    if hasattr(cls, "__struct_encode_fields__"):  # msgspec
        return zip(cls.__struct_encode_fields__, cls.__struct_fields__, strict=True)
    return None


def escaped(text: str) -> str:
    """Return the same JSON in text that clients cannot take for several lines."""
    if not text.isascii():
        for character, escape in NO_LINE_ENDS.items():
            if character in text:
                text = text.replace(character, escape)
    return text


dumps: Callable[[Any], str] = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=jsonable
).encode
