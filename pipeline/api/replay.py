"""Results from before a listener came: after a cursor, or the newest that a source has in Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping
from contextlib import aclosing
from dataclasses import replace

from pipeline import metrics
from pipeline.api.feed import Feed, Gap, Listener
from pipeline.api.held import Item, Ring, make_item
from pipeline.errors import SettingsError
from pipeline.follow import Followers
from pipeline.partition import partition_of
from pipeline.results import (
    KINDS,
    Kind,
    Position,
    Result,
    Stream,
    read_cursor,
    read_entry,
    write_cursor,
)
from pipeline.stream import Store

PAGE = 500
MOST_READ = 5000
A_TURN = 200
_AT_ONCE = 4
_NO_PROGRESS_S = 2.0


class Replay:
    """What happened before, from memory if it is held, else from Redis."""

    def __init__(self, store: Store, followers: Followers, feed: Feed) -> None:
        self._store = store
        self._followers = followers
        self._feed = feed
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._filling: dict[tuple[str, int], asyncio.Task[Ring]] = {}

    def positions(self, cursor: str) -> Mapping[Stream, Position]:
        """Read a cursor of this deployment.

        Raises:
            SettingsError: it is none.
        """
        given = read_cursor(cursor)
        if given.keys() != self._feed.positions.keys():
            raise SettingsError("the cursor is not of this deployment")
        return given

    async def after(
        self, start: Mapping[Stream, Position], listener: Listener
    ) -> AsyncGenerator[Item | Gap, None]:
        """Give what a listener wants of the time between a cursor and its coming."""
        horizon = listener.since
        streams = self._streams_of(listener)
        held = self._feed.between(start, horizon, streams)
        metrics.API_LOOKUPS.labels("replay", "miss" if held is None else "hit").inc()
        if held is not None:
            for item in _with_cursors(held, start):
                if listener.wants(item.source, item.kind):
                    yield item
            return
        async with aclosing(self._read(start, horizon, streams, listener)) as earlier:
            while page := await self._page(earlier):
                for each in page:
                    yield each

    async def _page(self, earlier: AsyncGenerator[Item | Gap, None]) -> list[Item | Gap]:
        """Give the next of what is read, empty at the end; who is slow to take it keeps no turn."""
        page: list[Item | Gap] = []
        async with self._turns:
            async for each in earlier:
                page.append(each)
                if len(page) >= A_TURN:
                    break
        return page

    def _streams_of(self, listener: Listener) -> set[Stream]:
        streams = {each for each in self._feed.positions if KINDS[each[1]] in listener.kinds}
        if listener.sources is None:
            return streams
        count = self._store.keys.partitions
        parts = {partition_of(source, count) for source in listener.sources}
        return {each for each in streams if each[0] in parts}

    async def _read(
        self,
        start: Mapping[Stream, Position],
        horizon: Mapping[Stream, Position],
        streams: Collection[Stream],
        listener: Listener,
    ) -> AsyncGenerator[Item | Gap, None]:
        left = {each for each in streams if start[each][:2] < horizon[each][:2]}
        reached = dict(start)
        while left and not listener.is_closed:
            async with aclosing(self._arriving(left, listener.kinds, reached)) as results:
                async for result in results:
                    stream = int(result.id[1:4]), KINDS.index(result.kind)
                    position = result.positions[stream]
                    if position[:2] >= horizon[stream][:2]:
                        left.discard(stream)
                    if result.missed:
                        yield Gap("removed", {result.kind: result.missed})
                    reached[stream] = min(position, horizon[stream])
                    is_new = position[:2] > horizon[stream][:2]
                    if not is_new and listener.wants(result.source, result.kind):
                        yield make_item(replace(result, positions=dict(reached)), stream, position)
                    if not left:
                        return
            if gone := await self._settle(left, reached, horizon):
                yield Gap("removed", gone)

    async def _arriving(
        self,
        streams: Collection[Stream],
        kinds: Collection[Kind],
        reached: Mapping[Stream, Position],
    ) -> AsyncGenerator[Result, None]:
        """Give what comes after positions, until nothing does for a while."""
        parts = sorted({part for part, _ in streams})
        results = self._followers.follow(parts, sorted(kinds), write_cursor(reached))
        async with aclosing(results):
            while True:
                try:
                    async with asyncio.timeout(_NO_PROGRESS_S):
                        result = await anext(results)
                except (TimeoutError, StopAsyncIteration):
                    return
                yield result

    async def _settle(
        self,
        left: set[Stream],
        reached: dict[Stream, Position],
        horizon: Mapping[Stream, Position],
    ) -> dict[str, int]:
        """Take out of `left` what has nothing more up to `horizon`; gives how much was removed.

        Raises:
            DependencyError: Redis is away; the reader comes again with its cursor.
        """
        gone: dict[str, int] = {}
        for stream in sorted(left):
            key = getattr(self._store.keys.of(stream[0]), KINDS[stream[1]])
            low, high = (f"{ms}-{seq}" for ms, seq, _ in (reached[stream], horizon[stream]))
            if await self._store.run("XRANGE", key, f"({low}", high, "COUNT", 1):
                continue
            left.discard(stream)
            kind, missed = KINDS[stream[1]], horizon[stream][2] - reached[stream][2]
            reached[stream] = horizon[stream]
            if missed > 0:
                gone[kind] = gone.get(kind, 0) + missed
        return gone

    async def look_up(self, source: str) -> None:
        """Have the newest results of a source, of both kinds, be held."""
        await asyncio.gather(*(self.fill(source, kind) for kind in KINDS))

    async def fill(self, source: str, kind: Kind) -> Ring:
        """Look up what a source had before we followed; once for all who ask."""
        place = source, KINDS.index(kind)
        if place not in self._filling:
            task = asyncio.create_task(self._fill(*place), name="fill")
            self._filling[place] = task
            task.add_done_callback(lambda _: self._filling.pop(place, None))
        return await asyncio.shield(self._filling[place])

    async def _fill(self, source: str, kind: int) -> Ring:
        feed, held = self._feed, self._feed.held
        stream = partition_of(source, self._store.keys.partitions), kind
        ring = held.ring(source, kind)
        is_new = ring is None or not ring.items
        edge = feed.positions[stream] if is_new or ring is None else ring.items[0].position
        found, floor = await self._backwards(source, stream, edge, includes_edge=is_new)
        ring = held.ring(source, kind)
        if ring is not None and ring.items:  # came while we read; never twice
            first = ring.items[0].position[:2]
            found = [item for item in found if item.position[:2] < first]
        return held.fill(source, kind, found, floor)

    async def _backwards(
        self, source: str, stream: Stream, edge: Position, *, includes_edge: bool
    ) -> tuple[list[Item], Position]:
        """Give a source's results before a position, oldest first, and where looking ended."""
        key = getattr(self._store.keys.of(stream[0]), KINDS[stream[1]])
        name, found, at = source.encode(), [], edge
        ordinal = edge[2] if includes_edge else edge[2] - 1
        end = f"{edge[0]}-{edge[1]}" if includes_edge else f"({edge[0]}-{edge[1]}"
        for _ in range(MOST_READ // PAGE):
            page = await self._store.run("XREVRANGE", key, end, "-", "COUNT", PAGE)
            for entry_id, fields in page:
                ms, _, seq = entry_id.partition(b"-")
                at = int(ms), int(seq), max(0, ordinal)
                ordinal -= 1
                if fields.get(b"source") != name:
                    continue
                result = read_entry(stream, entry_id, fields)
                if result is not None:
                    found.append(make_item(result, stream, at))
            if len(page) < PAGE:
                return found[::-1], (0, 0, 0)
            end = f"({at[0]}-{at[1]}"
        return found[::-1], (at[0], at[1] - 1, max(0, at[2] - 1))

    async def forwards(
        self, source: str, kind: Kind, start: Position, limit: int
    ) -> tuple[list[Item], Position]:
        """Give a source's results after a position from Redis, and the position reached."""
        stream = partition_of(source, self._store.keys.partitions), KINDS.index(kind)
        key = getattr(self._store.keys.of(stream[0]), kind)
        name, at = source.encode(), start
        found: list[Item] = []
        for _ in range(MOST_READ // PAGE):
            low = f"({at[0]}-{at[1]}"
            page = await self._store.run("XRANGE", key, low, "+", "COUNT", PAGE)
            for entry_id, fields in page:
                ms, _, seq = entry_id.partition(b"-")
                at = int(ms), int(seq), at[2] + 1
                result = fields.get(b"source") == name and read_entry(stream, entry_id, fields)
                if result:
                    found.append(make_item(result, stream, at))
                    if len(found) == limit:
                        return found, at
            if len(page) < PAGE:
                break
        return found, at


def _with_cursors(items: list[Item], start: Mapping[Stream, Position]) -> Iterator[Item]:
    """Give items with cursors that go back behind `start` in no stream.

    Those they have do, unless the cursor came from another process that was ahead of this one.
    """
    first = items[0].positions if items else None
    if first is None or all(first[stream] >= at for stream, at in start.items()):
        yield from items
        return
    reached = dict(start)
    for item in items:
        reached[item.stream] = item.position
        fresh = dict(reached)
        yield replace(item, positions=fresh, _cursor=None, _event=None, _message=None)
