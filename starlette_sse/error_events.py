"""How an exception is told to a client whose response has already begun."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException

from starlette_sse.events import ServerSentEvent

__all__ = ["ERROR_EVENT", "error_event"]

#: Never ``error``: browsers deliver that name to ``onerror``, where it cannot be told from a lost connection.
ERROR_EVENT = "stream-error"


def error_event(error: BaseException, *, connection_id: str, debug: bool = False) -> ServerSentEvent:
    """Return the ``stream-error`` event for ``error``: a problem-details object (RFC 9457).

    An :exc:`~starlette.exceptions.HTTPException` keeps its status and detail. Any other error is told as status 500
    alone, unless ``debug`` is on; the ``connection_id`` finds its line in the log.
    """
    problem: dict[str, Any] = {"type": "about:blank"}
    if isinstance(error, HTTPException):
        problem |= {"title": _phrase(error.status_code), "status": error.status_code, "detail": error.detail}
    else:
        problem |= {"title": _phrase(500), "status": 500}
        if debug:
            problem["detail"] = f"{type(error).__name__}: {error}"
    return ServerSentEvent(event=ERROR_EVENT, data=problem | {"connection_id": connection_id})


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
