"""Frames to detections: collect and decode a batch, run the network, say what becomes of each."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

import numpy as np

from pipeline import metrics
from pipeline.batch import Batcher, CloseReason
from pipeline.consumer import sleep_unless
from pipeline.errors import DependencyError, EntryError, Reason
from pipeline.inputs import Entry, Inputs, Outcome, Verdict
from pipeline.log import get_logger
from pipeline.records import Detections, Image, Picture
from pipeline.wire import FrameEntry, dead_fields, detection_fields, read_frame, source_of

JPEG_START = b"\xff\xd8"
QUIET_S = 1.0
LEAD_S = 0.05
"""A batch is read so long before the network should be free: decoded in time, yet fresh."""
POLL_S = 0.005


class Detector(Protocol):
    """What the stage needs of a network."""

    def decode(self, data: bytes) -> Picture:
        """Check and decode a picture; raises EntryError. Called from several threads."""

    def detect(self, pictures: Sequence[Picture]) -> list[Detections]:
        """Find objects; one result a picture. Called from one thread at a time."""


@dataclass(frozen=True, slots=True)
class Network:
    """A detector and what results say of it.

    Attributes:
        model: name and first 12 digits of the weights' SHA-256, `yolov9t@0123456789ab`.
        labels: class names by class id.
        encode_jpeg: encodes a picture for viewers, where the frame is no JPEG itself.
    """

    detector: Detector
    model: str
    labels: Sequence[str]
    encode_jpeg: Callable[[Image], bytes]


@dataclass(frozen=True, slots=True)
class DetectLimits:
    """Bounds of the stage.

    Attributes:
        batch_size: most frames for one call of the network.
        batch_wait_s: longest wait of the oldest frame for a fuller batch.
        max_age_ms: a live frame older than this when it is read is dropped.
        max_deliveries: delivered more often than this, an entry is a dead letter.
        keep_last: keep the newest frame of each source for viewers.
    """

    batch_size: int = 4
    batch_wait_s: float = 0.01
    max_age_ms: int = 1000
    max_deliveries: int = 5
    keep_last: bool = True


@dataclass(frozen=True, slots=True)
class Decoded:
    """A frame ready for the network.

    Attributes:
        jpeg: the frame as viewers get it, or None when none is kept.
        decode_ms: what reading and decoding took.
    """

    frame: FrameEntry
    picture: Picture
    jpeg: bytes | None
    decode_ms: float


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


_Ready = tuple[Prepared, Decoded]


class Turn:
    """The network's: one batch at a time, and about when the next can begin."""

    def __init__(self) -> None:
        self._free = asyncio.Event()
        self._free.set()
        self._lock = asyncio.Lock()
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
    async def take(self) -> AsyncIterator[None]:
        """Have the network to oneself."""
        async with self._lock:
            self._free.clear()
            self._began_s = monotonic()
            try:
                yield
            finally:
                took_s = monotonic() - self._began_s
                self._usual_s = took_s if not self._usual_s else 0.8 * self._usual_s + 0.2 * took_s
                self._free.set()


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
        self._collecting = asyncio.Lock()
        self._claimed: list[Entry] = []
        self._in_work: dict[int, list[Entry]] = {}

    async def next_batch(self, stop: asyncio.Event) -> Batch | None:
        """Give the next batch; entries taken over from a silent worker come first, apart."""
        async with self._collecting:
            batch = self._retry_batch() or await self._collect(stop)
        if batch is not None:
            entries = [item.entry for item in batch.items]
            self._in_work[id(entries[0])] = entries
            metrics.BATCHES.labels("detect", batch.reason.value).inc()
            metrics.BATCH_ENTRIES.labels("detect").observe(len(entries))
            metrics.BATCH_WAIT.labels("detect").observe(batch.waited_s)
        return batch

    def _retry_batch(self) -> Batch | None:
        """Halve the batch with each delivery, until an entry that kills workers is alone."""
        if not self._claimed:
            return None
        deliveries = max(entry.deliveries for entry in self._claimed)
        size = max(1, self._limits.batch_size >> max(0, deliveries - 1))
        taken, self._claimed = self._claimed[:size], self._claimed[size:]
        return Batch([self._prepare(entry) for entry in taken], CloseReason.DRAINED, 0.0)

    async def _collect(self, stop: asyncio.Event) -> Batch | None:
        await self._turn.wait_until_near()
        batcher: Batcher[Prepared] = Batcher(self._limits.batch_size, self._limits.batch_wait_s)
        quiet_since_s = monotonic()
        while True:
            entries = await self._inputs.read(batcher.room)
            now_s = monotonic()
            for entry in entries:
                batcher.add(self._prepare(entry), now_s)
            reason = batcher.close_reason(now_s, drained=not entries)
            if reason is CloseReason.FULL or (reason and (self._turn.is_free or stop.is_set())):
                waited_s = batcher.waited_s(now_s)
                return Batch(batcher.take(), reason, waited_s)
            if not entries:
                if stop.is_set() or (not len(batcher) and now_s - quiet_since_s >= QUIET_S):
                    return None
                await self._inputs.wait(POLL_S if len(batcher) else QUIET_S)

    async def commit(self, outcomes: list[Outcome]) -> None:
        """Commit a batch; an entry that a sibling has finished meanwhile writes nothing."""
        with metrics.timed("detect", "commit"):
            flags = await self._inputs.commit(outcomes)
        _count(outcomes, flags)
        for entries in [e for e in self._in_work.values() if e[0].entry_id in flags]:
            self._in_work.pop(id(entries[0]), None)

    async def keep(self, stop: asyncio.Event, period_s: float) -> None:
        """Keep what is in work ours, take over what is nobody's, count what others removed."""
        while not await sleep_unless(stop, random.uniform(0.75, 1.25) * period_s):
            try:
                await self._keep_once()
            except DependencyError as error:
                get_logger().warning("dependency_down", error=str(error))

    async def _keep_once(self) -> None:
        for entries in list(self._in_work.values()):
            await self._inputs.renew(entries)
            metrics.RENEWED.labels("detect").inc(len(entries))
        if not self._claimed:
            self._claimed = await self._inputs.claim(self._limits.batch_size)
            metrics.CLAIMED.labels("detect").inc(len(self._claimed))
        metrics.LOST.labels("detect").inc(await self._inputs.audit())


