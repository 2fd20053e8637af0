"""What the page can break: a command goes to every worker by the broker, and those that it concerns act on it."""

from __future__ import annotations

import json
from typing import Any

from anyio.lowlevel import checkpoint
from starlette.requests import Request
from starlette.responses import Response

from example_app.jobs import JobBoard
from example_app.news import News, broker
from example_app.payloads import choice, posted, text
from example_app.registry import REGISTRY
from starlette_sse import ServerSentEvent, close
from starlette_sse.draining import Domain

__all__ = ["Chaos", "flood", "order"]

ORDERS = ("drop", "stall", "release", "drain", "cancel")
FLOOD = 2000
CHUNK = "." * 400


class Chaos:
    """Carries out what this worker is told."""

    def __init__(self, domain: Domain, jobs: JobBoard) -> None:
        self._domain = domain
        self._jobs = jobs

    async def obey(self) -> None:
        """Listen for as long as the app runs."""
        async with broker.subscribe("orders", on_lag="reset") as subscription:
            async for entry in subscription:
                if entry.channel and entry.event is not None:
                    self._carry_out(**json.loads(entry.event.data))

    def _carry_out(self, order: str, target: str) -> None:
        endpoint = REGISTRY.endpoints.get(target)
        if order == "drain":
            # As at a shutdown, but streams that come back are welcome.
            self._domain.dismiss()
        elif order == "cancel":
            self._jobs.cancel(target)
        elif endpoint is None:
            return
        elif order == "drop":
            close(connection_id=target)
        elif order == "stall":
            endpoint.gate.hold()
        else:
            endpoint.gate.release()


async def order(request: Request) -> Response:
    """Tell every worker what to do."""
    payload = await posted(request)
    what: dict[str, Any] = {"order": choice(payload, "order", ORDERS), "target": ""}
    if what["order"] != "drain":
        what["target"] = text(payload, "target", 40)
    await broker.publish("orders", ServerSentEvent(what))
    return Response(status_code=202)


async def flood(request: Request) -> Response:
    """Publish two thousand events, as fast as the broker takes them."""
    await posted(request)
    news: News = request.state.news
    for number in range(FLOOD):
        await news.publish("flood", "flood", {"padding": CHUNK, "of": FLOOD, "drop": number + 1})
        # Publishing never waits for readers; whoever publishes in a loop lets them read.
        await checkpoint()
    return Response(status_code=204)
