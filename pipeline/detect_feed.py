"""Batches for the network: read just in time, decoded at once, renewed, committed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Set
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from time import monotonic

from pipeline import metrics
from pipeline.batch import Batcher, CloseReason
from pipeline.claims import Claims
from pipeline.consumer import sleep_unless
from pipeline.entries import Entry, Outcome, Verdict
from pipeline.errors import DependencyError
from pipeline.inputs import Inputs
from pipeline.log import get_logger
from pipeline.records import Picture
from pipeline.reuse import Look
from pipeline.wire import FrameEntry

QUIET_S = 1.0
LEAD_S = 0.05
"""A batch is read so long before the network should be free: decoded in time, yet fresh."""
POLL_S = 0.005


@dataclass(frozen=True, slots=True)
class DetectLimits:
    """Bounds of the stage.

    Attributes:
        batch_size: most frames for one call of the network.
        batch_wait_s: longest wait of the oldest frame for a fuller batch.
        max_age_ms: a live frame older than this when it is read is dropped.
        max_deliveries: delivered more often than this, an entry is a dead letter.
        keep_last: keep the newest frame of each source for viewers.
        seats: batches that are scaled, in the network or read from its output at a time.
    """

    batch_size: int = 4
    batch_wait_s: float = 0.01
    max_age_ms: int = 1000
    max_deliveries: int = 5
    keep_last: bool = True
    seats: int = 2


@dataclass(frozen=True, slots=True)
class Decoded:
    """A frame ready for the network.

    Attributes:
        picture: None when what is in it is known.
        jpeg: the frame as viewers get it, or None when none is kept.
        look: what was known of it before it was decoded.
        decode_ms: what reading and decoding took.
    """

    frame: FrameEntry
    picture: Picture | None
    jpeg: bytes | None
    decode_ms: float
    look: Look


@dataclass(frozen=True, slots=True)
class Prepared:
    """An entry whose decoding has begun.

    Attributes:
        picture: gives the decoded frame, or raises EntryError; None when it is not worth it.
    """

    entry: Entry
    picture: asyncio.Future[Decoded] | None


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries handled by one call, and how they came together."""

    items: list[Prepared]
    reason: CloseReason
    waited_s: float


class Turn:
    """The network's: a batch in it, others at its door, and about when another can begin.

    Args:
        seats: batches inside and at the door.
    """

    def __init__(self, seats: int = 2) -> None:
        self._seats = seats
        self._free = asyncio.Event()
        self._free.set()
        self._left = asyncio.Event()
        self._inside: list[Set[bytes]] = []
        self._began_s = 0.0
        self._usual_s = 0.0

    @property
    def is_free(self) -> bool:
        """Whether no batch is in the network."""
        return self._free.is_set()

    async def wait_until_near(self) -> None:
        """Wait until the network is free or about to be."""
        while not self.is_free:
            left_s = self._began_s + self._usual_s - LEAD_S - monotonic()
            if left_s <= 0:
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(self._free.wait(), left_s)

    @asynccontextmanager
    async def take(self, digests: Set[bytes]) -> AsyncIterator[None]:
        """Have a seat, once no picture of these digests is inside: what is in it is known then."""
        while not self._has_seat(digests):
            self._left.clear()
            await self._left.wait()
        if not self._inside:
            self._began_s = monotonic()
        self._inside.append(digests)
        self._free.clear()
        try:
            yield
        finally:
            took_s = self.used_s()
            self._usual_s = took_s if not self._usual_s else 0.8 * self._usual_s + 0.2 * took_s
            self._began_s = monotonic()
            self._inside.remove(digests)
            self._left.set()
            if not self._inside:
                self._free.set()

    def used_s(self) -> float:
        """How long the network has worked for the batch that came first of those inside."""
        return monotonic() - self._began_s

    def _has_seat(self, digests: Set[bytes]) -> bool:
        return len(self._inside) < self._seats and all(map(digests.isdisjoint, self._inside))


