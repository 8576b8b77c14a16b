"""A partition's entries to the scorer and back: read, order, recall, score, commit."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from itertools import islice
from time import monotonic

from pipeline import metrics
from pipeline.consumer import consume
from pipeline.errors import EntryError, Reason
from pipeline.event_reader import EventReader
from pipeline.health import Health
from pipeline.ownership import Cursor, OwnedPartition, Ownership, Page, ScoreCommit
from pipeline.reorder import Reorder
from pipeline.score_inputs import Input, Inputs
from pipeline.scorer import PartitionScorer, Result
from pipeline.stream import Raw
from pipeline.wire import id_key, id_ms
from pipeline.wire_results import DetectionEntry, read_detection

TICK_S = 1.0
QUIET_MS = 1000
HELD_POLL_MS = 20
AUDIT_S = 5.0
RECALL = 200
SMALL = 512
"""Inputs that are scored where they come: a full batch by default, some 20 ms."""
POISON_STALLS = 4
"""Owners that may die at one place: of batches of 64, 8, 1 and 1 inputs."""
UNKNOWN: dict[str, bytes | None] = {"frames": b"0-0", "recordings": b"0-0"}


@dataclass(frozen=True, slots=True)
class ScoreLimits:
    """Bounds of a commit.

    Attributes:
        inputs: most inputs.
        sources: most sources; a commit of 100 takes Redis a few milliseconds.
        patience_ms: longest wait of a detection for an earlier frame.
    """

    inputs: int = 512
    sources: int = 100
    patience_ms: int = 2000


@dataclass(slots=True)
class ScoreBatch:
    """Inputs of one commit, in the order in which they are scored; none is a tick."""

    inputs: Inputs
    now_ms: int
    read_s: float
    lost: tuple[int, int] = (0, 0)


class PartitionFeed:
    """Reads behind the cursors of an owned partition and commits what was scored."""

    def __init__(
        self,
        ownership: Ownership,
        owned: OwnedPartition,
        scorer: PartitionScorer,
        limits: ScoreLimits,
    ) -> None:
        self._ownership = ownership
        self._owned = owned
        self._scorer = scorer
        self._limits = limits
        self._events: deque[Raw] = deque()
        self._reader = EventReader(owned.number, ownership.store.keys.partitions)
        self._reorder = Reorder(limits.patience_ms)
        self._ready: list[Input] = []
        self._taken = Inputs()
        self._raw: dict[bytes, tuple[int, Raw]] = {}
        self._ahead: Page | None = None
        self._page_s = 0.0
        self._gone = 0
        self._stall, self._caution = owned.stall, owned.caution
        self._cautious_left = limits.inputs
        self._is_alone = False
        self._has_ticked = False
        self._read = replace(owned.detections)
        self._events_end = owned.events.last_id
        self._tick_s = self._audit_s = monotonic()
        scorer.silence.reached_ms = dict.fromkeys(UNKNOWN, 0)
        self._sources = metrics.SOURCES.labels(str(owned.number))

    async def start(self) -> None:
        """Recall every source that is not at rest, and the detections that were held back."""
        now_ms = await self._ownership.store.now_ms()
        found = await self._ownership.fetch_held(self._owned)
        held = set(self._owned.held)
        self._gone = len(held) - sum(raw[0] in held for raw in found)
        first = self._read.entries_read - len(found)
        for position, raw in enumerate(found):
            if raw[0] in held:
                self._hold(raw, first + position)
        names = await self._ownership.remembered(self._owned)
        for start in range(0, len(names), RECALL):
            some = names[start : start + RECALL]
            facts = await self._ownership.facts(self._owned, some)
            moving = [
                name
                for name, one in zip(some, facts, strict=True)
                if one is not None and self._scorer.silence.may_change(name, one, now_ms)
            ]
            await self._recall(moving)

    async def _recall(self, names: Sequence[str]) -> None:
        if names:
            kept = await self._ownership.recall(self._owned, names)
            await asyncio.to_thread(self._scorer.learn, dict(zip(names, kept, strict=True)))

    async def next_batch(self, stop: asyncio.Event) -> ScoreBatch | None:
        """Give inputs to score, or what silence has changed; None when there is nothing."""
        page = await self._page()
        read_s = self._page_s
        now_ms = self._look_for_silence(page, read_s)
        if self._scorer.silence.is_due and not self._taken and not self._has_ticked:
            self._has_ticked = True
            return ScoreBatch(Inputs(), now_ms, read_s)
        self._has_ticked = False
        # What was taken stays taken when Redis goes away before it could be handed on.
        self._taken = self._taken or self._beware(self._take(page))
        if self._taken:
            await self._recall(self._scorer.unknown(self._taken.sources))
            if self._caution:
                await self._try_alone()
            inputs, self._taken = self._taken, Inputs()
            return ScoreBatch(inputs, page.now_ms, read_s)
        if any(lost := await self._audit(page, read_s)):
            return ScoreBatch(Inputs(), page.now_ms, read_s, lost)
        if not self._scorer.silence.is_due and not stop.is_set():
            await self._wait()
        return None

    def _look_for_silence(self, page: Page, read_s: float) -> int:
        """Find the sources to be ticked, once a second; gives the time of their ticks.

        It is that of the oldest input that waits: what that brings is no silence. Inputs and ticks
        take turns, so that neither waits for all of the other.
        """
        waiting = [*(raw[0] for raw in islice(self._events, 1)), *self._raw]
        now_ms = min([page.now_ms, *map(id_ms, waiting)])
        if page.is_end:
            self._scorer.silence.reached_ms = {
                name: self._reached_ms(name, page) for name in UNKNOWN
            }
        if read_s - self._tick_s >= TICK_S:
            self._tick_s = read_s
            self._sources.set(len(self._scorer))
            self._scorer.look_for_silence(now_ms)
        return now_ms

    def _reached_ms(self, stream: str, page: Page) -> int:
        """Give up to when everything that was added to a stream of frames has been scored.

        Live frames that take longer than the patience are no longer waited for.
        """
        floor = page.pending[stream]
        ready = [one.value for one in self._ready if isinstance(one.value, DetectionEntry)]
        times_ms = [id_ms(each.frame) for each in ready if each.stream == stream]
        times_ms += [] if floor is None else [id_ms(floor)]
        times_ms += [] if (oldest := self._reorder.oldest_ms(stream)) is None else [oldest]
        reached_ms = min(times_ms, default=page.now_ms)
        if stream == "frames":
            return max(reached_ms, page.now_ms - self._limits.patience_ms)
        return reached_ms

    def _next_page(self) -> tuple[tuple[bytes, bytes], tuple[int, int]]:
        """Give behind which ids to read on, and how much."""
        room = self._limits.inputs
        counts = (0 if len(self._events) >= room else room, 0 if len(self._ready) >= room else room)
        return (self._events_end, self._read.last_id), counts

    async def _page(self) -> Page:
        page, self._ahead = self._ahead, None
        if page is None:
            with metrics.timed("score", "read"):
                page = await self._ownership.read(self._owned, *self._next_page())
            self._page_s = monotonic()
        if page.events:
            self._events.extend(page.events)
            self._events_end = page.events[-1][0]
        for raw in page.detections:
            self._read.entries_read += 1
            self._read.last_id = raw[0]
            self._hold(raw, self._read.entries_read - 1)
        return page

    def _hold(self, raw: Raw, position: int) -> None:
        partitions = self._ownership.store.keys.partitions
        one = _detection(raw[0], raw[1], self._owned.number, partitions)
        self._raw[raw[0]] = (position, raw)
        if isinstance(one.value, DetectionEntry):
            self._reorder.add([(raw[0], one.value)])
        else:
            self._ready.append(one)

    def _take(self, page: Page) -> Inputs:
        """Choose what goes into one commit: frames whose turn it is, and events, by id."""
        at_end = page.is_end
        now_ms = page.now_ms if at_end else id_ms(self._read.last_id)
        for entry_id, detection in self._reorder.release(
            page.pending if at_end else UNKNOWN, now_ms
        ):
            fields = self._raw[entry_id][1][1]
            self._ready.append(Input("detections", entry_id, fields, detection))
        self._ready.sort(key=_turn)
        taken, ready = Inputs(), deque(self._ready)
        room, sources = self._caution or self._limits.inputs, self._limits.sources
        while self._reader.take(self._events, taken, room, sources, _turn_of_first(ready)):
            if not ready or not taken.has_room(ready[0].source, sources):
                break
            one = ready.popleft()
            taken.add(one)
            del self._raw[one.entry_id]
        self._ready = list(ready)
        return taken

    def _beware(self, taken: Inputs) -> Inputs:
        """Bury the entry that, alone, has ended its owner again and again."""
        if taken and self._caution == 1 and self._stall >= POISON_STALLS:
            text = f"{self._stall} times its owner ended while scoring it"
            taken.spoil(0, EntryError(Reason.POISON, text))
            self._stall = 0
        return taken

    async def _try_alone(self) -> None:
        """Where owners have died: say what is tried, one partition at a time, before the work."""
        if not self._is_alone:
            await self._ownership.alone.acquire()
            self._is_alone = True
        await self._ownership.attempt(self._owned)

    def let_others(self) -> None:
        """End what `_try_alone` began."""
        if self._is_alone:
            self._is_alone = False
            self._ownership.alone.release()

    @property
    def _held(self) -> list[bytes]:
        """Detections that were read and are not in the batch at hand, oldest first."""
        return sorted(self._raw, key=id_key)

    async def _audit(self, page: Page, now_s: float) -> tuple[int, int]:
        """Count entries that others removed before they were read; at the streams' end only.

        The reader forgets the sources that the scorer has let go of.
        """
        if now_s - self._audit_s < AUDIT_S or not page.is_end or self._events or self._ready:
            return 0, 0
        self._audit_s = now_s
        self._reader.forget(self._scorer.unknown(self._reader.sources))
        return await self._ownership.missing(self._owned, self._read)

    async def _wait(self) -> None:
        keys = self._owned.keys
        block_ms = HELD_POLL_MS if len(self._reorder) else QUIET_MS
        after = {keys.events: self._events_end, keys.detections: self._read.last_id}
        await self._ownership.store.wait_for(after, block_ms)

    async def commit(self, work: ScoreWorked) -> None:
        """Commit what was scored; nothing is written where nothing has changed."""
        batch, result = work
        held = self._held
        events, detections = self._cursors(batch)
        terms = result.ledger()
        lost = batch.lost[1] + self._gone
        terms.update(events_lost_trimmed=batch.lost[0], detections_lost_trimmed=lost)
        if not (batch.inputs or result.scores or batch.lost[0] or lost):
            metrics.EVALUATIONS.inc(result.evaluations)
            return
        oldest = min((self._raw[i][0] for i in held), default=detections.entries_read)
        commit = ScoreCommit(
            events,
            detections,
            held,
            detections.entries_read - oldest,
            [list(fields) for fields in result.scores],
            result.sources,
            [list(fields) for fields in result.dead],
            {name: count for name, count in terms.items() if count},
            self._next_caution(len(batch.inputs)),
        )
        with metrics.timed("score", "commit"):
            gone, self._ahead = await self._ownership.commit(
                self._owned, commit, *self._next_page()
            )
            self._page_s = monotonic()  # others come first: it may be old when it is scored
        self._scorer.unlearn(gone)
        self._read = replace(detections)
        self._gone, self._caution = 0, commit.caution
        self._cautious_left -= len(batch.inputs)
        self.let_others()
        _count(batch, result, terms)

    def _next_caution(self, inputs: int) -> int:
        """Small batches until as many inputs have passed as a full batch would have held."""
        return self._caution if self._cautious_left > inputs else 0

    def _cursors(self, batch: ScoreBatch) -> tuple[Cursor, Cursor]:
        mine = batch.inputs.events()
        done = self._owned.events
        events = Cursor(
            mine[-1] if mine else done.last_id,
            done.entries_read + len(mine) + batch.lost[0],
        )
        detections = replace(self._read)
        detections.entries_read += batch.lost[1]
        return events, detections


ScoreWorked = tuple[ScoreBatch, Result]


@dataclass(frozen=True, slots=True)
class PartitionWork:
    """Scores batches of one partition: large ones in a thread, small ones where they come.

    What a thread gains, a second core now and then, costs more than it brings: each hand-over waits
    for the interpreter's lock.
    """

    scorer: PartitionScorer
    thread: Executor

    async def handle(self, batch: ScoreBatch) -> ScoreWorked:
        """Score inputs; a batch without inputs lets silence show."""
        with metrics.timed("score", "score"):
            if 0 < len(batch.inputs) <= SMALL:
                return batch, self._score(batch)
            loop = asyncio.get_running_loop()
            return batch, await loop.run_in_executor(self.thread, self._score, batch)

    def _score(self, batch: ScoreBatch) -> Result:
        now_ms = batch.now_ms + round((monotonic() - batch.read_s) * 1e3)
        if batch.inputs:
            return self.scorer.score(batch.inputs, now_ms)
        return self.scorer.tick(now_ms)


def _detection(entry_id: bytes, fields: dict[bytes, bytes], number: int, parts: int) -> Input:
    try:
        value = read_detection(entry_id, fields, number, parts)
        return Input("detections", entry_id, fields, value)
    except EntryError as error:
        return Input("detections", entry_id, fields, error)


def _turn(one: Input) -> tuple[int, int]:
    """Order of scoring: when the input was added, for a frame its own entry id."""
    if isinstance(one.value, DetectionEntry):
        return id_key(one.value.frame)
    return id_key(one.entry_id)


def _turn_of_first(ready: deque[Input]) -> tuple[int, int] | None:
    return _turn(ready[0]) if ready else None


def _count(batch: ScoreBatch, result: Result, ledger: Counter[str]) -> None:
    metrics.ENTRIES.labels("score", "scored").inc(ledger["events_scored"] + ledger["frames_scored"])
    metrics.DROPS.labels("score", "duplicate").inc(ledger["events_dropped_duplicate"])
    metrics.ENTRIES.labels("score", "dead").inc(len(result.dead))
    metrics.LOST.labels("score").inc(sum(batch.lost))
    metrics.EVALUATIONS.inc(result.evaluations)
    for kind in ("event", "frame"):
        metrics.LATE.labels(kind).inc(ledger[f"{kind}s_late"])
    if not batch.inputs:
        return
    metrics.BATCH_ENTRIES.labels("score").observe(len(batch.inputs))
    now_ms = batch.now_ms + (monotonic() - batch.read_s) * 1e3
    metrics.LATENCY.observe("event", [max(0.0, now_ms - each) / 1e3 for each in result.oldest_ms])


async def serve_partition(
    feed: PartitionFeed, work: PartitionWork, stop: asyncio.Event, health: Health
) -> None:
    """Serve one owned partition until `stop`; what was read is scored and committed first."""
    try:
        await feed.start()
        await consume(feed, work, stop, health)
    finally:
        feed.let_others()