class DetectWork:
    """Runs the network on a batch and decides what becomes of every entry."""

    def __init__(
        self,
        network: Network,
        limits: DetectLimits,
        partitions: int,
        decoders: Executor,
    ) -> None:
        self.turn = Turn()
        self._network = network
        self._detector = network.detector
        self._limits = limits
        self._partitions = partitions
        self._decoders = decoders
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="network")

    def prepare(self, entry: Entry) -> Prepared:
        """Begin to decode an entry, unless it is too old or has failed too often."""
        stale = entry.stream == "frames" and entry.age_ms > self._limits.max_age_ms
        if stale or entry.deliveries > self._limits.max_deliveries:
            return Prepared(entry, None)
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._decoders, self._decode, entry)
        return Prepared(entry, future)

    def _decode(self, entry: Entry) -> Decoded:
        began_s = monotonic()
        frame = read_frame(entry.entry_id, entry.fields, entry.partition, self._partitions)
        picture = self._detector.decode(frame.image)
        jpeg = None
        if self._limits.keep_last:
            is_jpeg = frame.image.startswith(JPEG_START)
            jpeg = frame.image if is_jpeg else self._network.encode_jpeg(picture.image)
        return Decoded(frame, picture, jpeg, (monotonic() - began_s) * 1e3)

    async def handle(self, batch: Batch) -> list[Outcome]:
        """Give one outcome an entry; a bad entry never touches its neighbours."""
        decoded, outcomes = await self._decoded(batch)
        if decoded:
            async with self.turn.take():
                outcomes += await self._detected(decoded)
        return outcomes

    async def _decoded(self, batch: Batch) -> tuple[list[_Ready], list[Outcome]]:
        decoded: list[_Ready] = []
        outcomes: list[Outcome] = []
        for item in batch.items:
            if item.picture is None:
                outcomes.append(self._refused(item.entry))
                continue
            try:
                decoded.append((item, await item.picture))
            except EntryError as error:
                outcomes.append(_dead(item.entry, error))
        return decoded, outcomes

    def _refused(self, entry: Entry) -> Outcome:
        if entry.deliveries > self._limits.max_deliveries:
            text = f"delivered {entry.deliveries} times without a result"
            return _dead(entry, EntryError(Reason.POISON, text))
        problem = f"frame dropped: {entry.age_ms} ms old, at most {self._limits.max_age_ms}"
        return Outcome(entry, Verdict.AGE, source_of(entry.fields), problem=problem)

    async def _detected(self, decoded: list[_Ready]) -> list[Outcome]:
        loop = asyncio.get_running_loop()
        pictures = [ready.picture for _, ready in decoded]
        began_s = monotonic()
        try:
            found = await loop.run_in_executor(self._thread, self._detector.detect, pictures)
        except Exception as error:
            return await self._halved(decoded, error)
        infer_ms = (monotonic() - began_s) * 1e3
        metrics.STEP.labels("detect", "infer").observe(infer_ms / 1e3)
        return [
            self._outcome(item, ready, one, (began_s, infer_ms, len(decoded)))
            for (item, ready), one in zip(decoded, found, strict=True)
        ]

    async def _halved(self, decoded: list[_Ready], error: Exception) -> list[Outcome]:
        """Find the entry that makes the network fail; alone, it is a dead letter."""
        if len(decoded) == 1:
            entry = decoded[0][0].entry
            get_logger().error("entry_failed", entry=entry.entry_id.decode(), error=repr(error))
            await self._prove_network(decoded[0][1].picture)
            return [_dead(entry, EntryError(Reason.POISON, f"network: {error!r}"))]
        middle = len(decoded) // 2
        return await self._detected(decoded[:middle]) + await self._detected(decoded[middle:])

    async def _prove_network(self, picture: Picture) -> None:
        """Run a black picture: where that fails too, the worker is ill, not the entry."""
        black = Picture(np.zeros_like(picture.image), picture.width, picture.height)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._detector.detect, [black])

    def _outcome(
        self, item: Prepared, ready: Decoded, found: Detections, call: tuple[float, float, int]
    ) -> Outcome:
        began_s, infer_ms, batch = call
        entry, head = item.entry, ready.frame.envelope
        queued_ms = entry.age_ms + (began_s - entry.read_s) * 1e3
        timing = {
            "queued_ms": round(max(0.0, queued_ms), 1),
            "decode_ms": round(ready.decode_ms, 2),
            "infer_ms": round(infer_ms, 2),
            "batch": batch,
        }
        facts = {
            "model": self._network.model,
            "width": ready.picture.width,
            "height": ready.picture.height,
            "cached": False,
            "timing": timing,
        }
        labels = self._network.labels
        fields = detection_fields(ready.frame, entry.stream, found, labels, facts)
        return Outcome(
            entry, Verdict.DETECTED, head.source, head.producer, head.seq, fields, ready.jpeg
        )


