"""What channels, keys and prefixes may be called."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from starlette_sse.exceptions import ConfigurationError

__all__ = ["OwnName", "channel_names", "check_channel", "check_name"]

#: In characters; a key may be as long.
LONGEST_NAME = 1024

#: What the names begin with of the channels by which the processes of an app talk to each other.
RESERVED = "starlette_sse."


class OwnName(str):
    """The name of a channel of the package's own, which no app may publish to and no client may read."""

    __slots__ = ()


def channel_names(channels: str | Iterable[str]) -> tuple[str, ...]:
    """Return the names of one or more channels, each once.

    :raises ConfigurationError: there is none, or what is there is no name.
    """
    if not isinstance(channels, Iterable):
        raise ConfigurationError(f"channels must be one or more names, not {channels!r}")
    names = (channels,) if isinstance(channels, str) else tuple(dict.fromkeys(channels))
    if not names:
        raise ConfigurationError("a subscription needs at least one channel")
    for name in names:
        check_channel(name)
    return names


def check_channel(name: Any) -> None:
    """Check a channel's name."""
    check_name("channel", name)
    if name.startswith(RESERVED) and not isinstance(name, OwnName):
        raise ConfigurationError(
            f"channel must not begin with {RESERVED!r}, as {name!r:.100} does: by those the processes of an app talk "
            "to each other; give it another name"
        )


def check_name(what: str, name: Any) -> None:
    """Check a channel's name or a key."""
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME:
        raise ConfigurationError(f"{what} must be text of 1 to {LONGEST_NAME} characters; not {name!r:.100}")
    if not name.isascii():
        try:
            name.encode()
        except UnicodeEncodeError as exc:
            raise ConfigurationError(f"{what} must be text that UTF-8 can carry; not {name!a}") from exc
