"""The fixtures that other tests lean on: an empty Redis each, workers that end with their test."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from tests.conftest import Worker, eventually


@pytest.mark.parametrize("turn", [1, 2])
async def test_each_test_finds_an_empty_redis(redis: Redis, turn: int) -> None:
    assert await redis.dbsize() == 0

    await redis.set("left", turn)


@pytest.mark.usefixtures("one_server_url")
async def test_a_worker_finds_the_redis_of_the_test(worker: Worker, redis: Redis) -> None:
    process = worker("tests.integration.scripted", {"PERCIPIO_CONSUMER": "me"}, "leave_name")

    await eventually(lambda: process.poll() is not None)

    assert process.returncode == 0
    assert await redis.get("name") == b"me"


async def test_waiting_in_vain_fails_with_the_last_reason() -> None:
    def never() -> None:
        raise AssertionError("one is not more")

    with pytest.raises(pytest.fail.Exception, match="one is not more"):
        await eventually(never, timeout_s=0.05)


async def test_what_becomes_true_is_waited_for() -> None:
    seen: list[int] = []

    async def third() -> bool:
        seen.append(len(seen))
        return len(seen) == 3

    await eventually(third)

    assert len(seen) == 3
