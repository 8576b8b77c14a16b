"""What becomes of every frame: decode, run the network, say what was found or what is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

import numpy as np

from pipeline import metrics
from pipeline.answers import Answer
from pipeline.detect_feed import Batch, Decoded, DetectLimits, Prepared, Turn
from pipeline.entries import Entry, Outcome, Verdict
from pipeline.errors import EntryError, Reason
from pipeline.log import get_logger
from pipeline.records import Detections, Image, Picture
from pipeline.reuse import Reuse
from pipeline.wire import read_frame, source_of
from pipeline.wire_results import dead_fields, detection_fields

JPEG_START = b"\xff\xd8"


class Detector(Protocol):
    """What the stage needs of a network."""

    def decode(self, data: bytes) -> Picture:
        """Check and decode a picture; raises EntryError. Called from several threads."""

    def detect(self, pictures: Sequence[Picture]) -> list[Detections]:
        """Find objects; one result a picture. Called from several threads at a time."""


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
class _Ready:
    """An entry to be answered: by the network, or by what is known of it."""

    entry: Entry
    decoded: Decoded

    @property
    def picture(self) -> Picture:
        """Of an entry that is not known: the network's input."""
        if self.decoded.picture is None:
            raise ValueError(f"{self.entry.entry_id!r} was not decoded: its answer is known")
        return self.decoded.picture


@dataclass(frozen=True, slots=True)
class _Call:
    """How an answer came about.

    Attributes:
        began_s: monotonic.
        infer_ms: 0 when the network was not asked.
        batch: pictures of the call.
    """

    began_s: float
    infer_ms: float = 0.0
    batch: int = 1
    is_cached: bool = False


class DetectWork:
    """Runs the network on a batch and decides what becomes of every entry."""

    def __init__(
        self,
        network: Network,
        limits: DetectLimits,
        partitions: int,
        decoders: Executor,
        reuse: Reuse | None = None,
    ) -> None:
        self.turn = Turn(limits.seats)
        self._reuse = reuse or Reuse()
        self._network = network
        self._detector = network.detector
        self._limits = limits
        self._partitions = partitions
        self._decoders = decoders
        self._threads = ThreadPoolExecutor(limits.seats, thread_name_prefix="network")

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
        look = self._reuse.look(frame)
        is_shown = self._limits.keep_last
        must_encode = is_shown and not frame.image.startswith(JPEG_START)
        picture, jpeg = None, frame.image if is_shown else None
        if look.answer is None or must_encode:
            picture = self._detector.decode(frame.image)
            jpeg = self._network.encode_jpeg(picture.image) if must_encode else jpeg
        return Decoded(frame, picture, jpeg, (monotonic() - began_s) * 1e3, look)

    async def handle(self, batch: Batch) -> list[Outcome]:
        """Give one outcome an entry; a bad entry never touches its neighbours."""
        decoded, outcomes = await self._decoded(batch)
        await self._reuse.ask([ready.decoded.look for ready in decoded])
        known, rest = self._apart(decoded)
        outcomes += known
        if rest:
            digests = {ready.decoded.look.digest or b"" for ready in rest} - {b""}
            async with self.turn.take(digests):
                outcomes += await self._infer(rest)
        return outcomes

    async def _infer(self, decoded: list[_Ready]) -> list[Outcome]:
        """Run the network, on equal pictures once."""
        for ready in decoded:
            self._reuse.look_again(ready.decoded.look)
        outcomes, rest = self._apart(decoded)
        firsts = {ready.decoded.look.digest or id(ready): ready for ready in reversed(rest)}
        first_ids = {id(ready) for ready in firsts.values()}
        if firsts:
            outcomes += await self._detected([ready for ready in rest if id(ready) in first_ids])
        if again := [ready for ready in rest if id(ready) not in first_ids]:
            outcomes += await self._infer(again)
        return outcomes

    def _apart(self, decoded: list[_Ready]) -> tuple[list[Outcome], list[_Ready]]:
        """Give the outcomes of those that are known, and those that are not."""
        known: list[Outcome] = []
        rest: list[_Ready] = []
        for ready in decoded:
            answer = ready.decoded.look.answer
            if answer is None:
                rest.append(ready)
            else:
                known.append(self._outcome(ready, answer, _Call(monotonic(), is_cached=True)))
        return known, rest

    async def _decoded(self, batch: Batch) -> tuple[list[_Ready], list[Outcome]]:
        decoded: list[_Ready] = []
        outcomes: list[Outcome] = []
        for item in batch.items:
            if item.picture is None:
                outcomes.append(self._refused(item.entry))
                continue
            try:
                decoded.append(_Ready(item.entry, await item.picture))
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
        pictures = [ready.picture for ready in decoded]
        began_s = monotonic()
        try:
            found = await loop.run_in_executor(self._threads, self._detector.detect, pictures)
        except Exception as error:
            return await self._halved(decoded, error)
        took_s = min(monotonic() - began_s, self.turn.used_s())
        metrics.STEP.labels("detect", "infer").observe(took_s)
        call = _Call(began_s, took_s * 1e3, len(decoded))
        outcomes = []
        for ready, picture, one in zip(decoded, pictures, found, strict=True):
            answer = Answer(one, picture.width, picture.height, took_s / len(decoded))
            self._reuse.keep(ready.decoded.look, answer)
            outcomes.append(self._outcome(ready, answer, call))
        return outcomes

    async def _halved(self, decoded: list[_Ready], error: Exception) -> list[Outcome]:
        """Find the entry that makes the network fail; alone, it is a dead letter."""
        if len(decoded) == 1:
            entry = decoded[0].entry
            get_logger().error("entry_failed", entry=entry.entry_id.decode(), error=repr(error))
            await self._prove_network(decoded[0].picture)
            return [_dead(entry, EntryError(Reason.POISON, f"network: {error!r}"))]
        middle = len(decoded) // 2
        return await self._detected(decoded[:middle]) + await self._detected(decoded[middle:])

    async def _prove_network(self, picture: Picture) -> None:
        """Run a black picture: where that fails too, the worker is ill, not the entry."""
        black = Picture(np.zeros_like(picture.image), picture.width, picture.height)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._threads, self._detector.detect, [black])

    def _outcome(self, ready: _Ready, answer: Answer, call: _Call) -> Outcome:
        entry, decoded = ready.entry, ready.decoded
        head = decoded.frame.envelope
        queued_ms = entry.age_ms + (call.began_s - entry.read_s) * 1e3
        timing = {
            "queued_ms": round(max(0.0, queued_ms), 1),
            "decode_ms": round(decoded.decode_ms, 2),
            "infer_ms": round(call.infer_ms, 2),
            "batch": call.batch,
        }
        facts = {
            "model": self._network.model,
            "width": answer.width,
            "height": answer.height,
            "cached": call.is_cached,
            "timing": timing,
        }
        labels = self._network.labels
        fields = detection_fields(decoded.frame, entry.stream, answer.detections, labels, facts)
        verdict = Verdict.CACHED if call.is_cached else Verdict.DETECTED
        return Outcome(entry, verdict, head.source, head.producer, head.seq, fields, decoded.jpeg)


def _dead(entry: Entry, error: EntryError) -> Outcome:
    fields = dead_fields(entry.stream, entry.entry_id, entry.fields, error, entry.deliveries)
    problem = f"{error.reason.value}: {error}"[:300]
    source = source_of(entry.fields)
    if error.reason is Reason.WRONG_PARTITION:
        source = None  # the source's own keys live in another slot
    return Outcome(entry, Verdict.DEAD, source, fields=fields, problem=problem)
