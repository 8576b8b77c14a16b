"""The one follower of all results, and everybody who listens to it.

It reads each result once, however many listen; a listener that is slow loses its oldest results
and is told which, and never holds up another.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from pipeline import metrics
from pipeline.api.held import Held, Item, make_item
from pipeline.follow import Followers
from pipeline.partition import Keys, partition_of
from pipeline.results import KINDS, Kind, Position, Result, Stream, write_cursor

QUEUE = 256
_AGES = 1024
RECENT = 8192

Allows = Callable[[str], bool]
"""Tells whether somebody may see a source."""


@dataclass(slots=True)
class Gap:
    """What a listener missed: how many results of which kinds, and of which span if known."""

    why: str
    counts: dict[str, int] = field(default_factory=dict)
    first: str | None = None
    last: str | None = None

    def add(self, item: Item) -> None:
        """Count a result that was dropped."""
        self.counts[item.kind] = self.counts.get(item.kind, 0) + 1
        self.first, self.last = self.first or item.id, item.id

    def as_json(self) -> dict[str, Any]:
        """Give it for JSON."""
        span = {"first": self.first, "last": self.last} if self.first else {}
        return {"missed": sum(self.counts.values()), "why": self.why} | self.counts | span


class Listener:
    """One reader of the feed, with what waits for it.

    Args:
        sources: only these; None for all.
        kinds: only these.
        allows: which of them it may see.
    """

    def __init__(
        self, sources: frozenset[str] | None, kinds: Collection[Kind], allows: Allows
    ) -> None:
        self.sources = sources
        self.kinds = frozenset(kinds)
        self.since: Mapping[Stream, Position] = {}
        """What arrives after these positions is offered to it."""
        self._allows = allows
        self._queue: deque[Item | Gap] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self.is_closed = False

    def wants(self, source: str, kind: Kind) -> bool:
        """Tell whether a result is for it."""
        return (
            kind in self.kinds
            and (self.sources is None or source in self.sources)
            and self._allows(source)
        )

    def offer(self, item: Item | Gap) -> None:
        """Put a result in its queue; a full queue loses its oldest."""
        queue = self._queue
        if len(queue) >= QUEUE:
            self._lose(1 if isinstance(queue[0], Gap) else 0)
        queue.append(item)
        self.wake()

    def _lose(self, index: int) -> None:
        lost = self._queue[index]
        del self._queue[index]
        if not isinstance(lost, Item):
            self._queue.insert(index, lost)
            return
        if not index:
            self._queue.appendleft(Gap("slow"))
        gap = self._queue[0]
        if isinstance(gap, Gap):
            gap.add(lost)
        metrics.API_MISSED.inc()

    def wake(self) -> None:
        """Let `take` look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        """End it: `take` gives None from now on."""
        self.is_closed = True
        self.wake()

    async def take(self, timeout_s: float) -> Sequence[Item | Gap] | None:
        """Wait for results and give all there are; none after the time, None at the end."""
        if not self._queue and not self.is_closed:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(timeout_s, self.wake)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
        if self.is_closed:
            return None
        taken = list(self._queue)
        self._queue.clear()
        return taken


