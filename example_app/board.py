"""The app: the page, its files, and one route for each panel's stream."""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

import starlette_sse
from example_app.clock import Clock, Fails

__all__ = ["app"]

STATIC = Path(__file__).parent / "static"


async def page(request: Request) -> Response:
    """Answer with the one page."""
    return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})


app = Starlette(
    routes=[
        Route("/", page),
        Route("/clock", Clock),
        Route("/fails", Fails),
        Mount("/static", StaticFiles(directory=STATIC)),
    ],
    lifespan=starlette_sse.lifespan,
)
