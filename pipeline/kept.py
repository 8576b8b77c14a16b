"""What Redis has taken and may lose again: kept until it is processed and copied.

A failover, a restart with a cut file, FLUSHALL or a deleted stream takes along writes that were
acknowledged. Each of them shows: the node's replication id, or the ledger of the partition, is not
the one it was. What is kept of the partition is then sent again under its old numbers, so that
what was not lost is dropped as a duplicate.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, NamedTuple

from pipeline.errors import DependencyError
from pipeline.log import get_logger
from pipeline.outbox import Outgoing
from pipeline.outgoing import Place
from pipeline.sequence import WINDOW
from pipeline.stream import INPUT_GROUP, SCORE_GROUP, Argument, Store, pairs, refusal

log = get_logger()

POLL_S = 0.5
ALONE_S = 30.0
"""Without a replica, processed entries are kept for so long: until the disk has them, and more."""
GROUPS = {"frames": INPUT_GROUP, "recordings": INPUT_GROUP, "events": SCORE_GROUP}

Id = tuple[int, int]


class Life(NamedTuple):
    """What changes when a partition may have lost writes: its node's history, and its ledger."""

    replication_id: str
    opened_ms: bytes | None
    epoch: bytes | None


@dataclass(slots=True)
class _Kept:
    """One entry; `entry` is None once it is released."""

    entry: Outgoing | None
    entry_id: Id


@dataclass(slots=True)
class _Done:
    """Entries that were processed when the node had written so far."""

    kept: list[_Kept]
    offset: int
    since_s: float


@dataclass(slots=True)
class _Partition:
    life: Life | None = None
    waiting: dict[str, deque[_Kept]] = field(default_factory=dict)
    done: deque[_Done] = field(default_factory=deque)

    def all(self) -> list[_Kept]:
        """Everything, oldest first within a stream."""
        found = [kept for done in self.done for kept in done.kept]
        return found + [kept for queue in self.waiting.values() for kept in queue]


