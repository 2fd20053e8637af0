"""What the package costs, always as a ratio to its peers in the same run: ``python -m benchmarks``.

Each contestant runs in processes of its own and is loaded over loopback from this one, one contestant after the other
and then all of them again, beginning with the next. Python's run under uvicorn, in one process or in several that share
a Redis; better-sse runs on Node.js, and Nchan in nginx. The server's CPU time, by the clocks of all its processes, is
the headline: it does not count the clients, and depends the least on what else the machine does. Every client's events
are checked after the measurement, so a figure stands for deliveries that were made, once each and in order.

Everything takes about twenty minutes on a machine that has nothing else to do, and ``--quick`` less than two: it leaves
out what takes long. ``--only`` measures one kind of work; ``--json`` and ``--plot`` keep what was measured.
``--only crowd`` opens as many connections as 20,000 files allow. Whoever needs a part that is not installed is left
out, and the report says which part and how to install it. On Debian ``apt-get install nodejs npm nginx
libnginx-mod-nchan redis-server`` brings all of them; better-sse itself is installed by npm, next to its server.

General layout: rows name the work, the contestants and what is promised (:mod:`~benchmarks.rows`); the catalogue says
who a contestant is and how it is started (:mod:`~benchmarks.catalogue`, :mod:`~benchmarks.launchers`); loads do the
work (:mod:`~benchmarks.loads`) with clients (:mod:`~benchmarks.clients`) on servers (:mod:`~benchmarks.servers`), or in
this process (:mod:`~benchmarks.generators`, :mod:`~benchmarks.encoding`, :mod:`~benchmarks.flat`); results are
arithmetic (:mod:`~benchmarks.results`) and a report prints them (:mod:`~benchmarks.report`).
"""