class Feed:
    """All results from when it started on.

    Args:
        followers: reads them.
        keys: of the deployment.
        held_bytes: most memory for what is held.
        quiet_ms: a source without a result for so long is gone.
    """

    def __init__(self, followers: Followers, keys: Keys, held_bytes: int, quiet_ms: int) -> None:
        self.held = Held(most_bytes=held_bytes, quiet_ms=quiet_ms)
        self.positions: Mapping[Stream, Position] = {}
        """Up to where everything has arrived."""
        self._followers = followers
        self._parts = range(keys.partitions)
        self.told: list[Callable[[str], object]] = []
        """Are told the source of each result."""
        self.scored: list[Callable[[str, int, Mapping[str, Any]], object]] = []
        """Are told of each score: source, time of the entry in ms, fields."""
        self._all: set[Listener] = set()
        self._of_source: dict[str, set[Listener]] = {}
        self._recent: deque[Item] = deque()
        self._floor: dict[Stream, Position] = {}
        self._cursor: tuple[Mapping[Stream, Position], str] = ({}, "")
        self._ages_ms: dict[Kind, deque[int]] = {kind: deque(maxlen=_AGES) for kind in KINDS}

    async def start(self) -> None:
        """Note where all streams end: from there on nothing is missing here."""
        self.positions = await self._followers.ends(self._parts, KINDS)
        self._floor = dict(self.positions)
        self.held.floors = dict(self.positions)

    async def run(self) -> None:
        """Follow until the followers are closed."""
        results = self._followers.follow(self._parts, KINDS, write_cursor(self.positions))
        async with aclosing(results):
            async for result in results:
                self._arrive(result)

    @property
    def cursor(self) -> str:
        """Where reading goes on after everything that has arrived."""
        if self._cursor[0] is not self.positions:
            self._cursor = self.positions, write_cursor(self.positions)
        return self._cursor[1]

    def freshness(self) -> dict[Kind, dict[str, int]]:
        """Give percentiles of the time from an input to its result, of the newest 1,024, in ms."""
        return {kind: _percentiles(ages) for kind, ages in self._ages_ms.items() if ages}

    @property
    def listeners(self) -> set[Listener]:
        """Everybody who listens."""
        return self._all.union(*self._of_source.values())

    def close(self) -> None:
        """End all listeners."""
        for listener in self.listeners:
            listener.close()

    @contextmanager
    def listening(
        self, sources: frozenset[str] | None, kinds: Collection[Kind], allows: Allows
    ) -> Iterator[Listener]:
        """Give a listener for everything that arrives from now on."""
        listener = Listener(sources, kinds, allows)
        listener.since = self.positions
        groups = [self._all]
        if sources is not None:
            groups = [self._of_source.setdefault(source, set()) for source in sources]
        for group in groups:
            group.add(listener)
        try:
            yield listener
        finally:
            for group in groups:
                group.discard(listener)
            for source in sources or ():
                if not self._of_source.get(source, True):
                    del self._of_source[source]

    def _arrive(self, result: Result) -> None:
        stream = int(result.id[1:4]), KINDS.index(result.kind)
        position = result.positions[stream]
        item = make_item(result, stream, position)
        self.positions = result.positions
        metrics.API_FOLLOWED.observe(max(0.0, time.time() - position[0] / 1e3))
        if (age_ms := _age_ms(result, position)) is not None:
            self._ages_ms[result.kind].append(age_ms)
        if result.missed:
            self._tell_missed(item, result.missed)
        self.held.put(item, result.fields)
        self._remember(item)
        for tell in self.told:
            tell(item.source)
        if result.kind == "scores":
            for note in self.scored:
                note(item.source, position[0], result.fields)
        for group in (self._all, self._of_source.get(item.source, ())):
            for listener in group:
                if listener.wants(item.source, item.kind):
                    listener.offer(item)

    def _remember(self, item: Item) -> None:
        self._recent.append(item)
        if len(self._recent) > RECENT:
            old = self._recent.popleft()
            self._floor[old.stream] = old.position
            old.age()

    def _tell_missed(self, item: Item, count: int) -> None:
        """Tell everybody whom it may concern of results that were removed before we read them."""
        for listener in self.listeners:
            parts = {partition_of(name, len(self._parts)) for name in listener.sources or ()}
            if item.kind in listener.kinds and (not parts or item.stream[0] in parts):
                listener.offer(Gap("removed", {item.kind: count}))

    def between(
        self,
        start: Mapping[Stream, Position],
        end: Mapping[Stream, Position],
        streams: Collection[Stream],
    ) -> list[Item] | None:
        """Give the recent results of streams after `start`, up to `end`.

        Returns:
            None when `start` is older than what is held.
        """
        if any(start[stream][:2] < self._floor[stream][:2] for stream in streams):
            return None
        first = bisect_left(self._recent, True, key=lambda item: _is_beyond(item, start))
        return [
            item
            for item in islice(self._recent, first, None)
            if item.stream in streams
            and start[item.stream][:2] < item.position[:2] <= end[item.stream][:2]
        ]


def _is_beyond(item: Item, start: Mapping[Stream, Position]) -> bool:
    reached = item.positions or {}
    return any(reached[stream][:2] > at[:2] for stream, at in start.items())


def _age_ms(result: Result, position: Position) -> int | None:
    """Give how old an input was when its result came; None for what has none, or is unclear."""
    entry = result.fields.get("frame" if result.kind == "detections" else "last")
    ms = entry.partition("-")[0] if isinstance(entry, str) else ""
    return max(0, position[0] - int(ms)) if ms.isdecimal() else None


def _percentiles(ages_ms: Collection[int]) -> dict[str, int]:
    ordered = sorted(ages_ms)
    return {
        f"p{percent}_ms": ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
        for percent in (50, 95, 99)
    }