class Keeper:
    """Keeps entries from their confirmation until a loss of them is hardly possible.

    Args:
        store: where they are.
        keep_bytes: how much is kept; beyond it the oldest are let go and counted in `unkept`.
        send_again: takes entries, in order, ahead of all others.
    """

    def __init__(
        self, store: Store, keep_bytes: int, send_again: Callable[[list[Outgoing]], None]
    ) -> None:
        self._store = store
        self._keep_bytes = keep_bytes
        self._send_again = send_again
        self._partitions = [_Partition() for _ in range(store.keys.partitions)]
        self._order: deque[_Kept] = deque()
        self._newest: dict[tuple[str, str], int] = {}
        self._filled, self._moved = asyncio.Event(), asyncio.Event()
        self._bytes = 0
        self.count = 0
        self.repeated = 0
        self.unkept = 0

    async def start(self) -> None:
        """Learn what the partitions are like before anything is sent.

        Raises:
            PercipioError: Redis is away, or does not let this user look.
        """
        await self._look(range(len(self._partitions)))

    def add(self, entry: Outgoing, entry_id: str) -> None:
        """Keep an entry that Redis has confirmed."""
        ms, _, number = entry_id.partition("-")
        kept = _Kept(entry, (int(ms), int(number)))
        draft = entry.draft
        place = draft.source, draft.stream
        self._newest[place] = max(entry.seq, self._newest.get(place, 0))
        waiting = self._partitions[draft.partition].waiting
        waiting.setdefault(draft.stream, deque()).append(kept)
        self._order.append(kept)
        self._bytes += draft.size_bytes
        self.count += 1
        while self._bytes > self._keep_bytes:
            if (oldest := self._order.popleft()).entry is not None:
                self._release(oldest)
                self.unkept += 1
        self._filled.set()

    def _release(self, kept: _Kept) -> None:
        if kept.entry is None:
            return
        self._bytes -= kept.entry.draft.size_bytes
        self.count -= 1
        kept.entry = None
        while self._order and self._order[0].entry is None:
            self._order.popleft()

    async def run(self) -> None:
        """Look after what is kept, for ever."""
        while True:
            await self._filled.wait()
            used = [n for n, partition in enumerate(self._partitions) if partition.all()]
            try:
                await self._look(used)
            except DependencyError as error:  # the outbox says it
                log.debug("not_looked_after", error=str(error), kept=self.count)
            if not self.count:
                self._filled.clear()
            self._moved.set()
            await asyncio.sleep(POLL_S)

    async def _look(self, numbers: Sequence[int]) -> None:
        """See how far partitions have come, then whether they are still the same."""
        places = [(stream, number) for number in numbers for stream in GROUPS]
        progress = await self._read_progress(places)
        ledgers = [self._store.keys.of(number).ledger for number in numbers]
        rows = await self._ask([("HMGET", key, "opened_ms", "epoch") for key in ledgers])
        nodes = await self._store.replication_of(ledgers)
        for number, row, node in zip(numbers, rows, nodes, strict=True):
            partition = self._partitions[number]
            life = Life(str(node["master_replid"]), row[0], row[1])
            if partition.life is not None and life != partition.life:
                self._repeat(number, partition)
            else:
                self._advance(number, partition, progress, node)
            partition.life = life

    async def _ask(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        answers = await self._store.run_many(commands)
        for answer, command in zip(answers, commands, strict=True):
            if isinstance(answer, Exception):
                raise refusal(answer, str(command[1])) from answer
        return answers

    async def _read_progress(self, places: Sequence[Place]) -> dict[Place, tuple[Id, Id | None]]:
        """Give the last id delivered and the first one pending of each stream that has a group."""
        commands: list[Sequence[Argument]] = []
        for stream, number in places:
            key = getattr(self._store.keys.of(number), stream)
            commands += [("XINFO GROUPS", key), ("XPENDING", key, GROUPS[stream])]
        answers = await self._store.run_many(commands)
        progress: dict[Place, tuple[Id, Id | None]] = {}
        for place, groups, pending in zip(places, answers[::2], answers[1::2], strict=True):
            problem = next((a for a in (groups, pending) if isinstance(a, Exception)), None)
            if problem is not None:
                if any(word in str(problem) for word in ("NOGROUP", "no such key")):
                    continue
                raise refusal(problem, place[0]) from problem
            row = next(g for g in map(pairs, groups) if g["name"] == GROUPS[place[0]].encode())
            first = pending["min"] if isinstance(pending, dict) else pending[1]
            progress[place] = _id(row["last-delivered-id"]), _id(first) if first else None
        return progress

    def _repeat(self, number: int, partition: _Partition) -> None:
        """Send again whatever is kept of a partition."""
        kept = sorted((k for k in partition.all() if k.entry is not None), key=lambda k: k.entry_id)
        again: list[Outgoing] = []
        for each in kept:
            entry = each.entry
            assert entry is not None
            newest = self._newest[entry.draft.source, entry.draft.stream]
            if newest - entry.seq < WINDOW:  # else it would be taken for a duplicate
                again.append(entry)
            else:
                self.unkept += 1
            self._release(each)
        partition.waiting.clear()
        partition.done.clear()
        self.repeated += len(again)
        if kept:
            text = "Redis may have lost writes: what is known is dropped as a duplicate"
            log.warning("sent_again", partition=number, entries=len(again), why=text)
        self._send_again(again)

    def _advance(
        self,
        number: int,
        partition: _Partition,
        progress: Mapping[Place, tuple[Id, Id | None]],
        node: Mapping[str, Any],
    ) -> None:
        """Let go of what is processed, and known to a replica to be."""
        now_s = monotonic()
        copied = _copied(node)
        while partition.done and (
            now_s - partition.done[0].since_s > ALONE_S
            if copied is None
            else copied >= partition.done[0].offset
        ):
            for kept in partition.done.popleft().kept:
                self._release(kept)
        for stream, queue in partition.waiting.items():
            last, pending = progress.get((stream, number), ((0, 0), None))
            done: list[_Kept] = []
            while (
                queue
                and queue[0].entry_id <= last
                and not (pending is not None and queue[0].entry_id >= pending)
            ):
                done.append(queue.popleft())
            if done:
                partition.done.append(_Done(done, int(node["master_repl_offset"]), now_s))

    async def settle(self, timeout_s: float) -> int:
        """Wait until nothing is kept any more; gives the number of entries that still are."""
        deadline_s = monotonic() + timeout_s
        while self.count and (left_s := deadline_s - monotonic()) > 0:
            self._moved.clear()
            try:
                await asyncio.wait_for(self._moved.wait(), left_s)
            except TimeoutError:
                break
        return self.count


def _copied(node: Mapping[str, Any]) -> int | None:
    """Give how far every replica in step has come; None when there is none."""
    replicas = [
        value for name, value in node.items() if name.startswith("slave") and name[5:].isdigit()
    ]
    offsets = [int(r["offset"]) for r in replicas if r.get("state") == "online"]
    return min(offsets, default=None)


def _id(text: bytes) -> Id:
    ms, _, number = text.partition(b"-")
    return int(ms), int(number)
