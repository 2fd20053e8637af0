"""A soak of a stream's lifecycle: random streams on real servers, with clients that do what they like.

A round (:mod:`~tests.soak.lifecycle.rounds`) runs one server with the app (:mod:`~tests.soak.lifecycle.app`), sends it
waves of clients (:mod:`~tests.soak.lifecycle.clients`) as it was planned (:mod:`~tests.soak.lifecycle.plans`) and stops
it. What the app wrote to its journal and what the clients saw is then held against what the package promises
(:mod:`~tests.soak.lifecycle.ledger`).
"""

from tests.soak.lifecycle.rounds import soak

__all__ = ["soak"]
