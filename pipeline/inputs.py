"""The detect group over `frames` and `recordings`: what is new is read, what is done committed.

Shared by any number of workers; entries are acked one by one and the ack gates the write.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from time import monotonic
from typing import Any

from pipeline import metrics
from pipeline.errors import DependencyError
from pipeline.partition import PartitionKeys
from pipeline.stream import INPUT_GROUP, Argument, Raw, Store, pack_arguments, pairs

STREAMS = ("frames", "recordings")
AGEING = 0.75
"""Live frames that wait for more than this share of their limit are a sign of overload."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One delivered entry.

    Attributes:
        partition: number of the partition it was read from.
        stream: `frames` or `recordings`.
        entry_id: its id.
        fields: as published.
        deliveries: how often Redis has delivered it, this time included.
        age_ms: Redis's clock at the read minus the entry id.
        read_s: when it was read, monotonic.
    """

    partition: int
    stream: str
    entry_id: bytes
    fields: dict[bytes, bytes]
    deliveries: int
    age_ms: int
    read_s: float


class Verdict(StrEnum):
    """What becomes of an input entry; the words that the commit function knows."""

    DETECTED = "detected"
    CACHED = "cached"
    AGE = "age"
    OVERFLOW = "overflow"
    DEAD = "dead"


@dataclass(slots=True)
class Outcome:
    """What the commit writes for one entry.

    Attributes:
        fields: of the detections or dead-letter entry; empty for a drop.
        source: None when the entry names no valid source.
        jpeg: newest frame to keep for viewers, or None.
        problem: text for the state's `last_problem`.
        flag: what the commit said of it, empty before.
    """

    entry: Entry
    verdict: Verdict
    source: str | None = None
    producer: str | None = None
    seq: int | None = None
    fields: Sequence[Argument] = ()
    jpeg: bytes | None = None
    problem: str | None = None
    flag: str = ""


@dataclass(frozen=True, slots=True)
class InputLimits:
    """The bounds that reading and committing inputs keep.

    Attributes:
        claim_idle_ms: an entry idle for longer belongs to nobody.
        backlog: undelivered live frames of a partition beyond which the oldest are shed.
        max_age_ms: a live frame older than this when it is read is of no use.
        ttl_s: how long a source is remembered.
        last_ttl_s: how long the newest frame is kept; 0 keeps none.
        results_keep: newest results kept of a partition.
    """

    claim_idle_ms: int = 30_000
    backlog: int = 256
    max_age_ms: int = 1000
    ttl_s: int = 86_400
    last_ttl_s: int = 60
    results_keep: int = 100_000
    dead_entries: int = 10_000
    dead_bytes: int = 256 * 2**20

    def for_commit(self) -> dict[str, int]:
        """Give the limits that the functions need."""
        return {
            "ttl_s": self.ttl_s,
            "last_ttl_s": max(1, self.last_ttl_s),
            "results_keep": self.results_keep,
            "dead_entries": self.dead_entries,
            "dead_bytes": self.dead_bytes,
        }


class PausedError(DependencyError):
    """Scoring is too far behind: detection waits instead of overwriting what it has not read."""


@dataclass(slots=True)
class _Stream:
    """One stream as this worker sees it; `siblings` are all streams of its partition.

    The streams of a partition are polled together or watched together, by one connection.
    `backlog` is how many live frames may wait: fewer, when those that were read were getting old.
    """

    partition: int
    name: str
    key: str
    siblings: list[_Stream]
    backlog: int
    drained: bool = False
    lag: int = 0
    last_seen: bytes = b"0-0"

    @property
    def is_polled(self) -> bool:
        """Whether something may wait in its partition."""
        return not all(stream.drained for stream in self.siblings)

    def adapt(self, age_ms: int, limits: InputLimits, count: int) -> None:
        """Let fewer frames wait when the oldest nears its limit, more while it is fresh."""
        if age_ms > AGEING * limits.max_age_ms:
            self.backlog = max(count, min(self.backlog, self.lag) * 3 // 4)
        else:
            self.backlog = min(limits.backlog, self.backlog + 1)


@dataclass(slots=True)
class Inputs:
    """Every input stream of the deployment, read as one consumer of the group `detect`."""

    store: Store
    consumer: str
    limits: InputLimits
    _partitions: list[list[_Stream]] = field(init=False)
    _streams: list[_Stream] = field(init=False)
    _wake: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    _drained: list[asyncio.Event] = field(init=False)
    _turn: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._partitions = []
        for partition in range(self.store.keys.partitions):
            keys, siblings = self.store.keys.of(partition), list[_Stream]()
            backlog = self.limits.backlog
            siblings += [
                _Stream(partition, n, getattr(keys, n), siblings, backlog) for n in STREAMS
            ]
            self._partitions.append(siblings)
        self._streams = [stream for siblings in self._partitions for stream in siblings]
        self._drained = [asyncio.Event() for _ in self._partitions]

    async def read(self, room: int) -> list[Entry]:
        """Read up to about `room` new entries without waiting, streams in turn."""
        entries: list[Entry] = []
        asked = 0
        while asked < len(self._streams) and (free := room - len(entries)) > 0:
            ready = self._next_in_turn(free)
            if not ready:
                break
            asked += len(ready)
            try:
                entries += await self._read_streams(ready, max(1, free // len(ready)))
            except DependencyError:
                if entries:
                    break  # what was read is ours now; the next read says it again
                raise
        return entries

    def _next_in_turn(self, count: int) -> list[_Stream]:
        """Give up to `count` streams that may have something, going on after the last ones."""
        ready: list[_Stream] = []
        for _ in range(len(self._streams)):
            stream = self._streams[self._turn]
            self._turn = (self._turn + 1) % len(self._streams)
            if stream.is_polled:
                ready.append(stream)
            if len(ready) == count:
                break
        return ready

    async def _read_streams(self, streams: list[_Stream], count: int) -> list[Entry]:
        commands: list[Sequence[Argument]] = []
        for stream in streams:
            commands.append(self.store.command("clock", [stream.key]))
            commands.append(self._read_command(stream, count))
            commands.append(("XINFO GROUPS", stream.key))
        answers = await self.store.run_many(commands)
        entries: list[Entry] = []
        failed: DependencyError | None = None
        rows = zip(streams, answers[::3], answers[1::3], answers[2::3], strict=True)
        for stream, now_ms, answer, groups in rows:
            if problem := next((a for a in (now_ms, answer) if isinstance(a, Exception)), None):
                failed = await self._repair(stream, problem) or failed
            if isinstance(answer, Exception):
                continue
            found = _rows(answer)
            is_known = not isinstance(now_ms, Exception)
            entries += _entries(stream, found, int(now_ms) if is_known else 0)
            self._note(stream, groups, len(found), count)
            if stream.name == "frames" and answer and is_known:
                oldest = _count_drops(answer[0]) or found[0][0]
                stream.adapt(int(now_ms) - id_ms(oldest), self.limits, count)
        if failed is not None and not entries:
            raise failed
        return entries

    def _read_command(self, stream: _Stream, count: int) -> Sequence[Argument]:
        if stream.name == "frames" and stream.lag > stream.backlog:
            keys = self.store.keys.of(stream.partition)
            names = [keys.frames, keys.ledger, keys.sources]
            limits = (stream.backlog, keys.base, self.limits.ttl_s, self.limits.max_age_ms)
            return self.store.command("shed", names, self.consumer, count, *limits)
        head = ("XREADGROUP", "GROUP", INPUT_GROUP, self.consumer)
        return (*head, "COUNT", count, "STREAMS", stream.key, ">")

    async def _repair(self, stream: _Stream, error: Exception) -> DependencyError | None:
        """Make what has gone; gives what is beyond repair, and the partitions beside it go on."""
        try:
            if "Function not found" in str(error):
                await self.store.load_functions()
            elif "NOGROUP" in str(error):
                await self.store.repair()
            else:
                return DependencyError(f"Redis: read {stream.key}: {error}")
        except DependencyError as failure:
            return failure
        return None

    def _note(self, stream: _Stream, groups: Any, found: int, count: int) -> None:
        if isinstance(groups, Exception):
            return
        for row in groups:
            group = pairs(row)
            if group["name"] == INPUT_GROUP.encode():
                stream.last_seen = group["last-delivered-id"]
                stream.lag = int(group["lag"] or 0)
                stream.drained = found < count and not stream.lag
        if not stream.is_polled:
            self._drained[stream.partition].set()

    async def wait(self, timeout_s: float) -> None:
        """Wait until a stream may have something, at most `timeout_s`."""
        if any(stream.is_polled for stream in self._streams):
            return
        self._wake.clear()
        try:
            await asyncio.wait_for(self._wake.wait(), timeout_s)
        except TimeoutError:
            return

    async def watch(self) -> None:
        """Notice new entries for ever; one blocking connection a partition."""
        async with asyncio.TaskGroup() as group:
            for siblings in self._partitions:
                group.create_task(self._watch_partition(siblings))

    async def _watch_partition(self, siblings: list[_Stream]) -> None:
        drained = self._drained[siblings[0].partition]
        while True:
            await drained.wait()
            try:
                found = await self.store.wait_for({s.key: s.last_seen for s in siblings})
            except DependencyError:
                await asyncio.sleep(random.uniform(0.2, 1.0))
                found = True  # the read that follows finds out what is the matter
            if found:
                drained.clear()
                for stream in siblings:
                    stream.drained = False
                self._wake.set()

    async def commit(self, outcomes: Sequence[Outcome]) -> list[str]:
        """Write results, state, ledger and acks of a batch; what was written stays when repeated.

        Returns:
            For each outcome `1` written, `0` done by others (nothing written), `D` duplicate.

        Raises:
            PausedError: scoring is too far behind in one partition; the others are written.
        """
        by_id = {id(outcome.entry): outcome for outcome in outcomes}
        failed: DependencyError | None = None
        for (partition, name), entries in by_stream(o.entry for o in outcomes).items():
            mine = [o for entry in entries if not (o := by_id[id(entry)]).flag]
            if not mine:
                continue
            try:
                await self._commit_stream(self.store.keys.of(partition), name, mine)
            except DependencyError as error:
                failed = error
        if failed is not None:
            raise failed
        return [outcome.flag for outcome in outcomes]

    async def _commit_stream(self, keys: PartitionKeys, name: str, outcomes: list[Outcome]) -> None:
        names = [getattr(keys, name), keys.detections, keys.dead, keys.ledger, keys.sources]
        items = [_item(outcome, names, keys) for outcome in outcomes]
        batch = {"stream": name, "limits": self.limits.for_commit(), "items": items}
        answer = await self.store.call("detect_commit", names, pack_arguments(batch))
        if answer[0] == b"PAUSED":
            raise PausedError(f"{keys.detections} holds all that scoring has left: waiting for it")
        if answer[0] != b"OK":
            raise DependencyError(f"Redis: commit of {name} refused: {answer!r}")
        for outcome, flag in zip(outcomes, answer[1].decode(), strict=True):
            outcome.flag = flag


def _rows(answer: Any) -> list[Raw]:
    """Give the entries of an XREADGROUP reply, shaped by redis-py, or of `shed`, raw."""
    if not answer:
        return []
    found = answer[0][1]
    if found and isinstance(found[0], list):
        return [(entry_id, flat_map(flat)) for entry_id, flat in found]
    return list(found)


def _count_drops(answer: Any) -> bytes | None:
    """Count what `shed` dropped; gives the oldest id that it saw, None for a plain read."""
    if len(answer) < 5:
        return None
    for reason, count in (("overflow", answer[2]), ("age", answer[3])):
        metrics.DROPS.labels("detect", reason).inc(count)
    oldest: bytes = answer[4]
    return oldest


def flat_map(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """Give the fields of an entry as they come from a function."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _entries(stream: _Stream, found: list[Raw], now_ms: int) -> list[Entry]:
    read_s = monotonic()
    return [
        Entry(stream.partition, stream.name, raw[0], raw[1], 1, now_ms - id_ms(raw[0]), read_s)
        for raw in found
    ]


def id_ms(entry_id: bytes) -> int:
    """Give the time part of an entry id, Unix ms."""
    return int(entry_id.partition(b"-")[0])


def by_stream(entries: Iterable[Entry]) -> dict[tuple[int, str], list[Entry]]:
    """Group entries by partition and stream."""
    groups: dict[tuple[int, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        groups[entry.partition, entry.stream].append(entry)
    return groups


def _item(outcome: Outcome, names: list[str], keys: PartitionKeys) -> dict[str, object]:
    """Give an outcome as the function wants it; appends the keys of its source to `names`."""
    item: dict[str, object] = {
        "id": outcome.entry.entry_id,
        "outcome": outcome.verdict.value,
        "fields": list(outcome.fields),
    }
    source = outcome.source
    if source is not None:
        item["source"], item["k"] = source, len(names) + 1
        names += [keys.state(source), keys.memory(source), keys.last(source)]
        names.append(keys.seen(source, outcome.producer or ""))
    for name in ("seq", "jpeg", "problem"):
        if (value := getattr(outcome, name)) is not None:
            item[name] = value
    return item
