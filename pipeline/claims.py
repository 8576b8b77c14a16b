"""Entries delivered and not finished: ours are kept, those of silent workers taken over.

Redis counts the deliveries, so a worker that dies of an entry has counted that too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from time import monotonic
from typing import Any

from pipeline.entries import STREAMS, Entry, by_stream, flat_map, id_ms
from pipeline.errors import DependencyError
from pipeline.stream import Argument, Store

SWEEP = 256
"""Streams looked at in one pass; more take turns."""
HAND_BACK_MS = 86_400_000
PRUNE_IDLES = 10

Place = tuple[int, str]
"""Partition and stream."""


@dataclass(slots=True)
class Claims:
    """What one consumer of the group `detect` does beside reading.

    Attributes:
        idle_ms: an entry idle for longer belongs to nobody.
        full: entries of a full batch.
    """

    store: Store
    consumer: str
    idle_ms: int
    full: int
    _places: Iterator[Place] = field(init=False)

    def __post_init__(self) -> None:
        self._places = self._in_turn()

    def _in_turn(self) -> Iterator[Place]:
        while True:
            for partition in range(self.store.keys.partitions):
                for name in STREAMS:
                    yield partition, name

    def _next_places(self) -> list[Place]:
        count = min(SWEEP, self.store.keys.partitions * len(STREAMS))
        return list(islice(self._places, count))

    def _key(self, place: Place) -> str:
        key: str = getattr(self.store.keys.of(place[0]), place[1])
        return key

    async def take(self, *, own: bool = False) -> list[Entry]:
        """Take over entries of one stream that belong to nobody; counts a delivery each.

        Args:
            own: those that this consumer left when it ran before, however short ago; only right
                while it has nothing in work.

        Returns:
            As many as may be handled together: the fewer, the more often they were tried.
        """
        idle_ms = 0 if own else self.idle_ms
        args: tuple[Argument, ...] = (self.consumer, idle_ms, self.full, int(own))
        places = self._next_places()
        found = await self._ask("claimable", places, *args)
        for place, is_some in found:
            if is_some:
                answer = await self.store.call("claim", [self._key(place)], *args)
                if entries := _claimed(place, answer):
                    return entries
        return []

    async def _ask(
        self, name: str, places: Sequence[Place], *args: Argument
    ) -> list[tuple[Place, Any]]:
        """Call a function on several streams; leaves out those that cannot be reached."""
        commands = [self.store.command(name, [self._key(place)], *args) for place in places]
        answers = await self.store.run_many(commands)
        failures = [answer for answer in answers if isinstance(answer, Exception)]
        if any("Function not found" in str(failure) for failure in failures):
            await self.store.load_functions()
        elif answers and len(failures) == len(answers):
            raise DependencyError(f"Redis: {name}: {failures[0]}")
        rows = zip(places, answers, strict=True)
        return [(place, answer) for place, answer in rows if not isinstance(answer, Exception)]

    async def renew(self, entries: Iterable[Entry]) -> None:
        """Keep entries in work from being taken over, without counting a delivery."""
        await self._set_idle(entries, 0)

    async def hand_back(self, entries: Iterable[Entry]) -> None:
        """Let others take entries over at once."""
        await self._set_idle(entries, HAND_BACK_MS)

    async def _set_idle(self, entries: Iterable[Entry], idle_ms: int) -> None:
        for place, mine in by_stream(entries).items():
            ids = [entry.entry_id for entry in mine]
            await self.store.call("renew_entries", [self._key(place)], self.consumer, idle_ms, *ids)

    async def audit(self) -> int:
        """Count what others removed, and drop consumers long gone that own nothing."""
        places = self._next_places()
        lost = 0
        commands = []
        for partition, name in places:
            key, ledger = self._key((partition, name)), self.store.keys.of(partition).ledger
            commands.append(self.store.command("detect_audit", [key, ledger], name))
        for answer in await self.store.run_many(commands):
            lost += 0 if isinstance(answer, Exception) else int(answer)
        await self._ask("prune", places, self.consumer, PRUNE_IDLES * self.idle_ms)
        return lost


def _claimed(place: Place, answer: Any) -> list[Entry]:
    now_ms, read_s = int(answer[0]), monotonic()
    return [
        Entry(*place, entry_id, flat_map(flat), count, now_ms - id_ms(entry_id), read_s)
        for entry_id, count, flat in answer[1:]
    ]
