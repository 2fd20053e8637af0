"""An answer, word by word: a stream that is opened by a POST and read with fetch."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import anyio
from starlette.requests import Request

from example_app.payloads import posted, text
from example_app.registry import Inspected
from starlette_sse import ServerSentEvent

__all__ = ["Answer", "tokens_of"]

#: Seconds between two tokens.
PACE = 0.03

ANSWER = """\
You asked: {question}

A stream is a class, and its life is hooks:

    class Clock(SSEEndpoint):
        ping_interval = 15.0

        async def events(self, request):
            while True:
                yield ServerSentEvent(now(), event="tick")
                await anyio.sleep(1)

Each word of this answer is one event. Its leading spaces and its line breaks arrive as they were sent:

  * two spaces before this star,
      * six before this one,
\t* and a tab before this.

Press Stop and the server stops as well: the generator's finally runs, and the log says why it ended. If the \
connection breaks, the page asks again with the number of the last word, and goes on behind it.
"""


class Answer(Inspected):
    """Streams the answer to a question. A word's id is its number, so a broken answer goes on where it broke."""

    methods = ("POST",)
    ping_interval = 5.0

    async def on_connect(self, request: Request) -> None:
        self.tokens = tokens_of(text(await posted(request), "question", 500))

    async def events(self, request: Request) -> AsyncIterator[ServerSentEvent]:
        for number, token in enumerate(self.tokens, start=1):
            if number > words_seen(self.last_event_id):
                yield ServerSentEvent(token, event="token", id=number)
                await anyio.sleep(PACE)
        yield ServerSentEvent({"tokens": len(self.tokens), "characters": len("".join(self.tokens))}, event="done")


def tokens_of(question: str) -> list[str]:
    """Return the answer in words, each with the white space before it; line breaks are told as LF."""
    answer = ANSWER.format(question=" ".join(question.split()))
    return re.findall(r"\s*\S+|\s+\Z", answer)


def words_seen(last_event_id: str | None) -> int:
    """Return the number of the last word that the client has."""
    known = last_event_id is not None and last_event_id.isascii() and last_event_id.isdigit()
    return int(last_event_id[:9]) if known and last_event_id else 0
