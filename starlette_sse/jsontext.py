"""The JSON text of what an application hands over as an event's data."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence, Set
from datetime import date, time
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

__all__ = ["dumps"]


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
        case Mapping():
            return dict(value)
        case Set() | Sequence():
            return list(value)
    return record(value)


def record(value: Any) -> Any:
    """Return a record's fields by name; none of the libraries that make records is imported for it."""
    cls = type(value)
    if hasattr(cls, "__pydantic_core_schema__") and hasattr(cls, "model_dump"):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(cls):
        names = [field.name for field in dataclasses.fields(cls)]
    elif hasattr(cls, "__attrs_attrs__"):
        names = [field.name for field in cls.__attrs_attrs__]
    elif hasattr(cls, "__struct_fields__"):  # msgspec
        names = cls.__struct_fields__
    else:
        raise TypeError(f"{cls.__name__} has no JSON form")
    return {name: getattr(value, name) for name in names}


dumps: Callable[[Any], str] = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=jsonable
).encode
