"""Replies that are lost, connections that are cut, silent or full: nothing twice, nothing lost."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.fault.proxy import Proxy
from tests.fault.publish import Load
from tests.fault.rig import Nursery, Server, client_of
from tests.fault.trial import PATIENCE_S, Trial

Table = Callable[[str, dict[str, Any]], None]


@pytest.fixture
def proxy(server: Server, fault_seed: int) -> Iterator[Proxy]:
    proxy = Proxy(server.port, fault_seed)
    yield proxy
    proxy.close()


@pytest.fixture
def far_trial(server: Server, proxy: Proxy, nursery: Nursery, fault_seed: int) -> Iterator[Trial]:
    """A deployment whose workers, and their publisher, reach Redis through the proxy."""
    trial = Trial(server.url, nursery, fault_seed, lambda: client_of(proxy.port))
    trial.fleet.environ["PERCIPIO_REDIS_URL"] = f"redis://127.0.0.1:{proxy.port}/0"
    yield trial
    proxy.lose_replies, proxy.is_deaf, proxy.is_mute, proxy.refuses = 0.0, False, False, False
    trial.end()


def _finish(trial: Trial, table: Table, row: str, **facts: object) -> None:
    recovery_s = trial.wait_until_quiet()
    verdict = trial.judge()
    table(row, verdict.as_row() | facts | {"recovery_s": round(recovery_s, 1)})
    assert verdict.is_clean, verdict


def test_replies_are_lost(far_trial: Trial, proxy: Proxy, table: Table) -> None:
    """Every kind of request is done and its reply cut off: it is repeated, and done once."""
    far_trial.fleet.start_many(2, 2)
    far_trial.wait_until_owned()
    proxy.lose_replies = 0.02
    load = Load(streams={"events": 100, "recordings": 40}, per_s=150)
    far_trial.publish(load).join()
    proxy.lose_replies = 0.0
    assert proxy.losses > 20
    duplicates = far_trial.status()["ledger"]["events_dropped_duplicate"]
    _finish(far_trial, table, "reply lost", losses=proxy.losses, publisher_repeats=duplicates)


@pytest.mark.parametrize("way", ["to Redis", "from Redis", "both ways", "refused"])
def test_a_partition_heals(far_trial: Trial, proxy: Proxy, table: Table, way: str) -> None:
    """Sockets stay open and nothing comes through, or all are reset and none is made."""
    far_trial.fleet.start_many(1, 2)
    far_trial.wait_until_owned()
    far_trial.publish(Load(streams={"events": 80, "recordings": 30}, per_s=150))
    time.sleep(1.0)
    proxy.is_deaf = way in ("to Redis", "both ways")
    proxy.is_mute = way in ("from Redis", "both ways")
    proxy.refuses = way == "refused"
    if proxy.refuses:
        proxy.cut_all()
    time.sleep(4.0)
    proxy.is_deaf = proxy.is_mute = proxy.refuses = False
    _finish(far_trial, table, f"network partition, {way}, 4 s")


def test_half_open_sockets(far_trial: Trial, proxy: Proxy, table: Table) -> None:
    """Connections that were there stay silent for ever; new ones work."""
    far_trial.fleet.start_many(1, 2)
    far_trial.wait_until_owned()
    far_trial.publish(Load(streams={"events": 80, "recordings": 30}, per_s=150))
    time.sleep(0.5)
    proxy.freeze_all()
    _finish(far_trial, table, "half-open sockets")


def test_a_reconnect_storm(far_trial: Trial, proxy: Proxy, server: Server, table: Table) -> None:
    """200 clients and the workers lose Redis for 2 s; they come back spread out, nothing lost."""
    far_trial.fleet.start_many(1, 1)
    far_trial.wait_until_owned()
    load = Load(sources=200, streams={"events": 10}, per_s=200)
    crowd = far_trial.gather(load, f"redis://127.0.0.1:{proxy.port}/0")
    assert crowd.is_there.wait(PATIENCE_S)
    time.sleep(1.0)
    server.kill()
    proxy.cut_all()
    gone_s = time.monotonic()
    time.sleep(2.0)
    server.start()
    back_s = time.monotonic()
    recovery_s = far_trial.wait_until_quiet()
    verdict = far_trial.judge()
    gone = [at_s for at_s in proxy.came_s if gone_s < at_s < back_s]
    after = Counter(int((at_s - back_s) * 10) for at_s in proxy.came_s if at_s > back_s)
    facts: dict[str, object] = {
        "attempts_a_client_while_away": round(len(gone) / load.sources, 1),
        "connections_after": after.total(),
        "most_in_100_ms": max(after.values()),
        "recovery_s": round(recovery_s, 1),
    }
    table("reconnect storm, 200 clients", verdict.as_row() | facts)
    assert verdict.is_clean, verdict
    assert len(gone) < 15 * load.sources
    assert max(after.values()) < load.sources
