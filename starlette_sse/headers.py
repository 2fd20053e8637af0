"""The headers of event streams: a response's, and the one by which a client resumes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from starlette.datastructures import QueryParams

__all__ = ["StreamHeaders", "for_protocol", "last_event_id"]

RawHeaders = list[tuple[bytes, bytes]]

DEFAULTS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
    # nginx passes events on as they come.
    "x-accel-buffering": "no",
}


class StreamHeaders:
    """The response headers of an endpoint, encoded once.

    :param extra: headers that win over the defaults, by names in any case.
    """

    def __init__(self, extra: Mapping[str, str]) -> None:
        merged = {**DEFAULTS, **{name.lower(): value for name, value in extra.items()}}
        self._raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in merged.items()]
        self._connection = "connection" not in merged

    def start(self, scope: Mapping[str, Any], more: Collection[tuple[bytes, bytes]] = ()) -> dict[str, Any]:
        """Return the ``http.response.start`` message, with lists of its own: middleware changes them.

        :param more: what this one response has besides, in place of others of these names.
        """
        headers, connection = self._raw.copy(), self._connection
        if more:
            names = {name for name, _ in more}
            headers = [(name, value) for name, value in headers if name not in names] + [*more]
            connection = connection and b"connection" not in names
        if connection and keeps_alive(scope):
            headers.append((b"connection", b"keep-alive"))
        return {"type": "http.response.start", "status": 200, "headers": headers}


def keeps_alive(scope: Mapping[str, Any]) -> bool:
    """Tell whether to say that the connection stays open, which HTTP/2 forbids (RFC 9113, 8.2.2).

    It does not if its client asks for the end, as nginx does, nor with HTTP/1.0, whose bodies end with it.
    """
    return str(scope.get("http_version", "1.1")) == "1.1" and not any(
        name == b"connection" and b"close" in value.lower() for name, value in scope["headers"]
    )


def for_protocol(scope: Mapping[str, Any], headers: RawHeaders) -> RawHeaders:
    """Return ``headers`` as the request's connection allows them, in a list of its own."""
    if keeps_alive(scope):
        return headers.copy()
    return [(name, value) for name, value in headers if name.lower() != b"connection"]


def last_event_id(scope: Mapping[str, Any]) -> str | None:
    """Return the id that the client resumes after; the standard sends it as UTF-8."""
    for name, value in scope["headers"]:
        if name == b"last-event-id":
            return str(value, "utf-8", "replace")
    return QueryParams(scope["query_string"]).get("lastEventId") if scope.get("query_string") else None
