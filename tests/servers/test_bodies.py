"""Content that reads its request's body, which drop-ins find in code that moves over: uvicorn gives it all of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.servers.apps import serving
from tests.servers.kinds import KINDS, Kind


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.command[0] == "uvicorn"], ids=str)
def test_content_of_a_response_may_read_the_body_in_its_first_step(kind: Kind, tmp_path: Path) -> None:
    """The stream listens for the client's end from then on, and so asks the server after the content has."""
    with serving(kind, tmp_path) as server:
        for body in (b"z", b"a" * 300_000 + b"z"):
            for _ in range(5):
                with server.request("/echo", method="POST", body=body) as stream:
                    assert stream.next().data == f"{len(body)} {body[:1].decode()}z"
                    assert stream.rest() == []
