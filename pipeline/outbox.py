"""What was published and is not in Redis yet: sent in order, kept through an outage, lost aloud.

One task sends everything, so the entries of a source stay in order whatever happens. It sends
again what Redis may already have: entries are numbered, a repetition is dropped as a duplicate.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic

from pipeline.errors import DependencyError, FullError, PercipioError
from pipeline.log import get_logger
from pipeline.outgoing import Draft, Place
from pipeline.stream import Argument, Store, refusal

log = get_logger()

CONFIRM_S = 5.0
_BATCH_ENTRIES = 512
_BATCH_BYTES = 4 << 20
_IN_FLIGHT_BYTES = 8 << 20
_PAUSE_S = (0.05, 2.0)

OnLoss = Callable[[str, str, str], object]
"""Is told of each lost entry: its source, its stream, and why."""
Confirmed = asyncio.Future[str]
"""Entry id; empty while the entry waits for Redis to come back."""


@dataclass(slots=True)
class Outgoing:
    """An entry in the outbox: its command, whoever waits for its id, its number."""

    draft: Draft
    command: Sequence[Argument]
    done: Confirmed
    seq: int
    since_s: float = field(default_factory=monotonic)


class Outbox:
    """Entries in the order they were published.

    Args:
        store: where they go.
        buffer_bytes: how much is kept while Redis is away; 0 keeps nothing: publishing raises.
        wait_for_room: with a full buffer hold the publisher back, where else entries are lost:
            a live frame replaces older ones, anything else is lost itself.
        full_retry_s: how long an entry is offered to a Redis at maxmemory; live frames are once.
        on_loss: is told of each loss; runs on the event loop.

    Attributes:
        on_sent: is told of each entry that Redis confirms, and its id.
    """

    def __init__(
        self,
        store: Store,
        *,
        buffer_bytes: int,
        wait_for_room: bool,
        full_retry_s: float,
        on_loss: OnLoss | None,
    ) -> None:
        self._store = store
        self._buffer_bytes = buffer_bytes
        self._wait_for_room = wait_for_room
        self._full_retry_s = full_retry_s
        self._on_loss = on_loss
        self._queue: deque[Outgoing] = deque()
        self._sending: list[Outgoing] = []
        self._bytes = 0
        self._places: dict[Place, tuple[int, int]] = {}
        self._filled, self._moved = asyncio.Event(), asyncio.Event()
        self._pause_s, self._lost_before = _PAUSE_S[0], 0
        self._full_since_s: float | None = None
        self.problem: str | None = None
        self.on_sent: Callable[[Outgoing, str], None] | None = None
        self.sent = 0
        self.lost = 0

    @property
    def unsent(self) -> int:
        """Number of entries that Redis has not confirmed."""
        return len(self._queue) + len(self._sending)

    def unsent_of(self, place: Place) -> tuple[int, int]:
        """Give entries and bytes that Redis has not confirmed, of one stream of a partition."""
        return self._places.get(place, (0, 0))

    def _weigh(self, draft: Draft, sign: int) -> None:
        """Count an entry in, or out."""
        entries, size_bytes = self.unsent_of(draft.place)
        self._places[draft.place] = entries + sign, size_bytes + sign * draft.size_bytes
        self._bytes += sign * draft.size_bytes

    async def put(self, draft: Draft, seq: int, producer: str) -> Confirmed:
        """Add an entry; waits, or loses one, where there is no room.

        Args:
            draft: the entry.
            seq: its number.
            producer: whose number it is.
        """
        done: Confirmed = asyncio.get_running_loop().create_future()
        done.add_done_callback(_look)
        while not self._has_room(draft):
            if self.problem is not None and not self._wait_for_room:
                self._lose(Outgoing(draft, (), done, seq), "the buffer is full and Redis away")
                return done
            self._moved.clear()
            await self._moved.wait()
        key = getattr(self._store.keys.of(draft.partition), draft.stream)
        number = (b"seq", b"%d" % seq, b"producer", producer.encode())
        entry = Outgoing(draft, ("XADD", key, "*", *draft.fields, *number), done, seq)
        if self.problem is not None:
            _stamp(entry)
            done.set_result("")
        self._queue.append(entry)
        self._weigh(draft, 1)
        self._filled.set()
        return done

    def send_again(self, entries: Sequence[Outgoing]) -> None:
        """Send entries that Redis had and may have lost, ahead of all others."""
        for entry in entries:
            _stamp(entry)
            self._weigh(entry.draft, 1)
        self._queue.extendleft(reversed(entries))
        if entries:
            self._filled.set()

    def _has_room(self, draft: Draft) -> bool:
        is_away = self.problem is not None
        most = self._buffer_bytes if is_away else max(self._buffer_bytes, _IN_FLIGHT_BYTES)
        if is_away and draft.stream == "frames" and not self._wait_for_room:
            self._make_room(draft.size_bytes, most)
        return not self.unsent or self._bytes + draft.size_bytes <= most

    def _make_room(self, size_bytes: int, most: int) -> None:
        """Lose the oldest live frames: when Redis is back, the newest say more."""
        while self._bytes + size_bytes > most:
            oldest = next((e for e in self._queue if e.draft.stream == "frames"), None)
            if oldest is None:
                return
            self._queue.remove(oldest)
            self._weigh(oldest.draft, -1)
            self._lose(oldest, "newer frames took its place in the buffer")

    async def confirm(self, waiting: Sequence[Confirmed]) -> list[str]:
        """Wait for the ids of entries; not longer than Redis takes to be called away.

        Raises:
            FullError: Redis was at maxmemory for too long.
            PercipioError: Redis refuses the entry, or is away and nothing is buffered.
        """
        while pending := [each for each in waiting if not each.done()]:
            _, late = await asyncio.wait(pending, timeout=CONFIRM_S)
            if late and self._full_since_s is None:
                self._call_away(DependencyError(f"Redis: no answer within {CONFIRM_S:g} s"))
        return [each.result() for each in waiting]

    async def run(self) -> None:
        """Send for ever."""
        while True:
            await self._filled.wait()
            self._take()
            try:
                commands = [entry.command for entry in self._sending]
                answers = await self._store.run_many(commands)
            except PercipioError as error:
                answers = [error] * len(self._sending)
            except Exception as error:  # what was taken must be answered, whatever went wrong
                answers = [DependencyError(f"Redis: {error!r}")] * len(self._sending)
            if passing := self._settle(answers):
                await self._wait_after(passing)
            else:
                self._call_back()

    def _take(self) -> None:
        """Take a batch; while Redis is away one entry, to see whether it is back."""
        size_bytes, most = 0, _BATCH_ENTRIES if self.problem is None else 1
        while self._queue and len(self._sending) < most and size_bytes < _BATCH_BYTES:
            entry = self._queue.popleft()
            size_bytes += entry.draft.size_bytes
            self._sending.append(entry)

    def _settle(self, answers: Sequence[object]) -> DependencyError | None:
        """Finish what was answered; what may pass goes back to the head of the queue."""
        again: list[Outgoing] = []
        passing: DependencyError | None = None
        for entry, answer in zip(self._sending, answers, strict=True):
            if isinstance(answer, bytes):
                self.sent += 1
                self._weigh(entry.draft, -1)
                _finish(entry, answer.decode())
                if self.on_sent is not None:
                    self.on_sent(entry, answer.decode())
                continue
            error = _as_ours(answer, str(entry.command[1]))
            if isinstance(error, DependencyError) and not self._is_given_up(entry, error):
                passing = error
                again.append(entry)
                continue
            self._weigh(entry.draft, -1)
            self._fail(entry, error)
        self._queue.extendleft(reversed(again))
        self._sending.clear()
        if not self._queue:
            self._filled.clear()
        self._moved.set()
        return passing

    def _is_given_up(self, entry: Outgoing, error: DependencyError) -> bool:
        if isinstance(error, FullError):
            self._full_since_s = self._full_since_s or monotonic()
            waited_s = monotonic() - max(self._full_since_s, entry.since_s)
            return entry.draft.stream == "frames" or waited_s > self._full_retry_s
        return self._buffer_bytes == 0

    def _fail(self, entry: Outgoing, error: PercipioError) -> None:
        """Tell whoever waits for the entry; if nobody does any more, it is lost."""
        if entry.done.done():
            self._lose(entry, str(error))
        else:
            entry.done.set_exception(error)

    async def _wait_after(self, error: DependencyError) -> None:
        if not isinstance(error, FullError):
            self._call_away(error)
        await asyncio.sleep(random.uniform(0, self._pause_s))
        self._pause_s = min(_PAUSE_S[1], 2 * self._pause_s)

    def _call_away(self, error: DependencyError) -> None:
        """Let go of those who wait: their entries are kept."""
        if self._buffer_bytes == 0:
            return
        if self.problem is None:
            log.warning("redis_away", error=str(error), buffered=self.unsent)
        self.problem = str(error)
        for entry in [*self._sending, *self._queue]:
            _stamp(entry)
            _finish(entry)
        self._moved.set()

    def _call_back(self) -> None:
        self._pause_s, self._full_since_s = _PAUSE_S[0], None
        if self.problem is not None:
            log.warning("redis_back", lost=self.lost - self._lost_before, waiting=self.unsent)
            self.problem, self._lost_before = None, self.lost
            self._moved.set()

    def _lose(self, entry: Outgoing, reason: str) -> None:
        if self.lost == self._lost_before:
            log.error("entries_lost", source=entry.draft.source, reason=reason)
        self.lost += 1
        _finish(entry)
        if self._on_loss is not None:
            self._on_loss(entry.draft.source, entry.draft.stream, reason)

    async def flush(self, timeout_s: float) -> int:
        """Wait until everything is in Redis; gives the number of entries that are not."""
        deadline_s = monotonic() + timeout_s
        while self.unsent and (left_s := deadline_s - monotonic()) > 0:
            self._moved.clear()
            try:
                await asyncio.wait_for(self._moved.wait(), left_s)
            except TimeoutError:
                break
        return self.unsent

    def abandon(self) -> None:
        """Count what is left as lost; the end."""
        left = [*self._sending, *self._queue]
        self._sending.clear()
        self._queue.clear()
        for entry in left:
            self._lose(entry, "closed before Redis took it")


def _look(done: Confirmed) -> None:
    """Mark a failure as seen: whoever published may have been cancelled."""
    if not done.cancelled():
        done.exception()


def _finish(entry: Outgoing, entry_id: str = "") -> None:
    if not entry.done.done():
        entry.done.set_result(entry_id)


def _stamp(entry: Outgoing) -> None:
    """Give an entry that is kept the time it was published at; Redis would write its own."""
    if not entry.draft.has_ts:
        entry.draft.has_ts = True
        entry.command = (*entry.command, b"ts", b"%d" % entry.draft.at_ms)


def _as_ours(answer: object, what: str) -> PercipioError:
    if isinstance(answer, PercipioError):
        return answer
    if isinstance(answer, Exception):
        return refusal(answer, what)
    return DependencyError(f"Redis: {what}: unexpected answer {answer!r}")
