"""A broker's log in Redis, for any number of processes; it needs the extra ``redis``.

General layout: the backend (:mod:`~starlette_sse.broker.redis.backend`) asks the server by scripts
(:mod:`~starlette_sse.broker.redis.remote`), and hears on one connection what others publish
(:mod:`~starlette_sse.broker.redis.listener`). Both go by the same way to the server
(:mod:`~starlette_sse.broker.redis.connections`), which may be TLS (:mod:`~starlette_sse.broker.redis.tls`). The
scripts are in :mod:`~starlette_sse.broker.redis.scripts`, and what they keep is read back by
:mod:`~starlette_sse.broker.redis.records`.
"""

from starlette_sse.broker.redis.backend import RedisBackend

__all__ = ["RedisBackend"]
