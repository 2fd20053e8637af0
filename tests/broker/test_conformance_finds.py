"""The contract's check finds backends that break it, and says so with an error of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from starlette_sse.broker.base import Backend
from starlette_sse.broker.entries import Gap, Page
from starlette_sse.broker.memory import MemoryBackend
from starlette_sse.broker.positions import Position, ResetReason
from starlette_sse.testing import conformance
from starlette_sse.testing.conformance import ConformanceError

pytestmark = pytest.mark.anyio


class Holes(MemoryBackend):
    """Reads on over what was evicted, where several channels are asked for."""

    async def read(self, channels: Sequence[str], after: Position, limit: int) -> Page | Gap:
        answer = await super().read(channels, after, limit)
        if isinstance(answer, Gap) and answer.reason is ResetReason.EVICTED and len(channels) > 1:
            held = [self._log.channels[name] for name in channels if name in self._log.channels]
            return self._log._page(held, after.seq, limit)
        return answer


class NeverLeaves(MemoryBackend):
    """Is fed for ever with what was listened to once."""

    def unlisten(self, channel: str) -> None:
        """And knows nothing of it."""


class WrongReason(MemoryBackend):
    """Takes every gap for one in time."""

    async def read(self, channels: Sequence[str], after: Position, limit: int) -> Page | Gap:
        answer = await super().read(channels, after, limit)
        return replace(answer, reason=ResetReason.EVICTED) if isinstance(answer, Gap) else answer


@pytest.mark.parametrize(
    ("backend", "told"),
    [
        (Holes, "gave no gap"),
        (NeverLeaves, "a channel that was left is still held"),
        (WrongReason, "the reason is"),
    ],
)
async def test_a_backend_that_breaks_the_contract_is_found(backend: type[Backend], told: str) -> None:
    """Each failed check raises an error of its own, and not a group."""
    with pytest.raises(ExceptionGroup) as caught:
        await conformance.run(lambda _: backend(), shared=False)
    (error,) = caught.value.exceptions
    assert isinstance(error, ConformanceError)
    assert told in str(error)
