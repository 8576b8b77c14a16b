"""Following results: in order, from any cursor on, over outages, and nothing missed in silence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from pipeline import Client, Result, SyncClient
from pipeline.embedded import EmbeddedRedis
from pipeline.errors import SettingsError
from pipeline.partition import Keys
from pipeline.results import Kind
from tests.conftest import eventually

KEYS = Keys()


@pytest.fixture
async def deployment(redis: Redis, redis_url: str) -> str:
    await redis.hset(KEYS.config, mapping={"partitions": 16, "contract": 1})
    return redis_url


@pytest.fixture
async def client(deployment: str) -> AsyncIterator[Client]:
    async with Client(deployment) as client:
        yield client


async def add(redis: Any, source: str, n: int, kind: Kind = "scores", **options: Any) -> None:
    stream = getattr(KEYS.of_source(source), kind)
    fields = {"v": 1, "source": source, "ts": n, "n": n, "level": "0.5000", "phase": "active"}
    await redis.xadd(stream, fields, **options)


async def take(
    client: Client,
    count: int,
    source: str | None = None,
    kind: Kind | None = None,
    after: str | None = "0",
) -> list[Result]:
    taken: list[Result] = []
    async with aclosing(client.follow(source, kind=kind, after=after)) as results:
        async for result in results:
            taken.append(result)
            if len(taken) == count:
                break
    return taken


async def test_all_sources_over_all_partitions(client: Client, redis: Redis) -> None:
    for n in range(60):
        await add(redis, f"s{n % 9}", n, "scores" if n % 2 else "detections")

    results = await take(client, 60)

    assert sorted(result.ts_ms for result in results) == list(range(60))
    for source in {result.source for result in results}:
        for kind in ("scores", "detections"):
            mine = [r.ts_ms for r in results if (r.source, r.kind) == (source, kind)]
            assert mine == sorted(mine)
    assert {result.missed for result in results} == {0}


async def test_one_source_and_one_kind(client: Client, redis: Redis) -> None:
    neighbour = next(f"x{n}" for n in range(999) if KEYS.of_source(f"x{n}").base == KEYS.of(7).base)
    for n in range(10):
        await add(redis, "robot-7", n)
        await add(redis, "robot-7", n, "detections")
        await add(redis, neighbour, n)

    results = await take(client, 10, "robot-7", "scores")

    assert [(r.source, r.kind, r.ts_ms) for r in results] == [
        ("robot-7", "scores", n) for n in range(10)
    ]
    assert results[0].fields["level"] == 0.5


async def test_a_cursor_goes_on_after_any_result(client: Client, redis: Redis) -> None:
    for n in range(40):
        await add(redis, f"s{n % 9}", n, "scores" if n % 2 else "detections")
    everything = await take(client, 40)

    for cut in (0, 7, 25, 38):
        rest = await take(client, 39 - cut, after=everything[cut].cursor)
        assert {r.id for r in rest} == {r.id for r in everything[cut + 1 :]}


async def test_from_now_on_by_default(client: Client, redis: Redis) -> None:
    await add(redis, "robot-7", 1)
    taking = asyncio.create_task(take(client, 2, after=None))
    await eventually(lambda: _is_blocked(redis))
    await add(redis, "robot-7", 2)
    await add(redis, "cam", 3)

    assert [result.ts_ms for result in await taking] == [2, 3]


async def _is_blocked(redis: Any) -> bool:
    return bool((await redis.info("clients"))["blocked_clients"])


async def test_what_was_trimmed_past_the_cursor_is_told(client: Client, redis: Redis) -> None:
    for n in range(5):
        await add(redis, "robot-7", n)
    [*_, last] = await take(client, 3)
    for n in range(5, 30):
        await add(redis, "robot-7", n)
    await redis.xtrim(KEYS.of(7).scores, maxlen=10, approximate=False)

    results = await take(client, 10, after=last.cursor)

    assert [result.ts_ms for result in results] == list(range(20, 30))
    assert [result.missed for result in results] == [17] + [0] * 9
    assert results[0].as_json()["missed"] == 17


async def test_a_stream_that_was_deleted_is_told(client: Client, redis: Redis) -> None:
    for n in range(5):
        await add(redis, "robot-7", n)
    [*_, last] = await take(client, 5)
    await redis.delete(KEYS.of(7).scores)
    await add(redis, "robot-7", 9)

    [result] = await take(client, 1, after=last.cursor)

    assert (result.ts_ms, result.missed) == (9, 1)


async def test_entries_that_are_no_results_are_passed_over(client: Client, redis: Redis) -> None:
    await redis.xadd(KEYS.of(7).scores, {"garbage": b"\xff"})
    await redis.xadd(KEYS.of(7).scores, {"source": "x", "ts": "1", "data": b"\xc1"})
    await add(redis, "robot-7", 1)

    [result] = await take(client, 1)

    assert (result.source, result.missed) == ("robot-7", 0)


async def test_wrong_arguments_are_named(client: Client) -> None:
    with pytest.raises(SettingsError, match="source"):
        client.follow("a b")
    with pytest.raises(SettingsError, match="takes detections or scores"):
        client.follow(kind="frames")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="is not a cursor"):
        await take(client, 1, after="nonsense")


async def test_a_cursor_of_one_source_does_not_cover_another(client: Client, redis: Redis) -> None:
    await add(redis, "robot-7", 1)
    [result] = await take(client, 1, "robot-7")

    with pytest.raises(SettingsError, match=r"does not cover percipio:\{p008\}:detections"):
        await take(client, 1, "cam", after=result.cursor)


async def test_closing_the_client_ends_who_waits(deployment: str, redis: Redis) -> None:
    client = await Client(deployment).__aenter__()
    taking = asyncio.create_task(take(client, 1))
    await eventually(lambda: _is_blocked(redis))

    await client.close()

    assert await taking == []


async def test_an_outage_is_waited_out(tmp_path: Path) -> None:
    with EmbeddedRedis(folder=tmp_path / "r") as server:
        async with Redis.from_url(server.url) as redis:
            await redis.hset(KEYS.config, mapping={"partitions": 16, "contract": 1})
            await add(redis, "robot-7", 1)
        async with Client(server.url) as client, aclosing(client.follow(after="0")) as results:
            first = await anext(results)
            server.crash()
            with EmbeddedRedis(folder=tmp_path / "r") as again:
                async with Redis.from_url(again.url) as redis:
                    await add(redis, "robot-7", 2)
                second = await asyncio.wait_for(anext(results), 20)
                await client.close()

    assert (first.ts_ms, second.ts_ms, second.missed) == (1, 2, 0)


async def test_the_sync_twin_follows(deployment: str, redis: Redis) -> None:
    for n in range(3):
        await add(redis, "robot-7", n)

    def follow() -> list[Result]:
        with SyncClient(deployment) as client:
            results = client.follow("robot-7", after="0")
            first = [next(results), next(results)]
            results.close()
            return [*first, next(client.follow(after=first[-1].cursor, source="robot-7"))]

    assert [result.ts_ms for result in await asyncio.to_thread(follow)] == [0, 1, 2]
