"""The body of a request for a stream, which has to be read before the stream listens for its client's end."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

import anyio
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

__all__ = ["has_body", "leave_body", "read_body"]


def has_body(scope: Mapping[str, Any]) -> bool:
    """Tell whether the client may send a body; only HTTP/1 tells by its headers (RFC 9112, 6.3)."""
    if not str(scope.get("http_version", "1.1")).startswith("1"):
        return True
    for name, value in scope["headers"]:
        if name == b"transfer-encoding" or (name == b"content-length" and value != b"0"):
            return True
    return False


def leave_body(request: Request) -> None:
    """Take note that the body was for somebody else to read: who asks ``request`` for one gets an error."""
    request._stream_consumed = True  # noqa: SLF001


async def read_body(request: Request, most: int | None, seconds: float | None) -> bool:
    """Read a request's body, where :meth:`~starlette.requests.Request.body` finds it, and tell whether it came whole.

    :param most: how many bytes it may have.
    :param seconds: how long it may take.
    :raises HTTPException: it has more (413), or takes longer (408).
    :returns: whether the client was there to the end of it.
    """
    if not has_body(request.scope):
        # What body() leaves when it has waited for the server's word that there is none.
        request._body = b""  # noqa: SLF001
        return True
    if request._stream_consumed:  # noqa: SLF001
        return True
    try:
        with anyio.fail_after(seconds):
            # As body() does, which knows no bound.
            body = bytearray()
            async with aclosing(request.stream()) as parts:
                async for part in parts:
                    body += part
                    if most is not None and len(body) > most:
                        raise HTTPException(413, f"the request's body is larger than {most} bytes")
            request._body = bytes(body)  # noqa: SLF001
    except ClientDisconnect:
        return False
    except TimeoutError:
        raise HTTPException(408, "the request's body did not come in time") from None
    return True
