"""The detect group: acks gate writes, claims shrink, what others remove is counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pipeline.claims import Claims
from pipeline.entries import Entry, InputLimits, Outcome, Verdict
from pipeline.errors import SettingsError
from pipeline.inputs import Inputs, PausedError
from pipeline.ledger import differences, read_status
from pipeline.partition import Keys
from pipeline.stream import Store

KEYS = Keys(partitions=1)
NAMES = KEYS.of(0)


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[Store]:
    async with Store.open(redis_url, KEYS) as store:
        yield store


def _inputs(store: Store, consumer: str = "a", **limits: int) -> Inputs:
    return Inputs(store, consumer, InputLimits(**limits))


async def _add(redis: Any, count: int = 1, stream: str = NAMES.recordings) -> list[bytes]:
    return [await redis.xadd(stream, {"source": "s", "image": b"x"}) for _ in range(count)]


def _detected(entry: Entry, **more: Any) -> Outcome:
    fields = ("v", 1, "source", "s", "frame", entry.entry_id)
    return Outcome(entry, Verdict.DETECTED, "s", fields=fields, **more)


async def _read(inputs: Inputs, count: int) -> list[Entry]:
    entries: list[Entry] = []
    while len(entries) < count:
        entries += await inputs.read(count - len(entries))
    return entries


async def test_a_commit_made_twice_writes_once(store: Store, redis: Any) -> None:
    await _add(redis, 2)
    inputs = _inputs(store)
    entries = await _read(inputs, 2)

    first = await inputs.commit([_detected(entry) for entry in entries])
    again = await inputs.commit([_detected(entry) for entry in entries])

    assert (first, again) == (["1", "1"], ["0", "0"])
    assert await redis.xlen(NAMES.detections) == 2
    assert await redis.xlen(NAMES.recordings) == 0
    assert (await read_status(store)).terms["frames_detected"] == 2


async def test_results_are_in_the_order_of_the_frames_and_the_newest_is_shown(
    store: Store, redis: Any
) -> None:
    """What was known at once was done before what the network saw."""
    await _add(redis, 3)
    inputs = _inputs(store)
    entries = await _read(inputs, 3)
    outcomes = [_detected(entry, jpeg=entry.entry_id) for entry in entries]

    flags = await inputs.commit([outcomes[2], outcomes[0], outcomes[1]])

    assert flags == ["1", "1", "1"]
    written = [fields[b"frame"] for _, fields in await redis.xrange(NAMES.detections)]
    assert written == [entry.entry_id for entry in entries]
    assert await redis.get(NAMES.last("s")) == entries[2].entry_id


async def test_a_quiet_stream_beside_a_busy_one_is_asked_now_and_then(
    store: Store, redis: Any
) -> None:
    """A live frame does not wait for the end of a recording, nor does each read ask for it."""
    await _add(redis, 200)
    inputs = _inputs(store)
    await _read(inputs, 4)
    before = (await redis.info("commandstats"))["cmdstat_xreadgroup"]["calls"]
    await _read(inputs, 4)
    after = (await redis.info("commandstats"))["cmdstat_xreadgroup"]["calls"]
    assert after - before <= 3
    frame = (await _add(redis, 1, NAMES.frames))[0]

    read: list[Entry] = []
    while not any(entry.entry_id == frame for entry in read):
        assert len(read) < 150
        read += await inputs.read(1)
        await asyncio.sleep(0.001)


async def test_who_commits_first_after_a_claim_writes(store: Store, redis: Any) -> None:
    await _add(redis)
    slow = _inputs(store, "slow")
    (entry,) = await _read(slow, 1)
    claims = Claims(store, "quick", 0, 8)
    (claimed,) = await claims.take()

    assert await slow.commit([_detected(entry)]) == ["1"]
    assert await _inputs(store, "quick").commit([_detected(claimed)]) == ["0"]
    assert claimed.deliveries == 2


@pytest.mark.parametrize(
    ("numbers", "flags"),
    [
        ([1, 2, 1, 2, 3], "11DD1"),
        ([5, 3, 4, 5, 3, 9, 4], "111DD1D"),
        ([1, 5000, 904, 905, 904], "11D1D"),
        ([0, 0, 9_007_199_254_740_991], "1D1"),
    ],
)
async def test_numbers_seen_before_are_dropped_in_any_order(
    store: Store, redis: Any, numbers: list[int], flags: str
) -> None:
    await _add(redis, len(numbers))
    inputs = _inputs(store)
    entries = await _read(inputs, len(numbers))
    rows = zip(entries, numbers, strict=True)
    outcomes = [_detected(entry, producer="p", seq=number) for entry, number in rows]

    assert "".join(await inputs.commit(outcomes)) == flags
    assert differences((await read_status(store)).terms)["frames"] == 0


async def test_entries_of_a_dead_worker_are_tried_by_ever_fewer(store: Store, redis: Any) -> None:
    ids = await _add(redis, 70)
    await _read(_inputs(store, "dead"), 70)
    claims = Claims(store, "next", 0, 64)

    tried = [[entry.entry_id for entry in await claims.take()] for _ in range(2)]

    assert tried == [ids[:8], ids[:1]]


async def test_own_entries_come_back_first_whatever_their_age(store: Store, redis: Any) -> None:
    ids = await _add(redis, 3)
    await _read(_inputs(store, "same"), 2)
    await _read(_inputs(store, "other"), 1)
    again = Claims(store, "same", 60_000, 64)

    assert [entry.entry_id for entry in await again.take(own=True)] == ids[:2]
    assert await again.take() == []


async def test_an_entry_is_renewed_only_by_its_owner(store: Store, redis: Any) -> None:
    await _add(redis)
    (entry,) = await _read(_inputs(store, "mine"), 1)
    other = Claims(store, "other", 50_000, 8)

    await other.hand_back([entry])
    assert await other.take() == []
    await Claims(store, "mine", 50_000, 8).hand_back([entry])
    assert len(await other.take()) == 1


async def test_what_others_remove_is_counted(store: Store, redis: Any) -> None:
    ids = await _add(redis, 6)
    inputs = _inputs(store)
    entries = await _read(inputs, 3)
    await inputs.commit([_detected(entries[0])])
    await redis.xdel(NAMES.recordings, ids[1], ids[4])
    await _read(inputs, 2)
    claims = Claims(store, "a", 60_000, 8)

    lost = await claims.audit() + await claims.audit()

    assert lost == 2
    status = await read_status(store)
    assert status.terms["frames_lost_trimmed"] == 2
    assert status.partitions[0].streams["recordings"].pending == 3


async def test_a_consumer_with_pending_entries_stays(store: Store, redis: Any) -> None:
    await _add(redis)
    await _read(_inputs(store, "owner"), 1)
    await redis.xreadgroup("detect", "idle", {NAMES.recordings: ">"})

    await store.call("prune", [NAMES.recordings], "me", -1)

    names = [row["name"] for row in await redis.xinfo_consumers(NAMES.recordings, "detect")]
    assert names == [b"owner"]


async def test_a_wrong_lag_is_put_right(store: Store, redis: Any) -> None:
    """What a restart from AOF and a failover leave behind."""
    await _add(redis, 5)
    inputs = _inputs(store)
    entries = await _read(inputs, 3)
    last = entries[-1].entry_id.decode()
    await redis.execute_command(
        "XGROUP", "SETID", NAMES.recordings, "detect", last, "ENTRIESREAD", 0
    )

    await inputs.commit([_detected(entry) for entry in entries])

    (group,) = await redis.xinfo_groups(NAMES.recordings)
    assert (group["entries-read"], group["lag"]) == (3, 2)


async def test_a_second_group_keeps_what_it_has_not_done(store: Store, redis: Any) -> None:
    ids = await _add(redis, 3)
    await redis.xgroup_create(NAMES.recordings, "archive", "0")
    inputs = _inputs(store)
    await inputs.commit([_detected(entry) for entry in await _read(inputs, 3)])
    assert await redis.xlen(NAMES.recordings) == 3

    await redis.xreadgroup("archive", "x", {NAMES.recordings: ">"})
    await redis.xack(NAMES.recordings, "archive", *ids)
    await _add(redis)
    await inputs.commit([_detected(entry) for entry in await _read(inputs, 1)])

    assert not {row[0] for row in await redis.xrange(NAMES.recordings)} & set(ids)


async def test_detection_pauses_before_it_overwrites(store: Store, redis: Any) -> None:
    await _add(redis, 3)
    inputs = _inputs(store, results_keep=2)
    entries = await _read(inputs, 3)
    await inputs.commit([_detected(entry) for entry in entries[:2]])

    with pytest.raises(PausedError):
        await inputs.commit([_detected(entries[2])])
    assert await redis.xlen(NAMES.detections) == 2


async def _bury(inputs: Inputs, entry: Entry, size: int) -> None:
    fields = ("stream", "recordings", "id", entry.entry_id, "entry", b"x" * size)
    await inputs.commit([Outcome(entry, Verdict.DEAD, fields=fields)])


async def test_dead_letters_are_bounded_in_number_and_bytes(store: Store, redis: Any) -> None:
    await _add(redis, 8)
    inputs = _inputs(store, dead_entries=3, dead_bytes=5000)
    entries = await _read(inputs, 8)
    for entry in entries[:5]:
        await _bury(inputs, entry, 10)
    assert await redis.xlen(NAMES.dead) == 3
    for entry in entries[5:7]:
        await _bury(inputs, entry, 3000)
    assert await redis.xlen(NAMES.dead) == 1

    await redis.delete(NAMES.dead)
    await _bury(inputs, entries[7], 4000)
    assert await redis.xlen(NAMES.dead) == 1


async def test_a_group_that_is_destroyed_goes_on_where_it_was(store: Store, redis: Any) -> None:
    await _add(redis, 4)
    inputs = _inputs(store)
    entries = await _read(inputs, 3)
    await inputs.commit([_detected(entry) for entry in entries[:2]])
    await redis.xgroup_destroy(NAMES.recordings, "detect")

    await store.repair()

    left = await _read(inputs, 2)
    assert left[0].entry_id == entries[2].entry_id
    await inputs.commit([_detected(entry) for entry in left])
    status = await read_status(store)
    assert status.terms["frames_detected"] == 4
    stream = status.partitions[0].streams["recordings"]
    assert (stream.lag, stream.pending) == (0, 0)


async def test_another_number_of_partitions_is_refused(store: Store, redis_url: str) -> None:
    with pytest.raises(SettingsError, match=r"PERCIPIO_PARTITIONS is 2.*made with 1"):
        async with Store.open(redis_url, Keys(partitions=2)):
            pass


async def test_a_watch_that_fails_fails_the_worker(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it a partition that was empty would never be read again, and nobody would know."""

    async def fail(*_: object) -> bool:
        raise ValueError("not foreseen")

    monkeypatch.setattr(Store, "wait_for", fail)
    inputs = _inputs(store)
    assert await inputs.read(1) == []
    watching = inputs.watch()
    await asyncio.wait(watching)

    with pytest.raises(ValueError, match="not foreseen"):
        await inputs.read(1)