class DetectFeed:
    """Batches of the detect group; decoding starts as soon as an entry is read.

    While the network works on one batch the next is collected, until it is full or the network
    is free: an idle network never waits for more than `batch_wait_s`, and what is read waits for
    no more than the end of a batch, so that frames stay fresh and others' workers get their share.
    """

    def __init__(
        self,
        inputs: Inputs,
        limits: DetectLimits,
        prepare: Callable[[Entry], Prepared],
        turn: Turn,
    ) -> None:
        self._inputs = inputs
        self._limits = limits
        self._prepare = prepare
        self._turn = turn
        self._claims = Claims(
            inputs.store, inputs.consumer, inputs.limits.claim_idle_ms, limits.batch_size
        )
        self._collecting = asyncio.Lock()
        self._batcher: Batcher[Prepared] = Batcher(limits.batch_size, limits.batch_wait_s)
        self._claimed: list[Entry] = []
        self._in_work: list[_Work] = []
        self._changed = asyncio.Event()
        self._has_recovered = False

    async def next_batch(self, stop: asyncio.Event) -> Batch | None:
        """Give the next batch; entries taken over from a silent worker come first, and alone."""
        async with self._collecting:
            if not await self._wait_until(lambda: not self._is_retrying, stop):
                return None
            if not self._has_recovered:
                await self._recover(stop)
            batch = await self._retry_batch(stop) or await self._collect(stop)
        if batch is not None:
            metrics.BATCHES.labels("detect", batch.reason.value).inc()
            metrics.BATCH_ENTRIES.labels("detect").observe(len(batch.items))
            metrics.BATCH_WAIT.labels("detect").observe(batch.waited_s)
        return batch

    async def _recover(self, stop: asyncio.Event) -> None:
        """Take up what this worker left when it ended before, ahead of anything new."""
        if await self._wait_until(lambda: not self._in_work, stop):
            self._claimed = await self._claims.take(own=True)
            self._has_recovered = not self._claimed

    @property
    def _is_retrying(self) -> bool:
        return any(work.is_retry for work in self._in_work)

    async def _wait_until(self, check: Callable[[], bool], stop: asyncio.Event) -> bool:
        """Wait for what commits change; False on stop."""
        while not check():
            if stop.is_set():
                return False
            self._changed.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), QUIET_S)
        return True

    async def _retry_batch(self, stop: asyncio.Event) -> Batch | None:
        """Give what was taken over; nothing else is in work, for it may end this worker."""
        if not self._claimed or not await self._wait_until(lambda: not self._in_work, stop):
            return None
        entries, self._claimed = self._claimed, []
        self._in_work.append(_Work(entries, is_retry=True))
        self._changed.set()
        return Batch([self._prepare(entry) for entry in entries], CloseReason.DRAINED, 0.0)

    async def _collect(self, stop: asyncio.Event) -> Batch | None:
        await self._turn.wait_until_near()
        batcher = self._batcher  # keeps what was read when Redis goes away meanwhile
        quiet_since_s = monotonic()
        while True:
            entries = [] if stop.is_set() else await self._inputs.read(batcher.room)
            now_s = monotonic()
            for entry in entries:
                batcher.add(self._prepare(entry), now_s)
            reason = batcher.close_reason(now_s, drained=not entries)
            if reason is CloseReason.FULL or (reason and (self._turn.is_free or stop.is_set())):
                waited_s = batcher.waited_s(now_s)
                items = batcher.take()
                self._in_work.append(_Work([item.entry for item in items]))
                return Batch(items, reason, waited_s)
            if not entries:
                is_quiet = self._claimed or stop.is_set() or now_s - quiet_since_s >= QUIET_S
                if is_quiet and not len(batcher):
                    return None
                await self._inputs.wait(POLL_S if len(batcher) else QUIET_S)

    async def commit(self, outcomes: list[Outcome]) -> None:
        """Commit a batch; an entry that a sibling has finished meanwhile writes nothing."""
        with metrics.timed("detect", "commit"):
            flags = await self._inputs.commit(outcomes)
        _count(outcomes, flags)
        done = {id(outcome.entry) for outcome in outcomes}
        self._in_work = [work for work in self._in_work if id(work.entries[0]) not in done]
        self._changed.set()

    async def keep(self, stop: asyncio.Event, period_s: float) -> None:
        """Keep what is in work ours, take over what is nobody's, count what others removed."""
        while not await sleep_unless(stop, random.uniform(0.75, 1.25) * period_s):
            await self._guarded(self._renew())
            await self._guarded(self._take_over(stop))
            await self._guarded(self._audit())
        claimed, self._claimed = self._claimed, []
        await self._guarded(self._claims.hand_back(claimed))

    async def _guarded(self, action: Coroutine[None, None, None]) -> None:
        try:
            await action
        except DependencyError as error:
            get_logger().warning("dependency_down", error=str(error))

    async def _renew(self) -> None:
        held = [entry for work in self._in_work for entry in work.entries]
        held += [*self._claimed, *(item.entry for item in self._batcher)]
        await self._claims.renew(held)
        metrics.RENEWED.labels("detect").inc(len(held))

    async def _take_over(self, stop: asyncio.Event) -> None:
        """Take over batch after batch until nothing is left, or the one at hand takes long."""
        while self._has_recovered and not self._claimed and not stop.is_set():
            self._claimed = await self._claims.take()
            metrics.CLAIMED.labels("detect").inc(len(self._claimed))
            if not self._claimed:
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wait_until(lambda: not self._claimed, stop), QUIET_S)

    async def _audit(self) -> None:
        metrics.LOST.labels("detect").inc(await self._claims.audit())


@dataclass(slots=True)
class _Work:
    """Entries of a batch that is not committed yet."""

    entries: list[Entry]
    is_retry: bool = False


def _count(outcomes: list[Outcome], flags: list[str]) -> None:
    """Count what was written; what a sibling had finished is counted there."""
    latencies_s: list[float] = []
    for outcome, flag in zip(outcomes, flags, strict=True):
        entry = outcome.entry
        if flag == "D":
            metrics.DROPS.labels("detect", "duplicate").inc()
        elif flag == "1" and outcome.verdict is Verdict.AGE:
            metrics.DROPS.labels("detect", "age").inc()
        elif flag == "1" and outcome.verdict is Verdict.DEAD:
            metrics.ENTRIES.labels("detect", "dead").inc()
        elif flag == "1":
            metrics.ENTRIES.labels("detect", outcome.verdict.value).inc()
            published_s = entry.age_ms / 1e3 + monotonic() - entry.read_s
            latencies_s.append(max(0.0, published_s))
    metrics.LATENCY.observe("frame", latencies_s)
