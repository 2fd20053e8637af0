"""The oracle: holds what the app wrote to its journal, and what readers saw, against what the package promises."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from starlette_sse.decoding import EventDecoder
from tests.servers.kinds import Kind
from tests.soak.lifecycle.clients import Seen
from tests.soak.lifecycle.plans import CLEANUP_TIMEOUT, ENDLESS, MOST_OPEN, PLANNED, READERS, Script, Visit

__all__ = ["DROPPING", "Life", "crowds", "judge", "lives", "tracebacks"]

Entry = Mapping[str, Any]

#: What on_disconnect or a finally may take longer on a busy machine than it was meant to.
CLOSE_TO_TIMEOUT = 0.5 * CLEANUP_TIMEOUT

#: Seconds between an order and its last effect.
A_MOMENT = 0.3

#: A line of a stream, as this app sends them.
LINE = re.compile(rb"(event|data|id|retry): .*|: .*")

#: Why a stream may have ended before its response started.
NEVER_OPENED = frozenset({"cancelled", "client_gone", "error", "send_timeout"})

#: What keeps a client out by what it raises.
DOORS = ("client_key", "authorize", "on_connect")

#: It drops its streams at the stop if a request of another kind is there: it takes the first that leaves for all
#: (``asyncio.gather`` in its ``kill_all_applications``), and one whose body is still coming for an error.
DROPPING = "daphne"

#: A server whose ``send`` never waits for a client, however little that reads, and one whose ``send`` nobody can stop.
UNBOUNDED, UNSTOPPABLE = "daphne", "hypercorn-trio"

#: Exceptions on the server's standard error that are as they should be.
EXPECTED = re.compile(rf"{PLANNED}|SendTimeoutError|Caught handled exception, but response already started")

#: What streams may fail with: what was planned, and what takes too long.
FAILURES = re.compile(rf"(RuntimeError|HTTPException)\(.*{PLANNED}|TimeoutError\(")

#: Their first process holds the socket that the worker has stopped to listen at: who comes then is heard by nobody.
HOLDING = "-worker"

#: Servers' own faults, by how their names begin: asyncio before 3.12 complains of tasks that hypercorn has cancelled,
#: hypercorn on trio ends a connection in the middle of a send, and uvicorn with h11 answers what is no HTTP by itself
#: while the app answers what came before.
FAULTS = {
    "hypercorn-asyncio": re.compile("Exception in callback StreamReaderProtocol.connection_made"),
    "hypercorn-trio": re.compile("trio.BusyResourceError: another task is currently sending"),
    "uvicorn": re.compile("LocalProtocolError: can't handle event type Response when role=SERVER and state=MUST_CLOSE"),
}


class Life:
    """What the journal has of one stream."""

    def __init__(self, name: str, visit: Visit | None, entries: Sequence[Entry]) -> None:
        self.name = name
        self.visit = visit
        self.entries = entries
        self.counts = Counter(entry["what"] for entry in entries)

    def __str__(self) -> str:
        told = (f"{entry['what']}{details(entry)} +{entry['at'] - self.entries[0]['at']:.2f}" for entry in self.entries)
        return ", ".join(told)

    def first(self, what: str) -> Entry:
        return next((entry for entry in self.entries if entry["what"] == what), {})

    def before(self, one: str, other: str) -> bool:
        """Tell whether ``one`` did not come behind ``other``, if both came."""
        if not (self.counts[one] and self.counts[other]):
            return True
        return bool(self.first(one)["at"] <= self.first(other)["at"])

    @property
    def reason(self) -> str:
        """Why it ended, as observers were told."""
        return str(self.first("closed").get("reason", ""))

    @property
    def failures(self) -> list[str]:
        """The errors that observers were told of, each with what it happened during."""
        return [f"{entry['error']} {entry['during']}" for entry in self.entries if entry["what"] == "failed"]

    def failed(self, *words: str) -> bool:
        """Tell whether observers were told of an error with one of these words in it, or in what it happened during."""
        return any(word in failure for failure in self.failures for word in words)


def details(entry: Entry) -> str:
    shown = {name: value for name, value in entry.items() if name not in ("what", "name", "pid", "at")}
    return f"({', '.join(f'{name}={value}' for name, value in shown.items())})" if shown else ""


def lives(visits: Mapping[str, Visit], entries: Sequence[Entry]) -> dict[str, Life]:
    """Return the lives of all streams, by their names."""
    by_name: dict[str, list[Entry]] = {name: [] for name in visits}
    for entry in entries:
        if "name" in entry:
            by_name.setdefault(entry["name"], []).append(entry)
    return {name: Life(name, visits.get(name), those) for name, those in by_name.items()}


def judge(life: Life, seen: Seen | None, kind: Kind, upsets: Mapping[str, float]) -> Iterator[str]:
    """Yield what is wrong with one stream.

    :param upsets: when the app was told to ``close`` or ``drain`` its streams, or the server to ``stop``.
    """
    visit = life.visit
    if visit is None:
        if life.counts.keys() - {"rejected"}:
            yield "a stream that nobody asked for"
        return
    if kind.name == DROPPING and "stop" in upsets and not life.counts["closed"]:
        return
    yield from order(life)
    for failure in life.failures:
        if not FAILURES.match(failure):
            yield f"an error that nobody has made: {failure}"
    if not (kind.name.startswith(UNSTOPPABLE) and visit.way in ("stall", "slow")):
        yield from cleanup(life, visit.script)
    if life.reason:
        yield from implausible(life, visit, kind, upsets)
    if seen is not None:
        yield from misread(life, visit, seen, kind, upsets)


def order(life: Life) -> Iterator[str]:
    """Yield what happened too often, not at all or too early."""
    counts = life.counts
    for what in counts.keys() - {"failed"}:
        if counts[what] > 1:
            yield f"{what} {counts[what]} times"
    if counts["connected"] and life.visit and life.visit.endpoint != "response" and life.visit.script.raises in DOORS:
        yield f"let in, though {life.visit.script.raises} had raised"
    if counts["connected"] != counts["disconnected"]:
        yield f"on_connect succeeded {counts['connected']} times, and on_disconnect was called {counts['disconnected']}"
    if counts["opened"] > counts["closed"]:
        yield "observers were told that it opened, and never that it closed"
    if counts["closed"] and not counts["opened"] and life.reason not in NEVER_OPENED:
        yield f"observers were told that it closed by {life.reason}, and never that it opened"
    if not life.before("left", "closed"):
        yield "observers were told that it closed before on_disconnect was over"
    told = life.first("disconnected").get("reason")
    if told is not None and life.reason and told != life.reason:
        yield f"on_disconnect was given {told}, and observers {life.reason}"


def cleanup(life: Life, script: Script) -> Iterator[str]:
    """Yield what was not given its time at the end, or given it in the wrong order."""
    counts, in_time = life.counts, script.cleanup < CLOSE_TO_TIMEOUT
    if counts["begun"] != counts["finally"]:
        yield f"events() began {counts['begun']} times, and its finally {counts['finally']}"
    if life.failed("events was cut by its", "on_disconnect was cut by its") and in_time:
        yield "a cleanup was cut that was within its time"
    if life.first("finally").get("stopped") and in_time and script.raises != "finally":
        if not counts["cleaned"]:
            yield "the finally of events() was interrupted"
        elif not life.before("cleaned", "disconnected"):
            yield "on_disconnect was called before events() was closed"
    if not life.before("finally", "disconnected"):
        yield "on_disconnect was called before the finally of events()"
    if counts["disconnected"] and script.raises != "on_disconnect" and not counts["left"]:
        yield "on_disconnect did not complete"


def implausible(life: Life, visit: Visit, kind: Kind, upsets: Mapping[str, float]) -> Iterator[str]:
    """Yield why the reason cannot be true."""
    allowed = natural(life, visit) | imposed(life, kind, upsets)
    if life.reason not in allowed:
        yield f"{life.reason}, where only {sorted(allowed)} can be"
    stalls = visit.way == "stall" and visit.hold > 2 and visit.endpoint != "news"
    if stalls and life.reason == "client_gone" and not kind.name.startswith(UNBOUNDED):
        yield "a client that reads nothing is never timed out"


def natural(life: Life, visit: Visit) -> set[str]:
    """Return why a stream may end if nothing is done to it from outside."""
    script, raises, reasons = visit.script, visit.script.raises, set[str]()
    generated = visit.endpoint != "news"
    if generated and script.shape != "silent" and script.events < ENDLESS and raises not in ("at first", "late"):
        reasons.add("finished")
    if script.lifetime is not None:
        reasons.add("lifetime")
    if raises in ("at first", "late", "after", "finally") and generated:
        reasons.add("error")
        # Also where only its finally raises: the generator has not come to its end then.
        reasons.discard("finished")
    if visit.endpoint != "response" and raises in ("ping_message", "reauthorize"):
        reasons.add("unauthorized" if script.http and raises == "reauthorize" else "error")
    if visit.endpoint == "news":
        reasons.add("slow_reader")
    if life.failed("no answer within authorize_interval"):
        reasons.add("error")
    if visit.way not in READERS:
        reasons.add("client_gone")
    if visit.way in ("stall", "slow"):
        reasons.add("send_timeout")
    return reasons


def imposed(life: Life, kind: Kind, upsets: Mapping[str, float]) -> set[str]:
    """Return why a stream may have ended by then for what was done to all."""
    reasons, began, ended = set[str](), life.entries[0]["at"], life.first("closed")["at"]
    # An order to close is for those that are there when it comes.
    if began - A_MOMENT <= upsets.get("close", -1.0) <= ended:
        reasons.add("closed")
    if ended >= upsets.get("drain", ended + 1):
        reasons.add("draining")
    if ended >= upsets.get("stop", ended + 1):
        reasons |= {"draining", kind.reason}
        if kind.name == DROPPING:
            reasons.add("cancelled")
    return reasons


def misread(life: Life, visit: Visit, seen: Seen, kind: Kind, upsets: Mapping[str, float]) -> Iterator[str]:
    """Yield what a reader should not have got."""
    if seen.ill_formed:
        yield f"ill-formed HTTP: {seen.ill_formed}"
        return
    headers_alone = visit.way == "head" and life.name == visit.names[0]
    if seen.status == 200 and not (headers_alone or life.counts["connected"] or life.counts["rejected"]):
        yield "an answer of 200, and neither a stream nor a refusal"
    stopping = seen.asked_at > upsets.get("stop", math.inf)
    unheard = stopping and kind.name.endswith(HOLDING) and not (seen.status or life.entries)
    if seen.hung and not unheard and (kind.cuts or life.reason != "error"):
        yield "the response has no end"
    if not seen.whole or not life.counts["opened"]:
        untold = life.reason in ("error", "unauthorized") and visit.endpoint in ("cut", "response")
        cut = untold or life.reason == "cancelled" or life.failed("last frame")
        if not (seen.whole or cut or seen.hung or "stop" in upsets):
            yield f"the answer was cut, and the reason is {life.reason or 'none'}"
        return
    decoder = EventDecoder()
    events = decoder.feed(bytes(seen.body))
    lines = seen.body.split(b"\r\n")
    bad = [line[:60] for line in lines if line and not LINE.fullmatch(line)]
    if bad or decoder.pending or not (seen.body.endswith(b"\r\n\r\n") or seen.body == b""):
        yield f"ill-formed events: {bad[:3]}, ending with {bytes(seen.body[-60:])!r}"
    last = events[-1].type if events else ""
    if life.reason == "cancelled" or (life.reason in ("error", "unauthorized") and last != "stream-error"):
        yield f"an end by {life.reason} looked like a normal one"
    told = [event.data.partition(" ") for event in events if event.type == "told"]
    numbers = [int(number) for number, _, _ in told]
    start = numbers[0] if numbers and visit.endpoint == "news" else 0
    if numbers != list(range(start, start + len(numbers))):
        yield f"events were lost or doubled: {numbers[:50]}"
    if visit.endpoint != "news" and any(len(padding) != visit.script.size for _, _, padding in told):
        yield "an event was cut"
    if life.reason == "finished" and len(numbers) != visit.script.events:
        yield f"{len(numbers)} of {visit.script.events} events came, and a clean end"
    farewell = visit.endpoint != "response" and not life.failed("last frame")
    if life.reason in ("lifetime", "draining") and farewell and decoder.retry is None:
        yield f"an end by {life.reason} without a retry"


def crowds(entries: Sequence[Entry], visits: Mapping[str, Visit]) -> Iterator[str]:
    """Yield when more streams of the crowded endpoint were open than may be."""
    present: set[str] = set()
    for entry in entries:
        name = entry.get("name", "")
        if name in visits and visits[name].endpoint == "crowded":
            if entry["what"] == "connected":
                present.add(name)
            elif entry["what"] == "disconnected":
                present.discard(name)
            if len(present) > MOST_OPEN:
                yield f"{len(present)} streams were open where {MOST_OPEN} may be: {sorted(present)}"
                return


def tracebacks(output: str, kind: Kind) -> Iterator[str]:
    """Yield what a server printed that nobody had planned."""
    for words in ("never retrieved", "never awaited", "Exception ignored", "Task was destroyed", "Unclosed"):
        if words in output:
            yield f"printed: {excerpt(output, words)}"
    lines = [re.sub(r"^[\s|+-]+(?=\S)", lambda found: " " * len(found[0]), line) for line in output.splitlines()]
    for index, line in enumerate(lines):
        if line.lstrip().startswith(("Traceback (most recent", "Exception Group Traceback")):
            end = next((n for n in range(index + 1, len(lines)) if not lines[n].startswith(indent(line) + " ")), 0)
            around = "\n".join([*lines[max(0, index - 2) : index], lines[end]])
            own = any(kind.name.startswith(name) and fault.search(around) for name, fault in FAULTS.items())
            if not (own or EXPECTED.search(lines[end])):
                yield "printed " + " / ".join(each.strip() for each in lines[max(0, index - 3) : end + 1])[-3000:]


def indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def excerpt(output: str, words: str) -> str:
    at = output.index(words)
    return output[max(0, at - 200) : at + 600]
