"""Reading results as they come: any partitions, in order within each, from any cursor on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pipeline.errors import DependencyError, SettingsError
from pipeline.log import get_logger
from pipeline.results import KINDS, Kind, Position, Result, Stream, read_cursor, read_entry
from pipeline.stream import BLOCK_MS, Argument, Store
from pipeline.tasks import end_tasks
from pipeline.wire import Fields, id_key

log = get_logger()

OLDEST = "0"
_COUNT = 256
_PAUSE_S = (0.1, 2.0)
_CANCEL_S = 0.1

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Read:
    """One entry on its way to the reader, with the position it leads to."""

    stream: Stream
    entry_id: bytes
    fields: Fields
    position: Position
    missed: int


class Followers:
    """Everyone who reads results over one store; closing it ends them all."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open: set[_Inlet] = set()

    async def follow(
        self,
        partitions: Iterable[int],
        kinds: Sequence[Kind],
        after: str | None,
        source: str | None = None,
    ) -> AsyncGenerator[Result, None]:
        """Give results until closed, waiting out any outage.

        Args:
            partitions: which.
            kinds: which streams of them.
            after: a cursor; None for what comes from now on; "0" for all that is kept.
            source: whose results; of all by default.

        Raises:
            SettingsError: `after` is no cursor, or of another selection of streams.
        """
        streams = [(part, KINDS.index(kind)) for part in partitions for kind in kinds]
        positions = await _start(self._store, streams, after)
        inlet = _Inlet(self._store, positions)
        self._open.add(inlet)
        missed = 0
        try:
            while (reads := await inlet.arrived.get()) is not None:
                for read in reads:
                    positions = {**positions, read.stream: read.position}
                    missed += read.missed
                    result = read_entry(read.stream, read.entry_id, read.fields)
                    if result is None:
                        key = _key(self._store, read.stream)
                        log.warning("not_a_result", stream=key, id=read.entry_id.decode())
                    elif source in (None, result.source):
                        yield replace(result, positions=positions, missed=missed)
                        missed = 0
            inlet.check()
        finally:
            self._open.discard(inlet)
            await inlet.close()

    async def ends(
        self, partitions: Iterable[int], kinds: Sequence[Kind]
    ) -> dict[Stream, Position]:
        """Give where streams end now, waiting out any outage."""
        streams = [(part, KINDS.index(kind)) for part in partitions for kind in kinds]
        return await _start(self._store, streams, None)

    async def close(self) -> None:
        """End all iterations."""
        for inlet in list(self._open):
            await inlet.close()


class _Inlet:
    """The tasks that read for one follower: one, on a Cluster one for each partition."""

    def __init__(self, store: Store, positions: Mapping[Stream, Position]) -> None:
        self._store = store
        self.arrived: asyncio.Queue[list[Read] | None] = asyncio.Queue(1)
        groups: dict[int, dict[Stream, Position]] = {}
        for stream, position in positions.items():
            groups.setdefault(stream[0] if store.is_cluster else 0, {})[stream] = position
        self._tasks = [
            asyncio.create_task(self._fill(group), name=f"follow-{name}")
            for name, group in groups.items()
        ]

    async def _fill(self, positions: dict[Stream, Position]) -> None:
        try:
            while True:
                reads = await _patiently(lambda: _read(self._store, positions))
                positions.update((read.stream, read.position) for read in reads)
                if reads:
                    await self.arrived.put(reads)
        except Exception:
            await self.arrived.put(None)  # `check` tells the follower why
            raise

    def check(self) -> None:
        """Raise what ended a task."""
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()):
                raise error

    async def close(self) -> None:
        """End reading, and the iteration of a follower that is waiting."""
        await end_tasks(self._tasks)
        while not self.arrived.empty():
            self.arrived.get_nowait()
        self.arrived.put_nowait(None)


