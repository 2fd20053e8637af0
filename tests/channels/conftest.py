"""The tests of channels run on virtual time, on both event loops."""

from __future__ import annotations

from tests.both_loops import anyio_backend

__all__ = ["anyio_backend"]
