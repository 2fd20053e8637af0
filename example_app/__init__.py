"""A live operations board: one page that shows what ``starlette_sse`` is for.

Start it with ``scripts/serve`` and open the address that it prints. :mod:`~example_app.board` puts the app together; each
panel of the page has a module of its own, with an endpoint class in it that is short enough to read at a glance.
"""

from example_app.board import app

__all__ = ["app"]
