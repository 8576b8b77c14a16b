"""A partition's one owner: lease, cursors, reading behind them, the fenced commit."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.entries import InputLimits
from pipeline.errors import DependencyError, FencedError
from pipeline.log import get_logger
from pipeline.memory import Remembered
from pipeline.partition import PartitionKeys
from pipeline.stream import Argument, Raw, Store, as_entries, pack_arguments, pairs

FIRST_ID = b"0-0"


@dataclass(slots=True)
class Cursor:
    """How far the group `score` has come in one stream.

    Attributes:
        last_id: id of the last entry read.
        entries_read: how many entries have been read so far, Redis's `entries-read`.
    """

    last_id: bytes
    entries_read: int


@dataclass(slots=True)
class OwnedPartition:
    """A partition while this worker owns it.

    Attributes:
        commit: number of commits made so far; the next one must follow it.
        held: ids of detections entries that wait for an earlier frame, oldest first.
        stall: owners that died here without a commit: a sign of an entry that kills them.
        caution: most inputs that this owner should try at once for a while; 0 for no bound.
    """

    number: int
    keys: PartitionKeys
    epoch: int
    commit: int
    events: Cursor
    detections: Cursor
    held: list[bytes]
    stall: int = 0
    caution: int = 0


@dataclass(frozen=True, slots=True)
class Page:
    """What one read of a partition gave.

    Attributes:
        events: entries after the cursor, oldest first.
        detections: the same of the detections stream.
        is_end: detections were read to their end.
        pending: of frames and recordings an id that no frame is before that is still to be
            detected, None when there is none.
        now_ms: Redis's clock, read before the streams.
    """

    events: list[Raw]
    detections: list[Raw]
    is_end: bool
    pending: Mapping[str, bytes | None]
    now_ms: int


@dataclass(slots=True)
class SourceWrite:
    """What a commit writes of one source.

    Attributes:
        state: flat field, value list for the state hash.
        absent: fields to remove from it.
        memory: the same for the hash that remembers it; None when only a dead letter concerns it.
        seen_ms: when its newest input was added, Redis's clock.
        is_fresh: everything that is shown of it is in `state`; what is kept of it lives on.
        journal: added to the one that is kept; None where all that is remembered is in `memory`.
        add: counters of the state hash to raise.
    """

    name: str
    state: list[Argument]
    absent: list[str]
    memory: list[Argument] | None
    seen_ms: int
    is_fresh: bool = True
    journal: bytes | None = None
    add: dict[str, int] = field(default_factory=dict)
    problem: str | None = None


@dataclass(slots=True)
class ScoreCommit:
    """Everything that one commit changes together."""

    events: Cursor
    detections: Cursor
    held: list[bytes]
    held_span: int
    scores: list[list[Argument]] = field(default_factory=list)
    sources: list[SourceWrite] = field(default_factory=list)
    dead: list[list[Argument]] = field(default_factory=list)
    ledger: dict[str, int] = field(default_factory=dict)
    caution: int = 0


@dataclass(frozen=True, slots=True)
class Ownership:
    """The leases of one score worker.

    Attributes:
        me: unique name of this worker's run.
        lease_ms: a partition whose owner has not committed or renewed for so long is free.
        alone: held while a batch is tried that may end this process.
    """

    store: Store
    me: str
    lease_ms: int
    limits: InputLimits
    alone: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def beat(self) -> list[str]:
        """Say that we live; gives the names of all who do."""
        names = await self.store.call("beat", [self.store.keys.workers], self.me, self.lease_ms)
        return [name.decode() for name in names]

    async def leave(self) -> None:
        """Say that we go, so that others take over at once."""
        await self.store.run("ZREM", self.store.keys.workers, self.me)

    async def acquire(self, number: int, full: int) -> OwnedPartition | None:
        """Take a partition; None while another owner's lease holds.

        Args:
            number: of the partition.
            full: inputs of a full batch.
        """
        keys = self.store.keys.of(number)
        names = [keys.owner, keys.events, keys.detections, keys.held]
        answer = await self.store.call("acquire", names, self.me, self.lease_ms, full)
        if answer[0] == b"NOGROUP":
            await self.store.repair()
            return None
        if answer[0] != b"OK":
            return None
        epoch, commit, events, events_read, detections, detections_read, held = answer[1:8]
        return OwnedPartition(
            number,
            keys,
            int(epoch),
            int(commit),
            Cursor(events, int(events_read)),
            Cursor(detections, int(detections_read)),
            held.split() if held else [],
            stall=int(answer[8]),
            caution=int(answer[9]),
        )

    async def attempt(self, owned: OwnedPartition) -> None:
        """Say, before the work, that inputs are tried where an owner has died.

        Raises:
            FencedError: somebody else owns the partition now.
        """
        keys = owned.keys
        names = [keys.owner, keys.events, keys.detections, keys.held]
        answer = await self.store.call("attempt", names, self.me, owned.epoch)
        if answer[0] != b"OK":
            raise FencedError(f"partition {owned.number}: epoch {owned.epoch} has ended")

    async def renew(self, owned: OwnedPartition) -> None:
        """Extend the lease.

        Raises:
            FencedError: somebody else owns the partition now.
        """
        answer = await self.store.call(
            "renew", [owned.keys.owner], self.me, owned.epoch, self.lease_ms
        )
        if answer[0] != b"OK":
            raise FencedError(f"partition {owned.number}: epoch {owned.epoch} has ended")

    async def release(self, owned: OwnedPartition, *, clean: bool = True) -> None:
        """Give the partition back; not `clean` counts as if the owner had died of its work."""
        await self.store.call("release", [owned.keys.owner], self.me, owned.epoch, int(clean))

    async def read(
        self, owned: OwnedPartition, after: tuple[bytes, bytes], counts: tuple[int, int]
    ) -> Page:
        """Read entries of events and detections after the ids given, without waiting.

        Args:
            owned: the partition.
            after: of events and detections the last id that has been read.
            counts: most entries to read of each; 0 reads none.
        """
        keys = owned.keys
        mark = self.store.command("watermark", [keys.frames, keys.recordings])
        ranges = _ranges(keys, after, counts)
        if self.store.is_cluster:  # its pipelines may send a part again, out of order
            answers = await self.store.run_many([mark]) + await self.store.run_many(ranges)
        else:
            answers = await self._exchange(mark, ranges)
        for answer in answers:
            if isinstance(answer, Exception):
                await self._repair(owned, answer)
        return _page(answers[0], answers[1:], counts)

    async def _exchange(
        self, command: tuple[Argument, ...], ranges: list[tuple[Argument, ...]]
    ) -> list[Any]:
        answer, *found = await self.store.exchange([command, *ranges])
        return [answer, *(f if isinstance(f, Exception) else as_entries(f) for f in found)]

    async def _repair(self, owned: OwnedPartition, error: Exception) -> None:
        if "Function not found" in str(error):
            await self.store.load_functions()
        if "NOGROUP" in str(error) or "no such key" in str(error):
            await self.store.repair()
            raise FencedError(f"partition {owned.number}: {error}") from error
        raise DependencyError(f"Redis: read partition {owned.number}: {error}") from error

    async def fetch_held(self, owned: OwnedPartition) -> list[Raw]:
        """Give all detections entries from the oldest held one to the cursor."""
        if not owned.held:
            return []
        span = (owned.held[0], owned.detections.last_id)
        found: list[Raw] = await self.store.run("XRANGE", owned.keys.detections, *span)
        return found

    async def recall(
        self, owned: OwnedPartition, sources: Sequence[str]
    ) -> list[Remembered | None]:
        """Give what is remembered of sources, None for one that is not."""
        commands = [("HMGET", owned.keys.memory(source), *Remembered._fields) for source in sources]
        found: list[Remembered | None] = []
        for source, answer in zip(sources, await self.store.run_many(commands), strict=True):
            if not isinstance(answer, Exception):
                found.append(None if None in answer else Remembered(*answer))
                continue
            if "WRONGTYPE" not in str(answer):
                raise DependencyError(f"Redis: recall {source}: {answer}") from answer
            get_logger().error("memory_unreadable", source=source, error=str(answer))
            found.append(None)
        return found

    async def facts(self, owned: OwnedPartition, sources: Sequence[str]) -> list[bytes | None]:
        """Give the `facts` of sources, None where nothing readable is remembered.

        Raises:
            DependencyError: Redis does not answer one of the reads.
        """
        commands = [("HGET", owned.keys.memory(source), "facts") for source in sources]
        found: list[bytes | None] = []
        for source, answer in zip(sources, await self.store.run_many(commands), strict=True):
            if isinstance(answer, Exception) and "WRONGTYPE" not in str(answer):
                raise DependencyError(f"Redis: recall {source}: {answer}") from answer
            found.append(answer if isinstance(answer, bytes) else None)
        return found

    async def remembered(self, owned: OwnedPartition) -> list[str]:
        """Give the names of all sources of the partition."""
        names = await self.store.run("ZRANGE", owned.keys.sources, 0, -1)
        return [name.decode() for name in names]

    async def missing(self, owned: OwnedPartition, detections: Cursor) -> tuple[int, int]:
        """Count entries of events and detections that others removed before they were read.

        Only right when all that was read of events is committed, and `detections` is how far
        those have been read.
        """
        answers = await self.store.run_many(
            [("XINFO STREAM", key) for key in (owned.keys.events, owned.keys.detections)]
        )
        lost = []
        for answer, cursor in zip(answers, (owned.events, detections), strict=True):
            if isinstance(answer, Exception):
                await self._repair(owned, answer)
            info = pairs(answer)
            at_end = info["last-generated-id"] == cursor.last_id or not info["length"]
            gap = int(info["entries-added"]) - cursor.entries_read
            lost.append(max(0, gap) if at_end else 0)
        return lost[0], lost[1]

    async def commit(
        self,
        owned: OwnedPartition,
        batch: ScoreCommit,
        after: tuple[bytes, bytes] | None = None,
        counts: tuple[int, int] = (0, 0),
    ) -> tuple[list[str], Page | None]:
        """Write a batch whole or not at all; safe to repeat after a lost reply.

        Args:
            owned: the partition.
            batch: what to write.
            after: read on behind these ids in the same round trip, as `read` does.
            counts: as of `read`.

        Returns:
            Sources whose memory others have removed: it must be written whole the next time; and
            what was read, None where it was not.

        Raises:
            FencedError: another owner, or the cursor is not where this one left it.
        """
        keys = owned.keys
        names = [keys.owner, keys.events, keys.detections, keys.scores, keys.dead, keys.ledger]
        names += [keys.sources, keys.held, keys.frames, keys.recordings]
        payload = pack_arguments(self._payload(owned, batch, names))
        call = ("score_commit", names, self.me, owned.epoch, owned.commit, payload)
        answer, page = None, None
        if after is not None and not self.store.is_cluster:
            command = self.store.command(*call)
            answer, *found = await self._exchange(command, _ranges(keys, after, counts))
            page = _page_of_commit(answer, found, counts)
        if answer is None or isinstance(answer, Exception):
            answer = await self.store.call(*call)
        if answer[0] in (b"BADTYPE", b"BADARGS"):
            raise DependencyError(f"Redis: commit of partition {owned.number} refused: {answer!r}")
        if answer[0] not in (b"OK", b"DUP"):
            raise FencedError(f"partition {owned.number}, epoch {owned.epoch}: {answer!r}")
        owned.commit += 1
        owned.events, owned.detections, owned.held = batch.events, batch.detections, batch.held
        return [name.decode() for name in answer[2:]], page

    def _payload(
        self, owned: OwnedPartition, batch: ScoreCommit, names: list[str]
    ) -> dict[str, Any]:
        detections = _move(owned.detections, batch.detections)
        detections["safe"] = batch.held[0] if batch.held else batch.detections.last_id
        detections["held"] = batch.held_span
        return {
            "lease_ms": self.lease_ms,
            "limits": self.limits.for_commit(),
            "events": _move(owned.events, batch.events),
            "detections": detections,
            "held": b" ".join(batch.held),
            "caution": batch.caution,
            "scores": batch.scores,
            "sources": [_source(write, owned.keys, names) for write in batch.sources],
            "dead": batch.dead,
            "ledger": batch.ledger,
        }


def _ranges(
    keys: PartitionKeys, after: tuple[bytes, bytes], counts: tuple[int, int]
) -> list[tuple[Argument, ...]]:
    return [
        ("XRANGE", key, b"(" + last_id, "+", "COUNT", max(1, count))
        for key, last_id, count in zip((keys.events, keys.detections), after, counts, strict=True)
    ]


def _page(marks: Sequence[bytes], found: Sequence[list[Raw]], counts: tuple[int, int]) -> Page:
    events, detections = found
    return Page(
        events if counts[0] else [],
        detections if counts[1] else [],
        len(detections) < counts[1],
        {"frames": marks[1] or None, "recordings": marks[2] or None},
        int(marks[0]),
    )


def _page_of_commit(answer: Any, found: Sequence[Any], counts: tuple[int, int]) -> Page | None:
    """Give what was read with a commit; None where the commit or a part of the read failed."""
    if any(isinstance(each, Exception) for each in (answer, *found)):
        return None
    if answer[0] != b"OK" or not answer[1]:
        return None
    return _page(answer[1], found, counts)


def _move(old: Cursor, new: Cursor) -> dict[str, Any]:
    return {
        "prev": old.last_id,
        "next": new.last_id,
        "read": new.entries_read,
        "moved": (old.last_id, old.entries_read) != (new.last_id, new.entries_read),
    }


def _source(write: SourceWrite, keys: PartitionKeys, names: list[str]) -> list[Any]:
    """Give the row of a source; its places are named in functions.lua."""
    k = len(names) + 1
    names += [keys.state(write.name), keys.memory(write.name)]
    journal = False if write.journal is None else write.journal
    row = [write.name, k, write.seen_ms, write.is_fresh, journal, write.state]
    return [*row, write.memory or False, write.absent or False, write.add or False, write.problem]
