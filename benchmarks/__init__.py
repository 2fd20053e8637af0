"""What the package costs, always as a ratio to its peers in the same run: ``python -m benchmarks``.

Each contestant runs under uvicorn in a process of its own and is loaded over loopback from this one, one contestant
after the other and then all of them again, beginning with the next. The server's CPU time, by the process's own clock,
is the headline: it does not count the clients, and depends the least on what else the machine does. Every client's
events are checked after the measurement, so a figure stands for deliveries that were made, once each and in order.

``--quick`` takes less than two minutes on a machine that has nothing else to do; ``--only`` measures one kind of work;
``--json`` and ``--plot`` keep what was measured. ``--only crowd`` opens as many connections as 20,000 files allow.

General layout: rows name the work, the contestants and what is promised (:mod:`~benchmarks.rows`); loads do the work
(:mod:`~benchmarks.loads`) with clients (:mod:`~benchmarks.clients`) on servers (:mod:`~benchmarks.servers`), or in
this process (:mod:`~benchmarks.generators`, :mod:`~benchmarks.encoding`, :mod:`~benchmarks.flat`); results are
arithmetic (:mod:`~benchmarks.results`) and a report prints them (:mod:`~benchmarks.report`).
"""
