"""Who is measured: each contestant is an ASGI app and a way to publish to whoever is connected to it.

A contestant is imported only in the process that serves it, so that no library weighs on another's figures.
"""

from __future__ import annotations

from benchmarks.contestants.catalogue import CATALOGUE, Entry, build
from benchmarks.contestants.contestant import USUAL, Contestant, Terms

__all__ = ["CATALOGUE", "USUAL", "Contestant", "Entry", "Terms", "build"]
