"""The client against a real Redis: what it publishes, and how it finds and reads a deployment."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import msgpack
import numpy as np
import pytest
from redis.asyncio import Redis

from pipeline import Client, Event, Frame, SyncClient
from pipeline.errors import DependencyError, EntryError, FullError, SettingsError
from pipeline.image_header import Format, probe
from pipeline.partition import Keys
from pipeline.settings import load_settings
from pipeline.stream import Store
from pipeline.wire import read_event, read_frame
from tests.conftest import eventually

KEYS = Keys()
LIMITS = {"PERCIPIO_EVENTS_MAX_ENTRIES": "40", "PERCIPIO_RECORDINGS_MAX_ENTRIES": "20"}


@pytest.fixture
async def deployment(redis: Redis, redis_url: str) -> str:
    await redis.hset(KEYS.config, mapping={"partitions": 16, "contract": 1})
    return redis_url


@pytest.fixture
async def client(deployment: str) -> AsyncIterator[Client]:
    async with Client(deployment) as client:
        yield client


async def entries_of(redis: Any, stream: str) -> list[tuple[bytes, dict[bytes, bytes]]]:
    entries: list[tuple[bytes, dict[bytes, bytes]]] = await redis.xrange(stream)
    return entries


def a_jpeg() -> bytes:
    from pipeline.image import encode_jpeg

    return encode_jpeg(np.full((24, 32, 3), 90, np.uint8))


async def test_an_event_is_an_entry_that_a_worker_takes(client: Client, redis: Redis) -> None:
    first = await client.publish_event("robot-7", {"a": 1}, ts_ms=5, kind="x", meta={"k": 1})
    second = await client.publish_event("robot-7", {"a": 2})

    entries = await entries_of(redis, KEYS.of(7).events)
    read = [read_event(entry_id, fields, 7, 16) for entry_id, fields in entries]
    assert [entry_id.decode() for entry_id, _ in entries] == [first, second]
    assert [(e.values, e.envelope.seq) for e in read] == [({"a": 1.0}, 0), ({"a": 2.0}, 1)]
    assert {e.envelope.producer for e in read} == {f"{client.producer}-events"}
    assert (client.sent, client.unsent, client.lost) == (2, 0, 0)


async def test_frames_go_as_they_are_or_as_jpeg(client: Client, redis: Redis) -> None:
    picture = a_jpeg()

    await client.publish_frame("robot-7", picture, live=True)
    await client.publish_frame("robot-7", np.zeros((6, 8, 3), np.uint8))

    [(live_id, live)] = await entries_of(redis, KEYS.of(7).frames)
    [(kept_id, kept)] = await entries_of(redis, KEYS.of(7).recordings)
    assert read_frame(live_id, live, 7, 16).image == picture
    info = probe(read_frame(kept_id, kept, 7, 16).image)
    assert (info.format, info.width, info.height) == (Format.JPEG, 8, 6)
    assert (live[b"seq"], kept[b"seq"]) == (b"0", b"0")
    assert live[b"producer"] != kept[b"producer"]


@pytest.mark.parametrize("array", [np.zeros(5), np.zeros((2, 2, 7), np.uint8), np.zeros((0, 4, 3))])
async def test_an_array_that_is_no_picture_is_refused(client: Client, array: object) -> None:
    with pytest.raises(EntryError, match=r"^image: expected uint8"):
        await client.publish_frame("cam", array)  # type: ignore[arg-type]


async def test_a_batch_crosses_partitions_in_order(client: Client, redis: Redis) -> None:
    events = [Event(f"s{n % 7}", {"n": n}) for n in range(1500)]

    ids = await client.publish_events(events)

    found: dict[str, list[tuple[str, float]]] = {}
    for part in range(16):
        for entry_id, fields in await entries_of(redis, KEYS.of(part).events):
            event = read_event(entry_id, fields, part, 16)
            rows = found.setdefault(event.envelope.source, [])
            assert event.envelope.seq == len(rows)
            rows.append((entry_id.decode(), event.values["n"]))
    expected: dict[str, list[tuple[str, float]]] = {}
    for event_id, given in zip(ids, events, strict=True):
        expected.setdefault(given.source, []).append((event_id, given.values["n"]))
    assert found == expected


async def test_a_batch_takes_few_round_trips(client: Client, redis: Redis) -> None:
    before = (await redis.info("stats"))["total_reads_processed"]

    await client.publish_events(("s", {"n": n}) for n in range(1000))  # type: ignore[misc]

    after = (await redis.info("stats"))["total_reads_processed"]
    assert after - before < 100


async def test_a_wrong_event_sends_nothing_of_its_batch(client: Client, redis: Redis) -> None:
    with pytest.raises(EntryError, match="values: b is nan"):
        await client.publish_events([Event("s", {"a": 1}), Event("s", {"b": float("nan")})])

    assert await redis.dbsize() == 1


async def test_frames_in_a_batch(client: Client, redis: Redis) -> None:
    ids = await client.publish_frames(Frame("cam", a_jpeg(), ts_ms=n) for n in range(20))

    entries = await entries_of(redis, KEYS.of_source("cam").recordings)
    assert [entry_id.decode() for entry_id, _ in entries] == ids
    assert [fields[b"ts"] for _, fields in entries] == [b"%d" % n for n in range(20)]


async def test_a_heartbeat_is_an_event_without_values(client: Client, redis: Redis) -> None:
    await client.heartbeat("robot-7")

    [(entry_id, fields)] = await entries_of(redis, KEYS.of(7).events)
    event = read_event(entry_id, fields, 7, 16)
    assert (event.kind, event.values) == ("heartbeat", {})


async def test_states_and_sources_are_read(client: Client, redis: Redis) -> None:
    for name in ("robot-7", "cam"):
        keys = KEYS.of_source(name)
        await redis.zadd(keys.sources, {name: 1})
    await redis.hset(KEYS.of(7).state("robot-7"), mapping={"level": "0.5", "seq": "3"})

    assert await client.sources() == ["cam", "robot-7"]
    assert await client.state("robot-7") == {"level": 0.5, "seq": 3}
    assert await client.state("cam") is None
    assert await client.states() == {"robot-7": {"level": 0.5, "seq": 3}}
    with pytest.raises(SettingsError, match="source"):
        await client.state("a b")


async def test_the_number_of_partitions_is_looked_up(redis: Redis, redis_url: str) -> None:
    await redis.hset("other:config", mapping={"partitions": 3, "contract": 1})

    async with Client(redis_url, key_prefix="other") as client:
        await client.publish_event("robot-7", {"a": 1})

    assert await redis.xlen(Keys("other", 3).of_source("robot-7").events) == 1


@pytest.mark.parametrize(
    ("config", "error", "says"),
    [
        ({}, DependencyError, "no deployment at .*://.*percipio:config is not there"),
        ({"partitions": 16, "contract": 9}, SettingsError, "contract 9, this is 1"),
        ({"partitions": "x", "contract": 1}, SettingsError, "does not say"),
    ],
)
async def test_what_is_no_deployment_is_said(
    redis: Redis, redis_url: str, config: dict[Any, Any], error: type[Exception], says: str
) -> None:
    if config:
        await redis.hset(KEYS.config, mapping=config)

    with pytest.raises(error, match=says):
        await Client(redis_url).__aenter__()


async def test_a_redis_that_is_not_there_is_said_without_its_password() -> None:
    with pytest.raises(DependencyError, match=r"@127\.0\.0\.1:1/0 does not answer") as raised:
        await Client("redis://:secret@127.0.0.1:1/0").__aenter__()

    assert "secret" not in str(raised.value)


async def test_a_client_may_wait_for_the_deployment(redis: Redis, redis_url: str) -> None:
    entering = asyncio.create_task(Client(redis_url, wait_s=20).__aenter__())
    await eventually(lambda: _has_clients(redis))
    await redis.hset(KEYS.config, mapping={"partitions": 16, "contract": 1})

    client = await entering

    assert client.keys.partitions == 16
    await client.close()


async def _has_clients(redis: Redis) -> bool:
    return bool((await redis.info("clients"))["connected_clients"] > 1)


async def test_events_are_held_back_at_the_bound_and_go_on(deployment: str, redis: Redis) -> None:
    """Nobody reads: the publisher waits. The stream is emptied: it goes on, and loses nothing."""
    stream = KEYS.of(7).events
    async with Client(deployment, settings=load_settings(LIMITS)) as client:
        publishing = asyncio.create_task(
            client.publish_events([Event("robot-7", {"n": n}) for n in range(100)])
        )
        await eventually(lambda: _length(redis, stream, 40))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(publishing), 0.3)
        held = await redis.xlen(stream)
        seen = []
        while not publishing.done():
            for entry_id, fields in await entries_of(redis, stream):
                seen.append(int(fields[b"seq"]))
                await redis.xdel(stream, entry_id)
            await asyncio.sleep(0)
        seen += [int(fields[b"seq"]) for _, fields in await entries_of(redis, stream)]

        assert held == 40
        assert seen == list(range(100))
        assert client.held_back_s > 0


async def _length(redis: Redis, stream: str, least: int) -> bool:
    return int(await redis.xlen(stream)) >= least


async def test_recordings_are_bounded_and_live_frames_are_not(
    deployment: str, redis: Redis
) -> None:
    picture = a_jpeg()
    async with Client(deployment, settings=load_settings(LIMITS), hold_s=0) as client:
        await client.publish_frames(Frame("cam", picture, live=True) for _ in range(60))
        with pytest.raises(FullError, match=r"recordings holds its bound \(20 entries"):
            await client.publish_frames(Frame("cam", picture) for _ in range(60))

    assert await redis.xlen(KEYS.of_source("cam").frames) == 60
    assert await redis.xlen(KEYS.of_source("cam").recordings) == 20


async def test_recordings_are_bounded_in_bytes(deployment: str, redis: Redis) -> None:
    settings = load_settings({"PERCIPIO_RECORDINGS_MAX_BYTES": str(1 << 24)})
    picture = a_jpeg()
    picture = picture[:-2] + bytes((1 << 20) - len(picture)) + picture[-2:]
    async with Client(deployment, settings=settings, hold_s=0) as client:
        with pytest.raises(FullError, match="16777216 bytes"):
            await client.publish_frames(Frame("cam", picture) for _ in range(60))

    assert 12 <= await redis.xlen(KEYS.of_source("cam").recordings) <= 20


async def test_looks_at_a_stream_are_few(client: Client, redis: Redis) -> None:
    await redis.config_resetstat()
    for n in range(200):
        await client.publish_event("s", {"n": n})

    calls = (await redis.info("commandstats"))["cmdstat_xlen"]["calls"]
    assert calls <= 3


async def test_a_full_redis_is_a_clear_error_after_a_bounded_time(
    deployment: str, redis: Redis
) -> None:
    async with Client(deployment, full_retry_s=0.2) as client:
        await client.publish_event("s", {"n": 1})
        await redis.config_set("maxmemory", 1)
        try:
            with pytest.raises(FullError, match="Redis is full"):
                await client.publish_event("s", {"n": 2})
            with pytest.raises(FullError, match="Redis is full"):
                await client.publish_frame("s", a_jpeg(), live=True)
        finally:
            await redis.config_set("maxmemory", 0)
        assert await client.publish_event("s", {"n": 3})

    assert (client.sent, client.lost) == (2, 0)


async def test_what_is_refused_for_good_is_an_error(client: Client, redis: Redis) -> None:
    await redis.set(KEYS.of_source("s").events, "not a stream")

    with pytest.raises((SettingsError, DependencyError), match="WRONGTYPE"):
        await client.publish_event("s", {"n": 1})


def test_the_sync_twin_does_the_same(deployment: str) -> None:
    with SyncClient(deployment) as client:
        event_id = client.publish_event("robot-7", {"a": 1})
        ids = client.publish_events([Event("robot-7", {"a": 2}), Event("cam", {"a": 3})])
        frame_id = client.publish_frame("robot-7", a_jpeg())
        client.publish_frames([Frame("robot-7", a_jpeg(), live=True)])
        client.heartbeat("robot-7")
        with pytest.raises(EntryError, match="values"):
            client.publish_event("robot-7", {})

        assert all([event_id, *ids, frame_id])
        assert (client.flush(), client.sent, client.lost, client.unsent) == (0, 6, 0, 0)
        assert (client.state("robot-7"), client.states(), client.sources()) == (None, {}, [])
        assert client.problem is None


def test_the_sync_twin_ends_its_thread_when_it_finds_nothing(redis_url: str) -> None:
    client = SyncClient(redis_url)

    with pytest.raises(DependencyError, match="no deployment"):
        client.__enter__()

    assert not client._thread.is_alive()


LIGHT = """
import sys
from pipeline import Client, SyncClient
heavy = {"torch", "ultralytics", "numba", "openvino", "cv2", "onnxruntime", "prometheus_client"}
assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
"""


def test_the_client_is_light() -> None:
    subprocess.run([sys.executable, "-c", LIGHT], check=True, timeout=30)


async def test_meta_is_packed(client: Client, redis: Redis) -> None:
    await client.publish_event("robot-7", {"a": 1}, meta={"shift": "é", "n": [1, None]})

    [(_, fields)] = await entries_of(redis, KEYS.of(7).events)
    assert msgpack.unpackb(fields[b"meta"]) == {"shift": "é", "n": [1, None]}


async def test_a_deployment_is_there_whole_or_not_at_all(redis: Redis, redis_url: str) -> None:
    """Whoever comes as the first worker makes it would take half a record for a foreign one."""
    seen: list[int] = []

    async def look(is_made: asyncio.Event) -> None:
        while not is_made.is_set():
            seen.append(len(await redis.hgetall(KEYS.config)))

    for _ in range(20):
        await redis.delete(KEYS.config)
        is_made = asyncio.Event()
        looking = asyncio.create_task(look(is_made))
        async with Store.open(redis_url, KEYS):
            is_made.set()
        await looking

    assert set(seen) <= {0, 2}
