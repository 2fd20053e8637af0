"""What is published: one text for each event, the same for every contestant."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

__all__ = ["CHANNEL", "HELLO", "MARK", "NAME", "Published", "Told", "text", "told"]

#: Ends each event's data and stands nowhere else, so that a client counts events by counting bytes.
MARK = b"~"

#: The event's name.
NAME = "tick"

#: What channel it is published to, by those that have channels.
CHANNEL = "news"

#: The data of the event that a stream begins with where a client waits for one; it is no delivery.
HELLO = "hello~"

Published = Sequence[tuple[int, str]]
"""Events that are published at once: number and data."""

Told = tuple[int, float]
"""An event's number and the time at which it was published, on the machine's monotonic clock."""


def text(number: int, size: int = 60) -> str:
    """Return the data of an event that is published now; about 40 bytes more than ``size``."""
    return f'{{"n":{number},"t":{time.monotonic():.6f},"text":"{"x" * size}"}}~'


def told(data: str) -> Told | None:
    """Return what an event's data tells; None for one that is no delivery."""
    if not data.startswith("{"):
        return None
    fields: dict[str, Any] = json.loads(data.removesuffix("~"))
    return fields["n"], fields["t"]
