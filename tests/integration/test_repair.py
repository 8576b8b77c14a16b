"""What Redis took and lost again: a client that keeps its entries sends them once more."""

from __future__ import annotations

import shutil
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline import Client
from pipeline.entries import InputLimits
from pipeline.kept import _copied
from pipeline.ledger import read_status
from pipeline.ownership import Cursor, Ownership, ScoreCommit
from pipeline.partition import Keys
from pipeline.stream import Store
from tests.conftest import eventually
from tests.fault.rig import Server, executable

KEYS = Keys(partitions=1)
NAMES = KEYS.of(0)
KEEP = 1 << 20


@pytest.fixture
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    server = Server(tmp_path / "redis", executable(request.config.getoption("--redis-server")))
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def store(server: Server) -> AsyncIterator[Store]:
    async with Store.open(server.url, KEYS) as store:
        yield store


@pytest.fixture
async def client(server: Server, store: Store) -> AsyncIterator[Client]:
    async with Client(server.url, keep_bytes=KEEP) as client:
        yield client


def _numbers(server: Server) -> list[int]:
    with server.client as redis:
        return [int(fields[b"seq"]) for _, fields in redis.xrange(NAMES.events)]


async def _score_all(store: Store, server: Server) -> None:
    """Commit what waits, as a score worker does."""
    ownership = Ownership(store, "a", 60_000, InputLimits())
    owned = await ownership.acquire(0, 512)
    assert owned is not None
    with server.client as redis:
        ids = [entry_id for entry_id, _ in redis.xrange(NAMES.events)]
    events = Cursor(ids[-1], owned.events.entries_read + len(ids))
    ledger = {"events_scored": len(ids)}
    await ownership.commit(owned, ScoreCommit(events, owned.detections, [], 0, [], [], [], ledger))


async def _publish(client: Client, count: int) -> None:
    for number in range(count):
        await client.publish_event("robot", {"a": number})


async def test_a_restart_that_lost_writes_is_repaired(
    client: Client, server: Server, store: Store
) -> None:
    await _publish(client, 5)
    server.kill()
    shutil.rmtree(server.folder / "appendonlydir")
    server.start()
    await store.repair()

    await eventually(lambda: _numbers(server) == [0, 1, 2, 3, 4], 20)

    assert client.repeated == 5
    await _publish(client, 1)
    assert _numbers(server)[-1] == 5


async def test_a_flush_is_repaired(client: Client, server: Server, store: Store) -> None:
    await _publish(client, 5)
    with server.client as redis:
        redis.flushall()
    await store.repair()

    await eventually(lambda: set(_numbers(server)) == {0, 1, 2, 3, 4}, 20)


async def test_a_deleted_stream_is_repaired(client: Client, server: Server, store: Store) -> None:
    await _publish(client, 5)
    await _score_all(store, server)
    await _publish(client, 3)
    with server.client as redis:
        redis.delete(NAMES.events)
    await store.repair()

    await eventually(lambda: {5, 6, 7} <= set(_numbers(server)), 20)

    assert (await read_status(store)).partitions[0].ledger_epoch == 1


async def test_what_is_sent_again_keeps_its_time(
    client: Client, server: Server, store: Store
) -> None:
    await _publish(client, 1)
    with server.client as redis:
        [(first, _)] = redis.xrange(NAMES.events)
        redis.flushall()
    await store.repair()
    await eventually(lambda: _numbers(server), 20)

    with server.client as redis:
        [(_, fields), *_] = redis.xrange(NAMES.events)
    assert abs(int(fields[b"ts"]) - int(first.partition(b"-")[0])) < 1000


async def test_nothing_is_sent_again_while_nothing_happens(client: Client, server: Server) -> None:
    await _publish(client, 3)

    assert await client.settle(1.5) == 3
    assert (client.kept, client.repeated) == (3, 0)
    assert _numbers(server) == [0, 1, 2]


async def test_entries_are_let_go_when_a_replica_knows_that_they_are_done(
    server: Server, store: Store, tmp_path: Path
) -> None:
    options = ["--replicaof", f"127.0.0.1 {server.port}"]
    replica = Server(tmp_path / "replica", server.program, options)
    replica.start()
    try:
        await eventually(lambda: _is_in_step(server), 20)
        async with Client(server.url, keep_bytes=KEEP) as client:
            await _publish(client, 3)
            assert await client.settle(1.2) == 3, "not done yet"
            await _score_all(store, server)

            assert await client.settle(10) == 0
            assert client.repeated == 0
    finally:
        replica.kill()


def _is_in_step(server: Server) -> bool:
    with server.client as redis:
        info: Any = redis.info("replication")
    return bool(info.get("slave0", {}).get("state") == "online")


async def test_without_a_replica_entries_are_let_go_after_a_while(
    client: Client, server: Server, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.kept.ALONE_S", 1.0)
    await _publish(client, 3)
    await _score_all(store, server)
    done_s = time.monotonic()

    assert await client.settle(10) == 0
    assert time.monotonic() - done_s > 1.0


async def test_a_client_keeps_no_more_than_it_may(server: Server, store: Store) -> None:
    async with Client(server.url, keep_bytes=1000) as client:
        await _publish(client, 20)

        assert 0 < client.kept < 10
        assert client.kept + client.unkept == 20


async def test_what_can_no_longer_be_told_apart_is_not_sent_again(
    client: Client, server: Server, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.kept.WINDOW", 4)
    await _publish(client, 10)
    with server.client as redis:
        redis.flushall()
    await store.repair()
    await eventually(lambda: set(_numbers(server)) == {6, 7, 8, 9}, 20)

    assert client.unkept == 6


def test_a_redis_that_says_nothing_of_replicas_is_alone() -> None:
    assert _copied({"role": "master", "connected_slaves": 0}) is None
    syncing = {"state": "wait_bgsave", "offset": 0}
    online = {"state": "online", "offset": 7}
    assert _copied({"slave0": syncing, "slave1": online, "slave_repl_offset": 9}) == 7
