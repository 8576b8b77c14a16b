"""What a partition's feed remembers of sources, over a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pipeline import score_stage
from pipeline.entries import InputLimits
from pipeline.ownership import Ownership
from pipeline.partition import Keys
from pipeline.score_stage import PartitionFeed, PartitionWork, ScoreLimits
from pipeline.scorer import PartitionScorer
from pipeline.scoring.engine import Engine
from pipeline.stream import Store

KEYS = Keys(partitions=1)


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[Store]:
    async with Store.open(redis_url, KEYS) as store:
        yield store


async def test_a_source_that_left_the_memory_leaves_the_reader(
    store: Store, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_stage, "AUDIT_S", 0.0)
    monkeypatch.setattr(score_stage, "TICK_S", 0.0)
    ownership = Ownership(store, "a", 60_000, InputLimits())
    owned = await ownership.acquire(0, 512)
    assert owned is not None
    scorer, stop = PartitionScorer(Engine()), asyncio.Event()
    feed = PartitionFeed(ownership, owned, scorer, ScoreLimits())
    await feed.start()

    async def turn(work: PartitionWork) -> None:
        batch = await feed.next_batch(stop)
        assert batch is not None
        await feed.commit(await work.handle(batch))

    with ThreadPoolExecutor(1) as thread:
        for source in ("here", "gone"):
            fields = {"source": source, "channel": "c", "value": "1"}
            await redis.xadd(KEYS.of(0).events, fields)
        await turn(PartitionWork(scorer, thread))
        await turn(PartitionWork(scorer, thread))
        assert sorted(feed._reader.sources) == ["gone", "here"]

        scorer._forget("gone")
        await turn(PartitionWork(scorer, thread))
        assert list(feed._reader.sources) == ["here"]
