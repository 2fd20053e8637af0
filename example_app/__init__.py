"""A live operations board: one page that shows what ``starlette_sse`` is for.

Start it with ``scripts/serve`` and open the address that it prints. General layout: each panel of the page is a module
with an endpoint class that is short enough to read at a glance: :mod:`~example_app.clock`, :mod:`~example_app.chat`,
:mod:`~example_app.jobs`, :mod:`~example_app.answers`, :mod:`~example_app.metrics` and :mod:`~example_app.inspector`;
:mod:`~example_app.live` joins the broadcasting ones into one stream. They publish through :mod:`~example_app.news`, and
:mod:`~example_app.board` puts the app together.

Set ``STARLETTE_SSE_BROKER=redis://localhost`` to run it with several workers.
"""

from example_app.board import app

__all__ = ["app"]
