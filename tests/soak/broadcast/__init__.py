"""The broadcast over Redis, broken in every way that a seed can think of, and held to its promise.

General layout: a scene (:mod:`~tests.soak.broadcast.scene`) has two Redis servers behind one address, and what they are
for: the processes (:mod:`~tests.soak.broadcast.processes`) of workers (:mod:`~tests.soak.broadcast.app`) and of
publishers (:mod:`~tests.soak.broadcast.publishers`), and readers (:mod:`~tests.soak.broadcast.readers`), all on brokers
of one log (:mod:`~tests.soak.broadcast.brokers`). Faults (:mod:`~tests.soak.broadcast.faults`) happen to it in rounds
(:mod:`~tests.soak.broadcast.rounds`), behind each of which a ledger (:mod:`~tests.soak.broadcast.ledger`) judges what
everybody got.
"""

from tests.soak.broadcast.rounds import soak

__all__ = ["soak"]
