"""What hypothesis makes events and streams of: any Unicode, but often what has a meaning on the wire."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

__all__ = ["any_text", "chunked", "fields", "one_line", "separators", "streams", "text"]

MEANINGFUL = "\r\n\0: \ufeff\u0085\u2028\u2029\v\f\x1c\x1d\x1e"

separators = st.sampled_from(["\r\n", "\n", "\r"])
any_character = st.one_of(st.sampled_from(MEANINGFUL + "\ud800\udfff"), st.characters(exclude_categories=()))
any_text = st.text(any_character, max_size=20)
"""Also what no event may hold."""
text = st.text(st.one_of(st.sampled_from(MEANINGFUL), st.characters(codec="utf-8")), max_size=20)
one_line = text.map(lambda value: value.translate({ord(char): "x" for char in "\r\n\0"}))


def fields(lines: st.SearchStrategy[str], single: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Return a strategy for the constructor's parameters."""
    return st.fixed_dictionaries(
        {},
        optional={
            "data": lines,
            "event": single,
            "id": single,
            "retry": st.integers(0, 2**31 - 1),
            "comment": lines,
            "sep": separators,
        },
    )


pieces = st.sampled_from(
    [b"data", b"event", b"id", b"retry", b":", b" ", b"\r", b"\n", b"\r\n", b"\n\n", b"\0", b"7", b"x", b"\xef\xbb\xbf"]
)
broken_utf8 = st.sampled_from(
    [b"\xf0\x9d\x84\x9e", b"\xf0\x9d", b"\xe2\x80\xa8", b"\xe2", b"\xc2\xb2", b"\xff", b"\x80"]
)
streams = st.lists(st.one_of(pieces, broken_utf8, st.binary(max_size=3)), max_size=40).map(b"".join)
"""Bytes that a server should never send, and some that it should."""


@st.composite
def chunked(draw: st.DrawFn, stream: bytes) -> list[bytes]:
    """Cut ``stream`` anywhere."""
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    return [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
