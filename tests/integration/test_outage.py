"""What becomes of entries while Redis is away: kept in order, sent once, or counted as lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from redis.asyncio import Redis

from pipeline import Client, Event
from pipeline.embedded import EmbeddedRedis
from pipeline.errors import DependencyError
from pipeline.partition import Keys
from pipeline.sequence import SeenNumbers
from pipeline.wire import EventEntry, read_event
from tests.conftest import eventually
from tests.integration.proxy import Proxy, a_proxy

KEYS = Keys()
EVENTS = KEYS.of(7).events


@pytest.fixture
async def proxy(redis: Redis, one_server_url: str) -> AsyncIterator[Proxy]:
    await redis.hset(KEYS.config, mapping={"partitions": 16, "contract": 1})
    async with a_proxy(one_server_url) as proxy:
        yield proxy


async def numbers_in(redis: Any, stream: str = EVENTS) -> list[int]:
    return [int(fields[b"seq"]) for _, fields in await redis.xrange(stream)]


async def events_in(redis: Any) -> list[EventEntry]:
    return [read_event(entry_id, fields, 7, 16) for entry_id, fields in await redis.xrange(EVENTS)]


async def test_a_lost_reply_makes_one_entry_that_counts(proxy: Proxy, redis: Any) -> None:
    """Redis has it, the answer is lost: sent again under its number, a duplicate to be dropped."""
    async with Client(proxy.url) as client:
        await client.publish_event("robot-7", {"n": 0})
        proxy.swallow = 1
        await client.publish_event("robot-7", {"n": 1})
        await client.publish_event("robot-7", {"n": 2})
        await client.flush()

    seen = SeenNumbers()
    entries = await events_in(redis)
    assert [e.envelope.seq for e in entries] == [0, 1, 1, 2]
    assert [e.values["n"] for e in entries if seen.accept(e.envelope.seq or 0)] == [0, 1, 2]


async def test_a_lost_reply_to_a_batch_loses_and_reorders_nothing(proxy: Proxy, redis: Any) -> None:
    async with Client(proxy.url) as client:
        await client.heartbeat("robot-7")
        proxy.swallow = 1
        await client.publish_events([Event("robot-7", {"n": n}) for n in range(300)])

    seen = SeenNumbers()
    assert [n for n in await numbers_in(redis) if seen.accept(n)] == list(range(301))


async def test_a_cut_connection_is_made_again(proxy: Proxy, redis: Any) -> None:
    async with Client(proxy.url) as client:
        for n in range(20):
            if n % 5 == 0:
                proxy.cut()
            assert await client.publish_event("robot-7", {"n": n})

    assert sorted(set(await numbers_in(redis))) == list(range(20))


async def test_a_half_open_socket_does_not_hold_the_publisher(
    proxy: Proxy, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.outbox.CONFIRM_S", 0.2)
    async with Client(proxy.url) as client:
        await client.publish_event("robot-7", {"n": 0})
        proxy.is_stalled = True
        ids = await client.publish_events([Event("robot-7", {"n": n}) for n in (1, 2)])
        problem, unsent = client.problem, client.unsent
        proxy.is_stalled = False
        proxy.cut()
        assert await client.flush(20) == 0

    assert (ids, problem, unsent) == (["", ""], "Redis: no answer within 0.2 s", 2)
    seen = SeenNumbers()
    assert [n for n in await numbers_in(redis) if seen.accept(n)] == [0, 1, 2]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    options = ["appendfsync always"]  # acknowledged is kept, however slow the disk is
    with EmbeddedRedis(folder=tmp_path / "r", options=options) as server:
        yield server


@pytest.fixture
async def url(server: EmbeddedRedis) -> str:
    async with Redis.from_url(server.url) as redis:
        await redis.hset(KEYS.config, mapping={"partitions": 16, "contract": 1})
    return server.url


async def test_an_outage_is_buffered_and_sent_in_order(
    server: EmbeddedRedis, url: str, tmp_path: Path
) -> None:
    async with Client(url) as client:
        before = await client.publish_event("robot-7", {"n": 0})
        server.crash()
        began_ms = client.now_ms()
        ids = [await client.publish_event("robot-7", {"n": n}) for n in range(1, 300)]
        assert (set(ids), client.unsent) == ({""}, 299)
        assert client.problem
        with EmbeddedRedis(folder=tmp_path / "r"):
            assert await client.flush(20) == 0
            after = await client.publish_event("robot-7", {"n": 300})
            async with Redis.from_url(url) as redis:
                entries = await events_in(redis)
            assert client.lost == 0
            assert not client.problem
            await client.close()

    assert before
    assert after
    assert [e.values["n"] for e in entries] == list(range(301))
    assert [e.envelope.seq for e in entries] == list(range(301))
    kept_ms = [e.envelope.ts_ms for e in entries[1:300]]
    assert kept_ms == sorted(kept_ms)
    assert began_ms - 5 <= kept_ms[0] < int(after.partition("-")[0])


async def test_beyond_the_buffer_loss_is_counted_and_told(
    server: EmbeddedRedis, url: str, tmp_path: Path
) -> None:
    told: list[tuple[str, str, str]] = []
    client = Client(url, buffer_bytes=4000, on_loss=lambda *loss: told.append(loss))
    async with client:
        await client.publish_event("robot-7", {"n": 0})
        server.crash()
        for n in range(1, 101):
            await client.publish_event("robot-7", {"n": n})
        kept, lost = client.unsent, client.lost
        with EmbeddedRedis(folder=tmp_path / "r"):
            assert await client.flush(20) == 0
            async with Redis.from_url(url) as redis:
                found = await numbers_in(redis)
            await client.close()

    assert kept + lost == 100
    assert 10 < kept < 30
    assert found == list(range(1 + kept))
    assert client.lost == lost == len(told)
    assert told[0] == ("robot-7", "events", "the buffer is full and Redis away")


async def test_live_frames_make_room_for_newer_ones(
    server: EmbeddedRedis, url: str, tmp_path: Path
) -> None:
    frame = np.zeros((64, 64, 3), np.uint8)
    async with Client(url, buffer_bytes=20_000) as client:
        await client.publish_frame("robot-7", frame, live=True)
        server.crash()
        for _ in range(60):
            await client.publish_frame("robot-7", frame, live=True)
        with EmbeddedRedis(folder=tmp_path / "r"):
            assert await client.flush(20) == 0
            async with Redis.from_url(url) as redis:
                found = await numbers_in(redis, KEYS.of(7).frames)
            await client.close()

    assert client.lost + len(found) == 61
    assert client.lost > 5
    assert found[-10:] == list(range(51, 61))


async def test_a_publisher_may_wait_for_room_instead(
    server: EmbeddedRedis, url: str, tmp_path: Path
) -> None:
    async with Client(url, buffer_bytes=4000, wait_for_room=True) as client:
        await client.publish_event("robot-7", {"n": 0})
        server.crash()
        await client.publish_event("robot-7", {"n": 1})
        publishing = asyncio.create_task(
            client.publish_events([Event("robot-7", {"n": n}) for n in range(2, 101)])
        )
        await eventually(lambda: client.unsent > 10)
        assert not publishing.done()
        with EmbeddedRedis(folder=tmp_path / "r"):
            assert len(await publishing) == 99
            assert await client.flush(20) == 0
            async with Redis.from_url(url) as redis:
                found = await numbers_in(redis)
            await client.close()

    assert found == list(range(101))
    assert client.lost == 0


async def test_without_a_buffer_publishing_raises(server: EmbeddedRedis, url: str) -> None:
    async with Client(url, buffer_bytes=0) as client:
        await client.publish_event("robot-7", {"n": 0})
        server.crash()
        with pytest.raises(DependencyError, match="Redis"):
            await client.publish_event("robot-7", {"n": 1})

    assert (client.sent, client.lost, client.unsent) == (1, 0, 0)


async def test_closing_counts_what_could_not_be_sent(server: EmbeddedRedis, url: str) -> None:
    client = await Client(url).__aenter__()
    await client.publish_event("robot-7", {"n": 0})
    server.crash()
    for n in range(1, 5):
        await client.publish_event("robot-7", {"n": n})
    await client.close(timeout_s=0.1)

    assert (client.sent, client.lost, client.unsent) == (1, 4, 0)