def _dead(entry: Entry, error: EntryError) -> Outcome:
    fields = dead_fields(entry.stream, entry.entry_id, entry.fields, error, entry.deliveries)
    problem = f"{error.reason.value}: {error}"[:300]
    source = source_of(entry.fields)
    if error.reason is Reason.WRONG_PARTITION:
        source = None  # the source's own keys live in another slot
    return Outcome(entry, Verdict.DEAD, source, fields=fields, problem=problem)


def _count(outcomes: list[Outcome], flags: dict[bytes, str]) -> None:
    """Count what was written; what a sibling had finished is counted there."""
    for outcome in outcomes:
        flag, entry = flags[outcome.entry.entry_id], outcome.entry
        if flag == "D":
            metrics.DROPS.labels("detect", "duplicate").inc()
        elif flag == "1" and outcome.verdict is Verdict.AGE:
            metrics.DROPS.labels("detect", "age").inc()
        elif flag == "1" and outcome.verdict is Verdict.DEAD:
            metrics.ENTRIES.labels("detect", "dead").inc()
        elif flag == "1":
            metrics.ENTRIES.labels("detect", outcome.verdict.value).inc()
            published_s = entry.age_ms / 1e3 + monotonic() - entry.read_s
            metrics.LATENCY.labels("frame").observe(max(0.0, published_s))
