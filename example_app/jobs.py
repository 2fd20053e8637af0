"""Jobs: started and cancelled by a POST, run beside the requests, watched by everybody."""

from __future__ import annotations

import random
import secrets
from collections.abc import AsyncIterator, Sequence
from typing import Any

import anyio
from anyio.abc import TaskGroup
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from example_app.news import News, broker
from example_app.payloads import choice, posted
from example_app.registry import Inspected
from starlette_sse import ChannelEndpoint, ServerSentEvent
from starlette_sse.error_events import error_event

__all__ = ["JobBoard", "Jobs", "start_job"]

#: Seconds between two steps forward.
PACE = 0.12

STEPS = ("fetch", "convert", "upload")


class Jobs(Inspected, ChannelEndpoint):
    """Every job's state as it changes."""

    broker = broker

    async def channels(self, request: Request) -> Sequence[str]:
        return ["jobs"]

    async def snapshot(self, request: Request) -> AsyncIterator[ServerSentEvent]:
        news: News = request.state.news
        yield await news.recall("jobs", "jobs-so-far")


class JobBoard:
    """Runs jobs in a task group of the app's."""

    def __init__(self, news: News, tasks: TaskGroup) -> None:
        self._news = news
        self._tasks = tasks
        self._running: dict[str, anyio.CancelScope] = {}

    def start(self, *, fails: bool) -> str:
        """Start a job and return its name."""
        name = secrets.token_hex(3)
        self._tasks.start_soon(self._run, name, fails)
        return name

    def cancel(self, name: str) -> None:
        """Cancel a job, if it runs in this worker."""
        if name in self._running:
            self._running[name].cancel()

    async def _run(self, name: str, fails: bool) -> None:
        job: dict[str, Any] = {"job": name, "state": "running", "steps": dict.fromkeys(STEPS, 0)}
        with anyio.CancelScope() as scope:
            self._running[name] = scope
            try:
                await self._work(job, fails)
                job["state"] = "done"
            except RuntimeError as exc:
                error = error_event(exc, connection_id=name, debug=True)
                job |= {"state": "failed", "error": error.data}
            finally:
                del self._running[name]
                if job["state"] == "running":
                    job["state"] = "cancelled"
                with anyio.CancelScope(shield=True):
                    await self._publish(job)

    async def _work(self, job: dict[str, Any], fails: bool) -> None:
        for step in STEPS:
            while job["steps"][step] < 100:
                await self._publish(job)
                await anyio.sleep(PACE)
                job["steps"][step] = min(100, job["steps"][step] + random.randint(4, 9))
                if fails and step == "convert" and job["steps"][step] > 50:
                    raise RuntimeError("the converter met a file that it cannot read")

    async def _publish(self, job: dict[str, Any]) -> None:
        await self._news.announce("jobs", "job", job, key=job["job"])


async def start_job(request: Request) -> Response:
    """Start a job that does its work, or one that fails."""
    outcome = choice(await posted(request), "outcome", ("done", "failed"))
    jobs: JobBoard = request.state.jobs
    return JSONResponse({"job": jobs.start(fails=outcome == "failed")}, 202)
