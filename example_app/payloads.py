"""Reading what the page posts, and refusing what it never would."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

__all__ = ["choice", "posted", "text"]

LONGEST_BODY = 16 * 1024


async def posted(request: Request) -> dict[str, Any]:
    """Return the JSON object in the body.

    :raises HTTPException: it is none. Another site's form cannot send the content type that is asked for, which keeps
        strangers' pages from posting here.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "post JSON with Content-Type: application/json")
    body = bytearray()
    async with aclosing(request.stream()) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > LONGEST_BODY:
                raise HTTPException(413, f"the body may have {LONGEST_BODY} bytes")
    try:
        payload = json.loads(body)
    except ValueError as exc:
        raise HTTPException(400, f"the body is not JSON: {exc}") from exc
    if not isinstance(payload, dict):
        raise HTTPException(400, "the body must be a JSON object")
    return payload


def text(payload: dict[str, Any], name: str, longest: int) -> str:
    """Return a field that must be text that is not blank.

    :raises HTTPException: it is not.
    """
    value = payload.get(name)
    if not isinstance(value, str) or not value.strip() or len(value) > longest:
        raise HTTPException(422, f"{name} must be text of 1 to {longest} characters")
    try:
        value.encode()
    except UnicodeEncodeError as exc:
        raise HTTPException(422, f"{name} must be text that UTF-8 can carry") from exc
    return value


def choice(payload: dict[str, Any], name: str, choices: tuple[str, ...]) -> str:
    """Return a field that must be one of a few words.

    :raises HTTPException: it is not.
    """
    value = payload.get(name)
    if not isinstance(value, str) or value not in choices:
        raise HTTPException(422, f"{name} must be one of {', '.join(choices)}")
    return value
