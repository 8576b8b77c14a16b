"""What a partition's feed remembers of sources, over a real Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgpack
import numpy as np
import pytest

from pipeline import score_stage
from pipeline.entries import InputLimits
from pipeline.ownership import Ownership
from pipeline.partition import Keys
from pipeline.score_stage import PartitionFeed, PartitionWork, ScoreLimits
from pipeline.scorer import PartitionScorer
from pipeline.scoring.engine import Engine
from pipeline.stream import Store
from pipeline.wire import id_key

KEYS = Keys(partitions=1)


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[Store]:
    async with Store.open(redis_url, KEYS) as store:
        yield store


async def start_feed(store: Store) -> tuple[PartitionFeed, PartitionScorer]:
    """Own the partition and begin to read it."""
    ownership = Ownership(store, "a", 60_000, InputLimits())
    owned = await ownership.acquire(0, 512)
    assert owned is not None
    scorer = PartitionScorer(Engine())
    feed = PartitionFeed(ownership, owned, scorer, ScoreLimits())
    await feed.start()
    return feed, scorer


async def test_a_source_that_left_the_memory_leaves_the_reader(
    store: Store, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_stage, "AUDIT_S", 0.0)
    monkeypatch.setattr(score_stage, "TICK_S", 0.0)
    feed, scorer = await start_feed(store)
    stop = asyncio.Event()

    async def turn(work: PartitionWork) -> None:
        if (batch := await feed.next_batch(stop)) is not None:
            await feed.commit(await work.handle(batch))

    with ThreadPoolExecutor(1) as thread:
        for source in ("here", "gone"):
            fields = {"source": source, "channel": "c", "value": "1"}
            await redis.xadd(KEYS.of(0).events, fields)
        await turn(PartitionWork(scorer, thread))
        await turn(PartitionWork(scorer, thread))
        assert sorted(feed._reader.sources) == ["gone", "here"]

        scorer._forget("gone")
        for _ in range(2):  # the silence of the other one takes a turn
            await turn(PartitionWork(scorer, thread))
        assert list(feed._reader.sources) == ["here"]


async def send_coupled_events(redis: Any, source: str) -> int:
    """Send 40 s of them, which make a level, up to now; gives now."""
    rng, drive, began_ms = np.random.default_rng(3), np.zeros(4), int(1000 * time.time())
    for k in range(-160, 0):
        drive = 0.9 * np.roll(drive, 1) + 0.44 * rng.standard_normal(4)
        values = {f"c{j}": float(x) for j, x in enumerate(rng.poisson(np.exp(1 + drive)))}
        fields = {"source": source, "values": msgpack.packb(values)}
        await redis.xadd(KEYS.of(0).events, fields | {"ts": began_ms + 250 * k})
    return began_ms


async def test_silence_shows_beside_a_source_that_never_rests(store: Store, redis: Any) -> None:
    """While inputs always wait, ticks take turns with them, and a source that fell silent ages."""
    feed, scorer = await start_feed(store)
    stop = asyncio.Event()
    began_ms = await send_coupled_events(redis, "fell-silent")
    shown, sent = 0, 0
    with ThreadPoolExecutor(1) as thread:
        work = PartitionWork(scorer, thread)
        while not shown and time.time() * 1000 < began_ms + 20_000:
            fields = {"source": "busy", "channel": "c", "value": "1"}
            await redis.xadd(KEYS.of(0).events, fields)
            sent += 1
            if (batch := await feed.next_batch(stop)) is not None:
                worked = await work.handle(batch)
                shown += 0 if batch.inputs else len(worked[1].scores)
                await feed.commit(worked)
    mine = [e for _, e in await redis.xrange(KEYS.of(0).scores) if e[b"source"] == b"fell-silent"]

    assert [entry[b"kind"] for entry in mine[-2:]] == [b"event", b"tick"]
    assert float(mine[-1][b"level"]) != float(mine[-2][b"level"])
    assert int(await redis.hget(KEYS.of(0).ledger, "events_scored")) >= 160 + sent - 2


def detected(frame: bytes, began_ms: int) -> dict[str, Any]:
    """Give what a detect worker writes of a recorded picture with nothing on it."""
    data = msgpack.packb({"model": "m@0", "width": 64, "height": 48, "objects": []})
    return {
        "v": 1,
        "source": "s",
        "ts": began_ms,
        "frame": frame,
        "stream": "recordings",
        "data": data,
    }


@pytest.mark.parametrize("is_delivered", [True, False])
async def test_a_frame_that_is_still_to_be_detected_is_no_silence(
    store: Store, redis: Any, *, is_delivered: bool
) -> None:
    """However long detection takes; when the frame is there, time passes again."""
    keys = KEYS.of(0)
    feed, scorer = await start_feed(store)
    stop = asyncio.Event()
    began_ms = await send_coupled_events(redis, "s")
    first, second = [await redis.xadd(keys.recordings, {"source": "s"}) for _ in "12"]
    group = ("detect", "d", {keys.recordings: ">"})
    await redis.xreadgroup(*group, count=2 if is_delivered else 1)
    await redis.xadd(keys.detections, detected(first, began_ms))
    await redis.xack(keys.recordings, "detect", first)

    with ThreadPoolExecutor(1) as thread:
        work = PartitionWork(scorer, thread)

        async def serve(until_ms: int) -> list[bytes]:
            kinds: list[bytes] = []
            while b"tick" not in kinds and time.time() * 1000 < until_ms:
                if (batch := await feed.next_batch(stop)) is not None:
                    await feed.commit(await work.handle(batch))
                kinds = [entry[b"kind"] for _, entry in await redis.xrange(keys.scores)]
            return kinds

        assert b"tick" not in (kinds := await serve(began_ms + 6000))
        assert b"frame" in kinds
        if not is_delivered:
            await redis.xreadgroup(*group)
        await redis.xack(keys.recordings, "detect", second)
        assert b"tick" in await serve(began_ms + 20_000)


async def test_detections_that_were_not_read_may_hold_an_earlier_frame(
    store: Store, redis: Any
) -> None:
    """Where there is no room for more, their end has not been seen."""
    ownership = Ownership(store, "a", 60_000, InputLimits())
    owned = await ownership.acquire(0, 512)
    assert owned is not None
    await redis.xadd(KEYS.of(0).detections, detected(b"1-0", 1))

    for counts, is_end in (((5, 0), False), ((5, 1), False), ((5, 2), True)):
        page = await ownership.read(owned, (b"0-0", b"0-0"), counts)
        assert page.is_end is is_end, counts


async def test_what_others_deleted_is_not_waited_for(store: Store, redis: Any) -> None:
    """Unread frames hold time up; where they were deleted, and the lag is not known, no more."""
    keys = KEYS.of(0)
    ownership = Ownership(store, "a", 60_000, InputLimits())
    owned = await ownership.acquire(0, 512)
    assert owned is not None
    first, *others = [await redis.xadd(keys.recordings, {"source": "s"}) for _ in "123"]
    await redis.xreadgroup("detect", "d", {keys.recordings: ">"}, count=1)
    await redis.xack(keys.recordings, "detect", first)

    async def pending() -> bytes | None:
        return (await ownership.read(owned, (b"0-0", b"0-0"), (5, 5))).pending["recordings"]

    assert id_key(first) < id_key(await pending() or b"0-0") <= id_key(others[0])
    await redis.xdel(keys.recordings, *others)
    groups = await redis.xinfo_groups(keys.recordings)
    assert [group["lag"] for group in groups if group["name"] == b"detect"] == [None]
    assert await pending() is None
