"""What was published, what each reader got of it, and whether that is what was promised."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from starlette_sse.broker import Position
from starlette_sse.decoding import EventDecoder, MessageEvent
from tests.soak.broadcast.brokers import HISTORY

__all__ = ["Ledger", "Publication", "Received"]


@dataclass(slots=True)
class Publication:
    """An event that somebody has tried to publish."""

    channel: str = ""
    """Empty as long as a reader alone has told of it, whose news may come before its publisher's."""
    key: str | None = None
    behind: Position | None = None
    """The newest that its publisher knew to be in the log before."""
    refused: bool = False
    """The broker has said that it is not in the log."""
    position: Position | None = None
    """Where it is, if anybody was told."""


@dataclass(slots=True)
class Stretch:
    """What a reader got from a place on, without having been told that something is missing."""

    start: Position
    upto: Position
    """The last id that it got: it has everything of its channels up to here."""
    received: dict[Position, str] = field(default_factory=dict)
    crossings: list[tuple[Position, Position]] = field(default_factory=list)
    """Where it went on in another epoch: the last id before, and the first behind."""


class Received:
    """What one reader has got, as an ``EventSource`` sees it: it keeps the last id, and comes back with it."""

    def __init__(self, ledger: Ledger, name: str, channels: Sequence[str], on_lag: str) -> None:
        self._ledger = ledger
        self.name = name
        self.channels = channels
        self.on_lag = on_lag
        self.count = 0
        self.stretches: list[Stretch] = []
        #: The reason of each reset, and where the reader was.
        self.resets: list[tuple[str, Position]] = []
        self._decoder = EventDecoder()

    def __str__(self) -> str:
        return f"{self.name} ({self.on_lag}, {','.join(self.channels)})"

    @property
    def last_event_id(self) -> str:
        return self._decoder.last_event_id

    @property
    def position(self) -> Position | None:
        return self.stretches[-1].upto if self.stretches else None

    def connect(self) -> None:
        """Begin a new stream; what came of an event before the old one broke is forgotten."""
        self._decoder = EventDecoder(last_event_id=self.last_event_id)

    def take(self, chunk: bytes) -> None:
        for event in self._decoder.feed(chunk):
            self._on_event(event)
        if self.last_event_id:
            self._go_on(self._parsed(self.last_event_id))

    def begin(self, channels: Sequence[str]) -> None:
        """Forget what has been judged, and go on from there; an id is good for any channels."""
        self.channels = channels
        self.stretches = [Stretch(each.upto, each.upto) for each in self.stretches[-1:]]
        self.resets.clear()

    def _on_event(self, event: MessageEvent) -> None:
        match event.type:
            case "message":
                position, text = self._parsed(event.last_event_id), event.data.rstrip(" ")
                if not self.stretches or position.seq <= self.stretches[-1].upto.seq:
                    self._ledger.accuse(f"{self} got {position}, {text}, and was at {self.position} before")
                self._go_on(position)
                self.stretches[-1].received[position] = text
                self.count += 1
                self._ledger.known(text, position, f"what {self} got")
            case "stream-reset":
                told = json.loads(event.data)
                newest = self._parsed(told["newest"])
                self.resets.append((told["reason"], self.position or newest))
                self.stretches.append(Stretch(newest, newest))
            case "stream-rejected":
                pass
            case _:
                self._ledger.accuse(f"{self} got an event {event}")

    def _go_on(self, position: Position) -> None:
        if not self.stretches:
            self.stretches.append(Stretch(position, position))
        stretch = self.stretches[-1]
        if position.seq < stretch.upto.seq:
            self._ledger.accuse(f"{self} was told to be at {position}, and was at {stretch.upto} before")
        if position.epoch != stretch.upto.epoch:
            stretch.crossings.append((stretch.upto, position))
        stretch.upto = position

    def _parsed(self, event_id: str) -> Position:
        position = Position.parse(event_id)
        assert position is not None, event_id
        return position


