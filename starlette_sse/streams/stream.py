"""The driver: one object per connection owns ASGI ``send`` and takes the stream from its first byte to its cleanup.

Who runs: the server's own task converses (opening, pings, a subscription's frames, the last frame), a listener waits
for the client to go, a :class:`~starlette_sse.streams.producers.Producer` runs ``events()`` if there is one, and
companions ask for the right again or do what the app has given them. Where the server's ``send`` needs no task,
callbacks send pings and a subscription's frames, and that task only wakes for what they cannot do.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from types import MethodType
from typing import Any

import anyio
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Send

from starlette_sse.draining import Domain
from starlette_sse.eventloop import Alarm, Tasks, current_event_loop
from starlette_sse.eventloop.notices import warn_once
from starlette_sse.eventloop.sprints import Sprint
from starlette_sse.events import OpenEvent
from starlette_sse.exceptions import SlowReaderError
from starlette_sse.observers import CloseReason, Observer, StreamIdentity, overriding, printable, tell
from starlette_sse.streams.companions import Companions
from starlette_sse.streams.deadlines import Deadlines, Due, StreamSettings
from starlette_sse.streams.endings import Steps
from starlette_sse.streams.listeners import listen
from starlette_sse.streams.owners import StreamOwner
from starlette_sse.streams.producers import Producer, forget
from starlette_sse.streams.servers import abort_connection, free_connection, is_closed
from starlette_sse.streams.sources import FrameSource, NoFrames
from starlette_sse.streams.writers import GONE, FrameWriter

__all__ = ["Stream"]

#: The client cannot be told any more, so what waits in ``send`` is not waited for.
ABRUPT = frozenset({CloseReason.CLIENT_GONE, CloseReason.SEND_TIMEOUT, CloseReason.CANCELLED})

#: The events ended by themselves: what was sent of them may still be on its way to a slow client.
UNHURRIED = frozenset({CloseReason.FINISHED, CloseReason.ERROR})

#: Seconds that the end still has when the client is said to have left: servers say so of a response that they are just
#: ending, and a hook or a middleware may have more to do than the client has waited for.
PARTING = 5.0

#: The app lets the client read no more.
REVOKED = frozenset({CloseReason.UNAUTHORIZED, CloseReason.CLOSED})

BODY_CAME = (
    "a part of the request's body came while the stream at %s was open, and events that read it wait for ever or take "
    "what they have for all of it; read the body in the route, before the response is made"
)


class Stream:
    """One client's stream, from the opening to the cleanup."""

    __slots__ = (
        "_companions",
        "_conversation",
        "_cut",
        "_deadlines",
        "_domain",
        "_encode",
        "_error",
        "_failed_during",
        "_goodbye",
        "_hurried",
        "_interrupted",
        "_listener",
        "_loop",
        "_observers",
        "_opened",
        "_owner",
        "_part_by",
        "_parting",
        "_ping_due",
        "_producer",
        "_reason",
        "_receive",
        "_settings",
        "_source",
        "_stale",
        "_stalled",
        "_told",
        "_watched",
        "_writer",
        "disconnect",
        "identity",
        "started_at",
    )

    def __init__(
        self,
        owner: StreamOwner,
        identity: StreamIdentity,
        settings: StreamSettings,
        receive: Receive,
        send: Send,
        *,
        domain: Domain,
        observers: Sequence[Observer],
        encode: Callable[[Any], bytes],
        source: FrameSource | None = None,
    ) -> None:
        self.identity = identity
        self._owner = owner
        self._settings = settings
        self._receive = receive
        self._domain = domain
        self._observers = observers
        self._watched = bool(overriding(observers, "sent"))
        self._encode = encode
        self._loop = current_event_loop()
        self._writer = FrameWriter(self._loop, send, self._client_is_gone)
        self._deadlines = Deadlines(self._loop, settings, self._writer, self._on_due)
        self._source: FrameSource = NoFrames(self._loop.waiter()) if source is None else source
        self._producer: Producer | None = None
        self._conversation = self._loop.cancellable()
        self._listener: Alarm | None = None
        self._companions: Companions | None = None
        self._opened = self._ping_due = self._stalled = self._told = self._cut = self._hurried = self._stale = False
        self._parting = False
        self._part_by = math.inf
        self._goodbye: anyio.CancelScope | None = None
        self._reason: CloseReason | None = None
        self._error: BaseException | None = None
        self._failed_during = "events"
        self._interrupted: BaseException | None = None
        #: The message by which the client went, if it has gone.
        self.disconnect: Message | None = None
        self.started_at = self._loop.time()

    @property
    def events(self) -> int:
        """How many events were sent."""
        return self._source.delivered if self._producer is None else self._producer.produced

    @property
    def bytes_sent(self) -> int:
        """How many bytes of body were sent."""
        return self._writer.bytes_sent

    @property
    def duration(self) -> float:
        """How long the stream has been open, in seconds."""
        return self._loop.time() - self.started_at

    @property
    def reason(self) -> CloseReason | None:
        """Why the stream ended; None while it is open."""
        return self._reason

    @property
    def lag(self) -> float:
        """For how many seconds the send that is under way has waited; 0.0 if the client keeps up."""
        since = self._writer.sending_since
        return 0.0 if since is None else max(0.0, self._loop.time() - since)

    @property
    def longest_end(self) -> float:
        """How long the stream may take to end after :meth:`drain`, in seconds."""
        return self._settings.longest_end

    def end(self, reason: CloseReason, error: BaseException | None = None) -> None:
        """End the stream; the first reason counts. Call it in the stream's event loop."""
        if self._reason is not None:
            return
        self._reason = reason
        self._error = error
        # What a replay or a snapshot still brings is not for who may not read any more.
        self._stale = reason in REVOKED and not self._source.resting
        if reason in ABRUPT:
            self._hurry_up()
        else:
            self._deadlines.grace_begins(self._patience(reason))
        self._source.wake()

    def _hurry_up(self) -> None:
        if self._producer is not None:
            # Before the stream's task is woken, which then finds it closed.
            self._producer.stop()
            self._producer.stop_delivery()
        if not self._source.resting:
            self._conversation.cancel()

    def drain(self) -> None:
        """End the stream for a shutdown, now or when its events run out within the grace, as the policy says."""
        self._hurried = True
        grace = self._settings.drain_grace
        if self._goodbye is not None:
            self._goodbye.deadline = min(self._goodbye.deadline, self._loop.time() + grace)
        elif self._reason is not None:
            self._deadlines.grace_begins(grace)
        else:
            self._owner.drain_begins()
            if self._settings.drain_policy == "finish":
                self._deadlines.grace_begins(grace)
            else:
                self.end(CloseReason.DRAINING)

    def _give_up_at(self, deadline: float) -> float:
        """Return when what is being sent is given up for the last frame: by its own timeout at the latest."""
        since, timeout = self._writer.sending_since, self._settings.send_timeout
        return deadline if since is None or timeout is None else min(deadline, since + timeout)

    def _patience(self, reason: CloseReason) -> float | None:
        """Return how long the last frame may take: as any other if the events ended by themselves."""
        hurried = self._hurried or reason not in UNHURRIED
        return self._settings.drain_grace if hurried else self._settings.send_timeout

    async def run(
        self,
        start: Message,
        opening: bytes,
        *,
        events: Callable[[], AsyncIterator[Any]] | None = None,
        companions: Sequence[tuple[str, Callable[[], Awaitable[object]]]] = (),
        events_receive: bool = False,
    ) -> None:
        """Drive the stream until it is closed and cleaned up.

        :param start: the ``http.response.start`` message.
        :param opening: the first bytes of the body, may be empty.
        :param events: makes the iterator whose items are sent.
        :param companions: run beside the stream, each with its name; an error of theirs ends the stream, whose end
            cancels them.
        :param events_receive: whether ``events`` may receive the request's body in its first step, before the
            stream listens for the client's end.
        :raises Exception: what ended the stream, if the client was not told.
        """
        self._domain.join(self)
        try:
            async with self._loop.tasks() as tasks:
                try:
                    with self._conversation:
                        self._begin(tasks, events, companions)
                        if events_receive and self._producer is not None:
                            await self._producer.first_step()
                        self._listener = listen(self._receive, self._loop, tasks, self)
                        await self._open(start, opening)
                        # What is held here is held as long as the stream lives.
                        del start, opening, events, companions
                        while self._reason is None:
                            try:
                                frame = await self._source.pull()
                            except SlowReaderError as exc:
                                self.end(CloseReason.SLOW_READER, exc)
                                break
                            if self._stale:
                                break
                            await self._pass_on(frame)
                            del frame
                except BaseException as exc:  # noqa: BLE001 - raised again after the cleanup
                    self._fail(exc)
                await self._wind_up()
            if self._domain.draining:
                # A cancellation that the cleanup was shielded from shows here.
                await self._loop.checkpoint()
        except BaseException as exc:  # noqa: BLE001 - raised below
            self._interrupted = self._interrupted or exc
        finally:
            self._domain.leave(self)
        if self._interrupted is not None:
            await self._let_others_clean_up()
            raise self._interrupted
        if self._error is not None and (self._cut or (self._reason is CloseReason.ERROR and not self._told)):
            raise self._error

    def _begin(
        self,
        tasks: Tasks,
        events: Callable[[], AsyncIterator[Any]] | None,
        companions: Sequence[tuple[str, Callable[[], Awaitable[object]]]],
    ) -> None:
        """Start what runs beside the stream."""
        if events is not None:
            self._producer = self._produce(events())
            tasks.start(self._producer.run)
        if companions or self._settings.authorize_interval is not None:
            self._companions = Companions(self._loop, tasks, self._fail_beside)
            for name, companion in companions:
                self._companions.start(name, companion)

    def _produce(self, events: AsyncIterator[Any]) -> Producer:
        on_sent = self._tell_sent if self._watched else None
        return Producer(self._loop, events, self._encode, self._writer, self._producer_moved, on_sent)

    async def _let_others_clean_up(self) -> None:
        # A server that shuts down by cancelling may drop all other requests when the first one has left (daphne does).
        if self._domain.draining:
            steps = Steps(self._loop, self._report)
            await steps.take("the drain", self._domain.drained, steps.deadline(self.longest_end))

    # While the stream is open

    async def _open(self, start: Message, opening: bytes) -> None:
        # What the producer's first step raises before the response starts has its real status.
        if self._producer is not None:
            await self._producer.first_step()
        if self._reason is CloseReason.ERROR or self._cut:
            return
        self._deadlines.opening()
        await self._writer.open(start, opening)
        self._opened = True
        self._deadlines.opened()
        tell(self._observers, "opened", self)
        if self._writer.sends_now and self._producer is None:
            # A method of whatever object: a partial is four times as large.
            self._source.notify(MethodType(Sprint.of(self._loop).add, self))
            if not self._watched and self._writer.shortcut is not None:
                self._source.send_by(self._writer)

    async def _pass_on(self, frame: bytes | None) -> None:
        """Send what the source has brought, and the ping that is due."""
        if self._reason in ABRUPT:
            return
        await self._writer.finish()
        if frame and self._reason not in ABRUPT:
            await self._writer.write(frame)
            if self._watched:
                self._tell_sent(len(frame))
        if self._ping_due:
            self._ping_due = False
            await self._ping()

    def sprint(self) -> None:
        """Send the frames that are ready without waking the stream's task, which takes over where that won't do."""
        source, writer = self._source, self._writer
        done = False
        try:
            if self._reason is None and writer.sending_since is None and (frame := source.take()):
                done = writer.send_now(frame)
                if self._watched:
                    self._deadlines.context.run(self._tell_sent, len(frame))
        finally:
            # The task meets what was raised here as well, and ends the stream for it.
            if not (done and source.idle):
                source.wake()

    def client_left(self, message: Message | None, error: BaseException | None) -> None:
        """Take note that the client has gone."""
        if self._reason is None:
            self.disconnect = message
            self.end(CloseReason.CLIENT_GONE, error)
            return
        if error is not None and self._listener is not None and self._reason not in ABRUPT:
            self._report(error, "receive")
        self._part_by = self._loop.time() + PARTING
        if self._goodbye is None:
            self._deadlines.grace_begins(PARTING)
        else:
            self._goodbye.deadline = min(self._goodbye.deadline, self._part_by)

    def body_came(self) -> None:
        """Tell somebody that a part of the request's body came, which nobody else will get."""
        warn_once(self._loop, BODY_CAME, printable(self.identity.path))

    def _fail_beside(self, error: BaseException, during: str) -> None:
        """End the stream for what has failed beside it; report that if it has ended."""
        if self._reason is None:
            self._fail(error, during)
        else:
            self._report(error, during)

    def _tell_sent(self, size: int) -> None:
        tell(self._observers, "sent", self, size)

    def _client_is_gone(self, error: BaseException) -> None:
        if not isinstance(error, GONE):
            # The stream ends as if the client had gone, but somebody has to know.
            self._report(error, "send")
        self.end(CloseReason.CLIENT_GONE, error)

    def _producer_moved(self, producer: Producer) -> None:
        if producer.cancelled and not producer.done:
            # What has cancelled it may be told by its closing, as by that of a task group which it holds.
            self._deadlines.closing()
        elif producer.cancelled:
            self._cut_off(producer.error)
        elif producer.error is not None:
            self._fail(producer.error)
        elif producer.done:
            self.end(CloseReason.FINISHED)
        self._source.wake()

    def _cut_off(self, error: BaseException | None) -> None:
        """End a stream whose producer somebody has cancelled."""
        if self._reason is None:
            self._cut = True
            self.end(CloseReason.CANCELLED, error)

    # What is due

    def _on_due(self, due: Due | None) -> None:
        if self._reason is None and is_closed(self._receive):
            self.end(CloseReason.CLIENT_GONE)
        elif due is None:
            return
        elif due is Due.CLOSING_OVER:
            self._cut_off(None if self._producer is None else self._producer.error)
        elif due is Due.SEND_TIMEOUT and self._reason is None:
            self.end(CloseReason.SEND_TIMEOUT)
        elif due in (Due.GRACE_OVER, Due.SEND_TIMEOUT):
            self._give_up()
        elif due is Due.LIFETIME:
            self.end(CloseReason.LIFETIME)
        elif due is Due.AUTHORIZE:
            self._authorize_again()
        elif self._open_event is not None:
            self._deadlines.pinged()
        elif not self._ping_now():
            self._ping_due = True
            self._source.wake()

    def _give_up(self) -> None:
        if self._reason is None:
            self.end(CloseReason.DRAINING)
        else:
            self._stalled = True
            self._conversation.cancel()

    def _authorize_again(self) -> None:
        """Ask beside the stream, whose task may be stuck with a client that does not read."""
        companions = self._companions
        if companions is None or self._reason is not None:
            return
        if companions.runs("authorize"):
            # Whoever cannot be asked is not let in.
            self._fail(TimeoutError("authorize gave no answer within authorize_interval"), "authorize")
        else:
            self._deadlines.authorized()
            companions.start("authorize", self._authorize)

    async def _authorize(self) -> None:
        try:
            await self._owner.authorize()
        except HTTPException as exc:
            self.end(CloseReason.UNAUTHORIZED, exc)

    def _ping_now(self) -> bool:
        """Ping without waking the stream's task, and tell whether that was possible."""
        writer = self._writer
        if self._reason is not None or not writer.sends_now or writer.sending_since is not None:
            return False
        try:
            frame = self._owner.ping_frame()
        except Exception as exc:  # noqa: BLE001 - it ends the stream
            self._fail(exc, "the ping")
            return True
        if not writer.send_now(frame):
            self._source.wake()
        self._pinged()
        return True

    async def _ping(self) -> None:
        try:
            frame = self._owner.ping_frame()
        except Exception as exc:  # noqa: BLE001 - it ends the stream
            self._fail(exc, "the ping")
            return
        if self._settings.ping_only_when_idle and self._writer.sending_since is not None:
            return
        await self._writer.take_turn()
        if self._reason is not None or self._open_event is not None:
            self._writer.end_turn()
            return
        await self._writer.write(frame)
        self._pinged()
        # It may have fallen due again while this one was being sent.
        self._ping_due = False

    def _pinged(self) -> None:
        self._deadlines.pinged()
        tell(self._observers, "pinged", self)

    # After the end

    def _fail(self, error: BaseException, during: str = "events") -> None:
        if isinstance(error, Exception):
            if self._reason is None:
                self._failed_during = during
            self.end(CloseReason.ERROR, error)
        else:
            self._interrupted = error
            self.end(CloseReason.CANCELLED)

    async def _wind_up(self) -> None:
        self._deadlines.stop()
        if self._companions is not None:
            self._companions.cancel()
            self._companions = None
        if self._producer is not None:
            self._producer.stop()
        reason, steps = self._reason or CloseReason.FINISHED, Steps(self._loop, self._report)
        if self._opened and reason not in ABRUPT and not self._stalled:
            # Not shielded: whoever cancels now waits for cleanup, and not for a client.
            give_up_at = self._give_up_at(steps.deadline(self._patience(reason)))
            self._goodbye = self._loop.cancel_scope(deadline=min(give_up_at, self._part_by))
            cut = await steps.take_in(self._goodbye, "the last frame", self._say_goodbye)
            left = self._part_by < math.inf
            self._stalled = cut and not left
            if cut and not (left and self._parting):
                steps.report_cut("the last frame")
        if self._listener is not None:
            self._listener.cancel()
            self._listener = None
        if self._stalled or reason is CloseReason.SEND_TIMEOUT:
            abort_connection(self._receive)
            # Uvicorn hears of it in the loop's next turn, and logs the app's end before as an error.
            await steps.take("the connection's end", self._loop.checkpoint, math.inf)
        elif self._opened:
            patience = self._settings.drain_grace if self._hurried else self._settings.send_timeout
            if patience is not None:
                free_connection(self._receive, self._loop, patience, draining=self._domain.draining)
        answered = not self._opened and isinstance(self._error, HTTPException)
        failed = reason is CloseReason.ERROR or (reason is CloseReason.CANCELLED and self._interrupted is None)
        if failed and self._error is not None and not answered:
            self._report(self._error, self._failed_during, propagates=not self._told)
        await self._clean_up(reason, steps)
        self._interrupted = self._interrupted or steps.interrupted
        tell(self._observers, "closed", self, reason, self._error)
        self._writer.on_gone = self._deadlines.on_due = forget

    async def _clean_up(self, reason: CloseReason, steps: Steps) -> None:
        producer, timeout = self._producer, self._settings.cleanup_timeout
        if producer is not None:
            await steps.close(producer, self._source, timeout)
            if producer.error not in (None, self._error, self._interrupted, steps.interrupted):
                self._report(producer.error, "events")
        self._writer.abandon()
        if self._owner.cleans_up:
            await steps.take_apart("on_disconnect", lambda: self._owner.stream_closed(reason), steps.deadline(timeout))

    async def _say_goodbye(self) -> None:
        await self._writer.take_turn()
        frame = self._behind_open_event(await self._last_frame(self._reason or CloseReason.FINISHED))
        # What is left waits for nobody but the client.
        self._parting = True
        if frame is None:
            self._cut = True
            self._writer.end_turn()
        else:
            await self._writer.write(frame, more=False)
            self._told = True

    def _behind_open_event(self, frame: bytes | None) -> bytes | None:
        """Return the last frame as it can be sent: an error cuts an event that is open, a farewell is left out."""
        if not frame or self._open_event is None:
            return frame
        if self._error is None:
            return b""
        cut = self._open_event.cut
        return None if cut is None else cut + frame

    @property
    def _open_event(self) -> OpenEvent | None:
        """The event that the app's bytes have left open, which anything else would become a part of."""
        return None if self._producer is None else self._producer.open_event

    async def _last_frame(self, reason: CloseReason) -> bytes | None:
        try:
            return await self._owner.last_frame(reason, self._error)
        except Exception as exc:  # noqa: BLE001 - reported
            self._report(exc, "the last frame")
            return None if reason is CloseReason.ERROR else b""

    def _report(self, error: BaseException, during: str, *, propagates: bool = False) -> None:
        tell(self._observers, "failed", self, error, during=during, propagates=propagates)
