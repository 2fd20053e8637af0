"""Limits that cannot work are refused when the class is created, by name and with the remedy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.requests import Request

from starlette_sse import ConfigurationError, SSEEndpoint
from tests.visits import Visit


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("connect_rate", 0),
        ("connect_rate", -1.0),
        ("connect_rate", "10/s"),
        ("connect_rate", True),
        ("connect_rate", float("inf")),
        ("connect_rate", float("nan")),
        ("connect_burst", None),
        ("connect_burst", 0),
        ("connect_burst", 1.5),
        ("max_connections", True),
        ("max_connections_per_client", "1"),
        ("max_event_bytes", 0),
        ("max_event_bytes", 1e6),
    ],
)
def test_a_wrong_limit_is_refused_by_name(attribute: str, value: Any) -> None:
    """The message names the class and the attribute."""
    with pytest.raises(ConfigurationError, match=rf"^Wrong\.{attribute} must be a .*; not "):
        type("Wrong", (SSEEndpoint,), {attribute: value})


def test_a_client_key_that_must_be_awaited_is_refused() -> None:
    """Each of its coroutines would count as another client."""
    with pytest.raises(ConfigurationError, match=r"Wrong\.client_key must be a plain function"):

        class Wrong(SSEEndpoint):
            async def client_key(self, request: Request) -> str:  # type: ignore[override]
                return "a"


@pytest.mark.anyio
@pytest.mark.parametrize(
    "attribute",
    ["max_connections", "max_connections_per_client", "connect_rate", "connect_burst", "methods", "max_body_bytes"],
)
async def test_a_limit_that_is_set_too_late_is_an_error(attribute: str) -> None:
    """On the instance it would be ignored, so the app is told."""

    class Late(SSEEndpoint):
        observers = ()

        async def on_connect(self, request: Request) -> None:
            setattr(self, attribute, 5)

        async def events(self, request: Request) -> AsyncIterator[Any]:
            yield "never"

    with pytest.raises(ConfigurationError, match=rf"Late\(\)\.{attribute} was set too late.*; set it .*on the class"):
        await Visit(Late).run()
