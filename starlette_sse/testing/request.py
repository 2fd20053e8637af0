"""What the test asks the app: the request as the client wrote it, and as the app sees it."""

from __future__ import annotations

import json as jsonlib
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, unquote, urlencode, urljoin, urlsplit

from starlette.types import Message, Scope

from starlette_sse.exceptions import ConfigurationError

__all__ = ["ClientRequest", "RequestBody", "absolute", "http_scope"]

DEFAULT_PORTS = {"http": 80, "https": 443}

#: What a percent-encoded URL may hold; everything else is encoded.
URL_CHARACTERS = "%/:?#[]@!$&'()*+,;=~"


@dataclass(frozen=True, slots=True)
class ClientRequest:
    """A request that can be sent again, as a client does that reconnects."""

    method: str
    url: str
    headers: tuple[tuple[bytes, bytes], ...]
    content: bytes
    opened_at: str
    """Where the test asked for it, as ``file:line``."""

    @classmethod
    def build(
        cls,
        method: str,
        url: str,
        *,
        headers: Iterable[tuple[str, str]],
        params: Mapping[str, Any] | None,
        content: bytes | str | None,
        json: Any,
        last_event_id: str | None,
        opened_at: str,
    ) -> ClientRequest:
        """Return the request of these parts, the names of ``headers`` in lower case.

        :raises ConfigurationError: two parts contradict each other, or one cannot be sent.
        """
        if urlsplit(url).scheme not in DEFAULT_PORTS:
            raise ConfigurationError(f"{url!r} is no URL of http or https, nor a path of the app: begin it with '/'")
        if content is not None and json is not None:
            raise ConfigurationError("content and json are two bodies: give one of them")
        fields = {name.encode(): value.encode("latin-1") for name, value in headers}
        body = content.encode() if isinstance(content, str) else content or b""
        if json is not None:
            body = jsonlib.dumps(json).encode()
            fields.setdefault(b"content-type", b"application/json")
        if body:
            fields[b"content-length"] = str(len(body)).encode()
        if params:
            url += ("&" if urlsplit(url).query else "?") + urlencode(params, doseq=True)
        fields.setdefault(b"host", urlsplit(url).netloc.encode("idna"))
        request = cls(method.upper(), quote(url, safe=URL_CHARACTERS), tuple(fields.items()), body, opened_at)
        return request if last_event_id is None else request.resumed(last_event_id)

    @property
    def last_event_id(self) -> str:
        """The id that the client resumes from; empty: none."""
        return next((value.decode() for name, value in self.headers if name == b"last-event-id"), "")

    def resumed(self, last_event_id: str) -> ClientRequest:
        """Return the request as a client sends it that has seen ``last_event_id``; an empty one is not sent.

        The header is UTF-8, as the HTML standard's EventSource sends it.

        :raises ConfigurationError: no event can have had that id.
        """
        if any(character in last_event_id for character in "\r\n\0"):
            raise ConfigurationError(f"no event can have the id {last_event_id!r}: CR, LF and NUL are not allowed")
        fields = [(name, value) for name, value in self.headers if name != b"last-event-id"]
        if last_event_id:
            fields.append((b"last-event-id", last_event_id.encode()))
        return replace(self, headers=tuple(fields))

    def scope(self, **rest: Any) -> Scope:
        """Return the ASGI scope; ``rest`` is added to it and wins."""
        parts = urlsplit(self.url)
        return http_scope(
            method=self.method,
            scheme=parts.scheme,
            host=parts.hostname or "",
            port=parts.port,
            raw_path=parts.path.encode(),
            query=parts.query.encode(),
            headers=list(self.headers),
            **rest,
        )

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        return f"{self.method} {parts.path}" + (f"?{parts.query}" if parts.query else "")


def absolute(base_url: str, url: str) -> str:
    """Return ``url`` as the client at ``base_url`` understands it, without its fragment."""
    return urljoin(base_url, url).partition("#")[0]


def http_scope(
    *,
    method: str,
    scheme: str,
    host: str,
    port: int | None,
    raw_path: bytes,
    query: bytes,
    headers: list[tuple[bytes, bytes]],
    **rest: Any,
) -> Scope:
    """Return the scope of an HTTP/1.1 request, with the ASGI version of the most used servers."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": scheme,
        "path": unquote(raw_path) or "/",
        "raw_path": raw_path or b"/",
        "root_path": "",
        "query_string": query,
        "headers": headers,
        "client": ("testclient", 50000),
        "server": (host, port or DEFAULT_PORTS.get(scheme)),
        "extensions": {},
        **rest,
    }


class RequestBody:
    """The request's body as ``receive`` hands it out: bytes as one message, an iterator piece by piece."""

    def __init__(self, content: bytes | AsyncIterator[bytes]) -> None:
        self._content = content
        self._complete = False

    async def next(self) -> Message | None:
        """Return the next ``http.request`` message, or None after the last one."""
        if self._complete:
            return None
        if isinstance(self._content, bytes):
            self._complete = True
            return {"type": "http.request", "body": self._content, "more_body": False}
        piece = await anext(self._content, None)
        self._complete = piece is None
        return {"type": "http.request", "body": piece or b"", "more_body": not self._complete}