class Ledger:
    """Knows every event, whoever told of it first: its publisher, or a reader."""

    def __init__(self) -> None:
        self.violations: list[str] = []
        self.outcomes: Counter[str] = Counter()
        self._publications: defaultdict[str, Publication] = defaultdict(Publication)
        self._texts: dict[Position, str] = {}
        #: What was told since the last judgement, and by whom; and by channel, what somebody has to get.
        self._told: dict[tuple[str, Position], str] = {}
        self._events: defaultdict[str, list[tuple[Position, str]]] = defaultdict(list)
        #: Of each epoch that the server was seen at: its ancestors, each with the last of its numbers that was kept.
        self._ancestors: dict[str, Mapping[str, int]] = {}
        self.unjudged = 0

    def accuse(self, violation: str) -> None:
        if violation not in self.violations:
            self.violations.append(violation)

    # What publishers tell

    def tried(self, text: str, channel: str, key: str | None, behind: Position | None) -> None:
        publication = self._publications[text]
        publication.channel, publication.key, publication.behind = channel, key, behind

    def failed(self, text: str, *, in_doubt: bool) -> None:
        self._publications[text].refused = not in_doubt
        self.outcomes["in doubt" if in_doubt else "refused"] += 1

    def published(self, text: str, event_id: str) -> Position:
        position = Position.parse(event_id)
        assert position is not None, event_id
        behind = self._publications[text].behind
        if behind is not None and behind.epoch == position.epoch and behind.seq >= position.seq:
            self.accuse(f"{text} was published behind {behind}, and is {position}")
        self.known(text, position, "its publisher was told")
        self.outcomes["published"] += 1
        return position

    def known(self, text: str, position: Position, whence: str) -> None:
        """Take note of where an event is."""
        self._told.setdefault((text, position), whence)

    # What the server tells

    def looked(self, epoch: str, ancestors: Mapping[str, int]) -> None:
        """Take note of the log that the server has."""
        self._ancestors[epoch] = ancestors

    def _own(self, position: Position) -> Position:
        """Return where an event was published: read back later, it has the id of the epoch that the log is in then."""
        for epoch, last in self._ancestors.get(position.epoch, {}).items():
            if position.seq <= last:
                position = Position(epoch, position.seq)
        return position

    def _kept(self, epoch: str, position: Position) -> bool:
        """Tell whether an event is in the log as it is in an epoch."""
        return position.epoch == epoch or position.seq <= self._ancestors.get(epoch, {}).get(position.epoch, -1)

    # The judgement

    def judge(self, readers: Sequence[Received], losses: int) -> None:
        """Check the promise for what came since the last time, during which data was lost so many times."""
        for (text, position), whence in self._told.items():
            if position.epoch in self._ancestors:
                self._enter(text, self._own(position), whence)
        for text, publication in self._publications.items():
            if publication.refused and publication.position is not None:
                self.accuse(f"{text} was refused, and is in the log at {publication.position}")
            if not publication.channel:
                self.accuse(f"{text} at {publication.position} was never published")
        for reader in readers:
            for violation in (*self._unfulfilled(reader), *self._needless(reader, losses)):
                self.accuse(violation)
        self._told.clear()
        # The others are behind what everybody has.
        low = min((reader.position for reader in readers if reader.position), key=number, default=Position("", 0))
        for channel, events in self._events.items():
            self._events[channel] = [
                event for event in events if event[0].seq > low.seq and self._kept(low.epoch, event[0])
            ]

    def _enter(self, text: str, position: Position, whence: str) -> None:
        publication = self._publications[text]
        if publication.position == position:
            return
        if publication.position is not None:
            self.accuse(f"{text} is in the log twice, at {publication.position} and at {position} ({whence})")
        if (other := self._texts.setdefault(position, text)) != text:
            self.accuse(f"the id {position} is of {other} and of {text} ({whence})")
        publication.position = position
        self._events[publication.channel].append((position, text))

    def _unfulfilled(self, reader: Received) -> Iterator[str]:
        for stretch in reader.stretches:
            if not {stretch.upto.epoch, *(after.epoch for _, after in stretch.crossings)} <= self._ancestors.keys():
                # An epoch has come and gone between two looks at the server.
                self.unjudged += 1
                continue
            for before, after in stretch.crossings:
                # Behind an id of the new epoch, that it has read from the server, may come one that was heard before.
                if not self._kept(after.epoch, self._own(before)):
                    yield f"{reader} went on from {before} to {after} without a reset, though that was lost"
            received = {self._own(position): text for position, text in stretch.received.items()}
            expected = {
                position: text
                for channel in reader.channels
                for position, text in self._events[channel]
                if stretch.start.seq < position.seq <= stretch.upto.seq and self._kept(stretch.upto.epoch, position)
            }
            missed = {
                position: text
                for position, text in expected.items()
                if position not in received and not self._replaced(reader, stretch, position, text)
            }
            if missed:
                yield (
                    f"{reader} has not got {dict(sorted(missed.items())[:5])} and so on, {len(missed)} in "
                    f"all, from {stretch.start} to {stretch.upto}"
                )
            if extra := {position: text for position, text in received.items() if position not in expected}:
                yield f"{reader} got what is not its, or was lost, without a reset: {dict(sorted(extra.items())[:5])}"

    def _replaced(self, reader: Received, stretch: Stretch, position: Position, text: str) -> bool:
        """Tell whether a reader that lags has something newer of the same key instead of an event."""
        publication = self._publications[text]
        return (
            reader.on_lag == "latest"
            and publication.key is not None
            and self._outran(reader, stretch.start)
            and any(
                newer.seq > position.seq
                and (other := self._publications[got]).channel == publication.channel
                and other.key == publication.key
                for newer, got in stretch.received.items()
            )
        )

    def _needless(self, reader: Received, losses: int) -> Iterator[str]:
        for reason, position in reader.resets:
            if not self._outran(reader, position):
                losses -= 1
                if losses < 0:
                    yield f"{reader} was reset at {position}, {reason}, though nothing was lost since: {reader.resets}"

    def _outran(self, reader: Received, position: Position) -> bool:
        """Tell whether more was published behind a position than the log keeps."""
        return any(
            sum(other.seq > position.seq for other, _ in self._events[channel]) >= HISTORY
            for channel in reader.channels
        )


def number(position: Position) -> int:
    return position.seq
