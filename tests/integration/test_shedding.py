"""Live frames under overload: the oldest go, fairly over sources, counted in the same step."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pipeline import inputs as inputs_module
from pipeline.entries import Entry, InputLimits
from pipeline.inputs import Inputs
from pipeline.ledger import PartitionStatus, read_status
from pipeline.partition import Keys
from pipeline.stream import Store

KEYS = Keys(partitions=1)
NAMES = KEYS.of(0)


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[Store]:
    async with Store.open(redis_url, KEYS) as store:
        yield store


@pytest.fixture(autouse=True)
def _always_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every read asks the recordings too, so that how many frames it takes is known."""
    monkeypatch.setattr(inputs_module, "PROBE_S", 0.0)


def _inputs(store: Store, backlog: int, max_age_ms: int = 60_000) -> Inputs:
    return Inputs(store, "a", InputLimits(backlog=backlog, max_age_ms=max_age_ms))


async def _add(redis: Any, sources: str, entry_id: str = "*") -> None:
    for source in sources:
        await redis.xadd(NAMES.frames, {"source": source, "image": b"x"}, id=entry_id)


async def _read(inputs: Inputs, count: int) -> list[Entry]:
    """Read frames: half of the room is for recordings."""
    return await inputs.read(2 * count)


def _sources(entries: list[Entry]) -> str:
    return "".join(entry.fields[b"source"].decode() for entry in entries)


async def _status(store: Store) -> PartitionStatus:
    return (await read_status(store)).partitions[0]


async def test_beyond_the_bound_the_oldest_are_dropped(store: Store, redis: Any) -> None:
    await _add(redis, "a" * 12)
    ids = [entry_id for entry_id, _ in await redis.xrange(NAMES.frames)]
    inputs = _inputs(store, backlog=4)
    first = await _read(inputs, 1)

    kept = await _read(inputs, 2)

    assert [entry.entry_id for entry in first + kept] == [ids[0], ids[8], ids[9]]
    status = await _status(store)
    assert status.terms["frames_dropped_overflow"] == 7
    assert (status.streams["frames"].lag, status.streams["frames"].pending) == (2, 3)
    assert int(await redis.hget(NAMES.state("a"), "frames_dropped")) == 7


async def test_what_is_too_old_makes_room_for_what_is_not(store: Store, redis: Any) -> None:
    old_ms = await store.now_ms() - 5000
    await _add(redis, "aaaaaaaa", f"{old_ms}-*")
    await _add(redis, "bcd")
    inputs = _inputs(store, backlog=1, max_age_ms=1000)
    await _read(inputs, 1)

    kept = await _read(inputs, 3)

    assert sorted(_sources(kept)) == ["b", "c", "d"]
    status = await _status(store)
    assert status.terms["frames_dropped_age"] == 7
    assert status.terms["frames_dropped_overflow"] == 0
    assert (status.streams["frames"].lag, status.streams["frames"].pending) == (0, 4)


async def test_each_source_keeps_its_newest(store: Store, redis: Any) -> None:
    await _add(redis, "xaaabbbcc")
    ids = [entry_id for entry_id, _ in await redis.xrange(NAMES.frames)]
    inputs = _inputs(store, backlog=0)
    await _read(inputs, 1)

    kept = await _read(inputs, 3)

    assert [entry.entry_id for entry in kept] == [ids[3], ids[6], ids[8]]


async def test_one_that_sends_most_does_not_take_all(store: Store, redis: Any) -> None:
    found = Counter[str]()
    for _ in range(60):
        inputs = _inputs(store, backlog=0)
        await _add(redis, "x" + "a" * 4 + "b" + "a" * 4)
        await _read(inputs, 1)
        found.update(_sources(await _read(inputs, 1)))

    assert found["b"] > 12
    assert found["a"] > 12


async def test_fewer_may_wait_while_what_is_read_is_old(store: Store, redis: Any) -> None:
    inputs = _inputs(store, backlog=256, max_age_ms=10_000)
    old_ms = await store.now_ms() - 9000
    await _add(redis, "a" * 40, f"{old_ms}-*")
    await _read(inputs, 1)

    kept = await _read(inputs, 1)

    assert len(kept) == 1
    status = await _status(store)
    assert status.terms["frames_dropped_overflow"] == 10, "a quarter of those that waited"
    assert status.streams["frames"].lag == 28


async def test_a_group_that_is_gone_is_made_again(store: Store, redis: Any) -> None:
    inputs = _inputs(store, backlog=0)
    await _add(redis, "a" * 9)
    await _read(inputs, 1)
    await redis.delete(NAMES.frames)
    await _add(redis, "b")

    found: list[Entry] = []
    while not found:
        found = await inputs.read(1)

    assert _sources(found) == "b"
