"""How the tests start a real headless Chromium."""

from __future__ import annotations

__all__ = ["FLAGS"]

#: Without these, Chromium needs a user namespace, a graphics card and its maker's hosts.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
