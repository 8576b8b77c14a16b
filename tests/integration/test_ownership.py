"""Partitions and their owners: leases, fences, commits that are repeated, owners that die."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from pipeline.entries import InputLimits
from pipeline.errors import FencedError
from pipeline.ledger import read_status
from pipeline.memory import Remembered
from pipeline.ownership import Cursor, OwnedPartition, Ownership, ScoreCommit, SourceWrite
from pipeline.partition import Keys
from pipeline.stream import Argument, Store
from tests.conftest import eventually

KEYS = Keys(partitions=1)
NAMES = KEYS.of(0)
LONG_MS = 60_000
FULL = 512


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[Store]:
    async with Store.open(redis_url, KEYS) as store:
        yield store


async def _own(
    store: Store, name: str, lease_ms: int = LONG_MS
) -> tuple[Ownership, OwnedPartition]:
    ownership = Ownership(store, name, lease_ms, InputLimits())
    owned = await ownership.acquire(0, FULL)
    assert owned is not None
    return ownership, owned


async def _event(redis: Any) -> bytes:
    entry_id: bytes = await redis.xadd(NAMES.events, {"source": "s", "channel": "c", "value": "1"})
    return entry_id


def _commit(owned: OwnedPartition, last: bytes, count: int = 1) -> ScoreCommit:
    events = Cursor(last, owned.events.entries_read + count)
    ledger = {"events_scored": count}
    scores: list[list[Argument]] = [["v", 1, "source", "s"]]
    return ScoreCommit(events, owned.detections, [], 0, scores, [], [], ledger)


async def test_a_commit_whose_reply_was_lost_is_recognised(store: Store, redis: Any) -> None:
    last = await _event(redis)
    ownership, owned = await _own(store, "a")
    number = owned.commit

    await ownership.commit(owned, _commit(owned, last))
    owned.commit, owned.events = number, Cursor(b"0-0", 0)
    await ownership.commit(owned, _commit(owned, last))

    assert await redis.xlen(NAMES.scores) == 1
    assert await redis.xlen(NAMES.events) == 0
    assert (await read_status(store)).is_balanced


async def test_an_owner_keeps_others_out(store: Store) -> None:
    ownership, owned = await _own(store, "a")
    other = Ownership(store, "b", LONG_MS, InputLimits())

    assert await other.acquire(0, FULL) is None
    await ownership.release(owned)
    assert await other.acquire(0, FULL) is not None


async def test_an_owner_that_was_replaced_writes_nothing(store: Store, redis: Any) -> None:
    last = await _event(redis)
    paused, old = await _own(store, "a", 1)
    await eventually(lambda: Ownership(store, "b", LONG_MS, InputLimits()).acquire(0, FULL))

    with pytest.raises(FencedError):
        await paused.commit(old, _commit(old, last))
    with pytest.raises(FencedError):
        await paused.renew(old)
    assert await redis.xlen(NAMES.scores) == 0


async def test_a_lease_from_before_the_clock_went_back_is_over(store: Store, redis: Any) -> None:
    await _own(store, "a", 1000)
    later_ms = await store.now_ms() + 3_600_000
    await redis.hset(NAMES.owner, "expires_ms", str(later_ms))

    assert (await _own(store, "b", 1000))[1].epoch == 2


async def test_a_cursor_that_moved_refuses_the_commit(store: Store, redis: Any) -> None:
    last = await _event(redis)
    ownership, owned = await _own(store, "a")
    await redis.xgroup_setid(NAMES.events, "score", last)

    with pytest.raises(FencedError, match="CONFLICT"):
        await ownership.commit(owned, _commit(owned, last))


async def test_only_owners_that_tried_count_as_dead_of_it(store: Store, redis: Any) -> None:
    """Each death with work in hand makes the batch smaller; those that say they try are counted."""
    await _event(redis)
    found = []
    for number in range(6):
        ownership, owned = await _own(store, f"owner-{number}")
        found.append((owned.stall, owned.caution))
        if number not in (0, 2):
            await ownership.attempt(owned)
        await redis.hset(NAMES.owner, "expires_ms", "0")

    assert found == [(0, 0), (0, 64), (1, 8), (1, 8), (2, 1), (3, 1)]


async def test_an_idle_partition_counts_no_deaths(store: Store, redis: Any) -> None:
    for number in range(3):
        _, owned = await _own(store, f"owner-{number}")
        await redis.hset(NAMES.owner, "expires_ms", "0")

    assert (owned.stall, owned.caution) == (0, 0)


async def test_a_commit_ends_the_count(store: Store, redis: Any) -> None:
    last = await _event(redis)
    for name in ("a", "b", "c"):
        ownership, owned = await _own(store, name)
        await ownership.attempt(owned)
        await redis.hset(NAMES.owner, "expires_ms", "0")
    assert owned.stall == 1

    await ownership.commit(owned, _commit(owned, last))
    await redis.hset(NAMES.owner, "expires_ms", "0")
    _, owned = await _own(store, "d")

    assert (owned.stall, owned.caution) == (0, 0)


async def test_a_destroyed_group_is_made_at_the_cursor(store: Store, redis: Any) -> None:
    first, second = await _event(redis), await _event(redis)
    ownership, owned = await _own(store, "a")
    await ownership.commit(owned, _commit(owned, first))
    await redis.xgroup_destroy(NAMES.events, "score")

    await store.repair()
    _, owned = await _own(store, "b")

    assert (owned.events.last_id, owned.events.entries_read) == (first, 1)
    assert [row[0] for row in await redis.xrange(NAMES.events)] == [second]


async def test_a_deleted_stream_opens_a_new_epoch_of_the_ledger(store: Store, redis: Any) -> None:
    ids = [await _event(redis) for _ in range(5)]
    ownership, owned = await _own(store, "a")
    await ownership.commit(owned, _commit(owned, ids[1], 2))
    await redis.delete(NAMES.events)
    await _event(redis)

    await store.repair()

    status = (await read_status(store)).as_json()
    assert status["epochs"] == 1
    assert status["ledger"]["events_lost_trimmed"] == 3
    assert status["difference"]["events"] == status["in_flight"] == 1


async def test_a_worker_that_gave_a_sign_in_the_future_is_forgotten(
    store: Store, redis: Any
) -> None:
    later_ms = await store.now_ms() + 3_600_000
    await redis.zadd(KEYS.workers, {"dead": later_ms})

    assert await Ownership(store, "a", 1000, InputLimits()).beat() == ["a"]


async def test_a_memory_that_others_removed_is_asked_for_whole(store: Store, redis: Any) -> None:
    """A write of what has changed cannot stand alone; what is kept lives on all the same."""
    ownership, owned = await _own(store, "a")
    whole: list[Argument] = ["facts", b"f", "journal", b"", "state", b"s"]
    part: list[Argument] = ["facts", b"f"]
    kept: dict[str, Any] = {"state": ["ts", 1], "absent": [], "seen_ms": 1}
    first = SourceWrite("s", memory=whole, **kept)
    later = SourceWrite("s", memory=part, is_fresh=False, journal=b"j", **kept)

    async def write(source: SourceWrite) -> list[str]:
        commit = _commit(owned, await _event(redis))
        commit.sources = [source]
        return (await ownership.commit(owned, commit))[0]

    assert await write(first) == []
    assert await write(later) == []
    assert await write(later) == []
    assert await ownership.recall(owned, ["s", "t"]) == [Remembered(b"s", b"jj", b"f"), None]
    await redis.delete(NAMES.memory("s"))
    assert await write(later) == ["s"]
    assert await redis.ttl(NAMES.memory("s")) > 0
    assert await ownership.recall(owned, ["s"]) == [None]
    await redis.set(NAMES.memory("s"), "of a stranger")
    assert await ownership.recall(owned, ["s"]) == [None]
    assert await write(first) == []
    assert await ownership.recall(owned, ["s"]) == [Remembered(b"s", b"", b"f")]