async def _start(
    store: Store, streams: Sequence[Stream], after: str | None
) -> dict[Stream, Position]:
    if after in (None, OLDEST):
        facts = await _patiently(lambda: _inspect(store, streams))
        return {
            stream: facts[stream].end if after is None else facts[stream].start
            for stream in streams
        }
    given = read_cursor(after or "")
    if missing := [stream for stream in streams if stream not in given]:
        raise SettingsError(f"the cursor does not cover {_key(store, missing[0])}")
    return {stream: given[stream] for stream in streams}


async def _read(store: Store, positions: Mapping[Stream, Position]) -> list[Read]:
    """Wait up to a second for entries of streams that one command may name."""
    by_key = {_key(store, stream): stream for stream in positions}
    ids = [f"{ms}-{seq}" for ms, seq, _ in positions.values()]
    head = ("XREAD", "COUNT", _COUNT, "BLOCK", BLOCK_MS, "STREAMS")
    answer = await store.run(*head, *by_key, *ids)
    found = {by_key[key.decode()]: entries for key, entries in answer or ()}
    facts = await _inspect(store, list(found))
    reads: list[Read] = []
    for stream, entries in found.items():
        reads += place(stream, entries, positions[stream], facts[stream])
    return reads


@dataclass(frozen=True, slots=True)
class Facts:
    """What Redis knows of a stream.

    Attributes:
        added: entries there ever were.
        kept: entries there are.
        first: id of the first one kept; in an empty stream the next after `last`.
        last: id of the newest there ever was.
    """

    added: int = 0
    kept: int = 0
    first: tuple[int, int] = (0, 0)
    last: tuple[int, int] = (0, 0)

    @property
    def start(self) -> Position:
        """Before the first entry that is kept."""
        return 0, 0, self.added - self.kept

    @property
    def end(self) -> Position:
        """After the newest entry."""
        return *self.last, self.added


async def _inspect(store: Store, streams: Sequence[Stream]) -> dict[Stream, Facts]:
    commands: list[Sequence[Argument]] = [("XINFO STREAM", _key(store, each)) for each in streams]
    answers = await store.run_many(commands)
    return {stream: _facts(answer) for stream, answer in zip(streams, answers, strict=True)}


def _facts(answer: Any) -> Facts:
    if isinstance(answer, Exception):
        if "no such key" in str(answer):
            return Facts()
        raise DependencyError(f"Redis: XINFO STREAM: {answer}") from answer
    last = id_key(answer["last-generated-id"])
    first = id_key(answer["first-entry"][0]) if answer["first-entry"] else (last[0], last[1] + 1)
    return Facts(answer["entries-added"], answer["length"], first, last)


def place(
    stream: Stream, entries: Sequence[tuple[bytes, Fields]], position: Position, facts: Facts
) -> list[Read]:
    """Number the entries read and tell how many were removed before them.

    An entry removed was removed from the head. Those that are gone by now number `added - kept`;
    of them we have read `position`'s and what of this reading lies before the first one kept.
    """
    keys = [id_key(entry_id) for entry_id, _ in entries]
    gone = facts.added - facts.kept
    read_of_gone = position[2] + sum(key < facts.first for key in keys)
    missed = max(0, gone - read_of_gone)
    ordinal = position[2] + missed
    if ordinal + len(entries) > facts.added:  # counted anew: the stream was deleted meanwhile
        missed, ordinal = max(1, missed), max(0, gone - sum(key < facts.first for key in keys))
    return [
        Read(stream, entry_id, fields, (*key, ordinal + n + 1), 0 if n else missed)
        for n, ((entry_id, fields), key) in enumerate(zip(entries, keys, strict=True))
    ]


async def _patiently(action: Callable[[], Awaitable[T]]) -> T:
    """Repeat an action until Redis is there, with growing pauses."""
    pause_s = _PAUSE_S[0]
    while True:
        try:
            return await action()
        except DependencyError as error:
            if pause_s == _PAUSE_S[0]:
                log.warning("redis_away", error=str(error))
        await asyncio.sleep(random.uniform(0, pause_s))
        pause_s = min(_PAUSE_S[1], 2 * pause_s)


def _key(store: Store, stream: Stream) -> str:
    key: str = getattr(store.keys.of(stream[0]), KINDS[stream[1]])
    return key
