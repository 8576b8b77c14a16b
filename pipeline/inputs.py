"""The detect group over `frames` and `recordings`: what is new is read, what is done committed.

Shared by any number of workers; entries are acked one by one and the ack gates the write.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from pipeline import metrics
from pipeline.entries import (
    STREAMS,
    Entry,
    InputLimits,
    Outcome,
    by_stream,
    flat_map,
    id_ms,
    pack_outcome,
)
from pipeline.errors import DependencyError
from pipeline.partition import PartitionKeys
from pipeline.stream import INPUT_GROUP, Argument, Raw, Store, pack_arguments, pairs
from pipeline.wire import id_key

UNKNOWN = 1 << 40
"""Redis cannot tell a lag where entries among those it has delivered were removed; `shed` can."""
PROBE_S = 0.02
"""How often a stream is asked that had nothing, while another of its partition has."""
AGEING = 0.75
"""Live frames that wait for more than this share of their limit are a sign of overload."""


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
    asked_s: float = 0.0
    lag: int = 0
    last_seen: bytes = b"0-0"

    def is_due(self, now_s: float) -> bool:
        """Whether the next read should ask it."""
        return not self.drained or (self.is_polled and now_s - self.asked_s >= PROBE_S)

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
    _broken: BaseException | None = field(init=False, default=None)

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
        """Read up to about `room` new entries without waiting, streams in turn.

        Raises:
            Exception: what ended a task of `watch`: its partition would never be read again.
        """
        if self._broken is not None:
            raise self._broken
        entries: list[Entry] = []
        asked = 0
        while asked < len(self._streams) and (free := room - len(entries)) > 0:
            ready = self._next_in_turn(free, monotonic())
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

    def _next_in_turn(self, count: int, now_s: float) -> list[_Stream]:
        """Give up to `count` streams that may have something, going on after the last ones."""
        ready: list[_Stream] = []
        for _ in range(len(self._streams)):
            stream = self._streams[self._turn]
            self._turn = (self._turn + 1) % len(self._streams)
            if stream.is_due(now_s):
                stream.asked_s = now_s
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
                stream.lag = UNKNOWN if group["lag"] is None else int(group["lag"])
                stream.drained = found < count and not group["lag"]
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

    def watch(self) -> list[asyncio.Task[None]]:
        """Begin to notice new entries; one blocking connection, and one task, a partition.

        Whoever began it ends each of them with `end_tasks`: a group of tasks would cancel them
        once, which redis-py may lose.
        """
        watching = [asyncio.create_task(self._watch_partition(s)) for s in self._partitions]
        for task in watching:
            task.add_done_callback(self._note_end)
        return watching

    def _note_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            self._broken = task.exception()

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
        outcomes.sort(key=lambda outcome: id_key(outcome.entry.entry_id))
        newest = {outcome.source: outcome for outcome in outcomes if outcome.jpeg is not None}
        items = [
            pack_outcome(outcome, names, keys, is_shown=newest.get(outcome.source) is outcome)
            for outcome in outcomes
        ]
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


def _entries(stream: _Stream, found: list[Raw], now_ms: int) -> list[Entry]:
    read_s = monotonic()
    return [
        Entry(stream.partition, stream.name, raw[0], raw[1], 1, now_ms - id_ms(raw[0]), read_s)
        for raw in found
    ]
