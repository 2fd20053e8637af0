"""Who is measured: each contestant is an ASGI app and a way to publish to whoever is connected to it.

A contestant is imported only in the process that serves it, so that no library weighs on another's figures. Those that
are no ASGI apps have a directory here with a server of their own.
"""

from __future__ import annotations

from importlib import import_module

from benchmarks.contestants.contestant import USUAL, Contestant, Terms

__all__ = ["USUAL", "Contestant", "Terms", "build"]


def build(factory: str, terms: Terms) -> Contestant:
    """Make the contestant that ``module:function`` below this package makes; imports what it needs."""
    module, _, function = factory.partition(":")
    made: Contestant = getattr(import_module(f"benchmarks.contestants.{module}"), function)(terms)
    return made
