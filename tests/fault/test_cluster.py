"""The same promise on Redis Cluster: failovers, lossy ones too, and slots that move."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fault.cluster import Cluster
from tests.fault.publish import Load
from tests.fault.rig import Nursery, Server
from tests.fault.trial import Trial

Table = Callable[[str, dict[str, Any]], None]


@pytest.fixture
def place() -> str:
    return "cluster"


def _finish(trial: Trial, table: Table, row: str, **facts: object) -> None:
    recovery_s = trial.wait_until_quiet()
    verdict = trial.judge()
    table(row, verdict.as_row() | facts | {"recovery_s": round(recovery_s, 1)})
    assert verdict.is_clean, verdict


def test_a_cluster_works(trial: Trial, table: Table) -> None:
    """Without a fault everything is in order."""
    trial.fleet.start_many(2, 2)
    trial.publish(Load(streams={"events": 60, "recordings": 20}, per_s=200))
    _finish(trial, table, "no fault")


def test_a_primary_is_killed(trial: Trial, cluster: Cluster, table: Table, is_long: bool) -> None:
    """Kill -9 of a primary and of a worker, again and again; the dead come back as replicas."""
    failovers = 5 if is_long else 2
    trial.fleet.start_many(2, 2)
    trial.wait_until_owned()
    load = Load(streams={"events": 50 * failovers, "recordings": 15 * failovers}, per_s=100)
    trial.publish(load)
    for _ in range(failovers):
        time.sleep(1.0)
        victim = trial.dice.choice(cluster.primaries())
        victim.kill()
        trial.fleet.kill(trial.dice.choice(list(trial.fleet.alive)))
        trial.wait_until(lambda: len(cluster.primaries()) == 3)
        trial.fleet.revive()
        victim.start()
        cluster.wait_until_whole()
    facts = {"failovers": failovers, "kills": trial.fleet.kills}
    _finish(trial, table, "failover, primary kill -9", **facts)


def test_acknowledged_writes_are_lost(
    trial: Trial, cluster: Cluster, table: Table, is_long: bool
) -> None:
    """A replica that lags becomes primary: a partition goes back as a whole, and is repaired.

    The publisher sees that another node serves the partition and sends again what it kept; what
    was there already is dropped.
    """
    failovers = 4 if is_long else 1
    trial.fleet.start_many(2, 2)
    trial.wait_until_owned()
    streams = {"events": 80 * failovers, "recordings": 20 * failovers}
    publisher = trial.publish_and_keep(Load(streams=streams, per_s=120, apart=True))
    for _ in range(failovers):
        time.sleep(1.0)
        victim = trial.dice.choice(cluster.primaries())
        cluster.break_link(victim)
        time.sleep(0.8)
        victim.kill()
        trial.wait_until(lambda: len(cluster.primaries()) == 3)
        victim.start()
        cluster.mend_links()
        cluster.wait_until_whole()
    trial.wait_until(lambda: publisher.repeated)
    recovery_s = trial.wait_until_quiet()
    verdict = trial.judge()
    facts = {"failovers": failovers, **trial.repair(), "recovery_s": round(recovery_s, 1)}
    table("failover that loses acknowledged writes", verdict.as_row() | facts)
    assert verdict.is_clean, verdict


@pytest.fixture
def divisible(folder: Path, program: str) -> Iterator[Cluster]:
    """A Redis Cluster whose nodes can be kept from each other."""
    cluster = Cluster(folder / "cluster", program, is_divisible=True)
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture
def divided(divisible: Cluster, nursery: Nursery, fault_seed: int) -> Iterator[Trial]:
    """A deployment on it."""
    trial = Trial(divisible.url, nursery, fault_seed, divisible.connect)
    yield trial
    trial.end()


def test_a_primary_is_in_the_minority(
    divided: Trial, divisible: Cluster, table: Table, is_long: bool
) -> None:
    """Cut off from all nodes, not from its clients, it takes writes until it notices.

    By then the others have made its replica primary; what it took meanwhile is gone when it comes
    back, as a whole, and sent again.
    """
    turns = 3 if is_long else 1
    divided.fleet.start_many(2, 2)
    divided.wait_until_owned()
    streams = {"events": 120 * turns, "recordings": 30 * turns}
    publisher = divided.publish_and_keep(Load(streams=streams, per_s=120, apart=True))
    alone_s: list[float] = []
    for _ in range(turns):
        time.sleep(1.0)
        alone = divided.dice.choice(divisible.primaries())
        divisible.isolate(alone)
        alone_s.append(divided.wait_until(lambda alone=alone: is_down(alone)))  # type: ignore[misc]
        divided.wait_until(lambda: len(divisible.primaries()) == 4)
        time.sleep(1.0)
        divisible.rejoin()
        divided.wait_until(lambda: len(divisible.primaries()) == 3)
        divisible.wait_until_whole()
    divided.wait_until(lambda: publisher.repeated)
    recovery_s = divided.wait_until_quiet()
    verdict = divided.judge()
    facts = {"turns": turns, "took writes s": round(max(alone_s), 1), **divided.repair()}
    facts["recovery_s"] = round(recovery_s, 1)
    table("a primary in the minority", verdict.as_row() | facts)
    assert verdict.is_clean, verdict


def is_down(node: Server) -> bool:
    """Whether a node has noticed that it stands alone."""
    with node.client as client:
        found = client.execute_command("CLUSTER INFO")
    text = found.decode() if isinstance(found, bytes) else str(found)
    return "cluster_state:fail" in text or "'cluster_state': 'fail'" in text


def test_slots_move(trial: Trial, cluster: Cluster, table: Table) -> None:
    """Resharding of every partition while it works."""
    trial.fleet.start_many(2, 2)
    trial.wait_until_owned()
    trial.publish(Load(streams={"events": 120, "recordings": 30}, per_s=100))
    with cluster.connect() as client:
        slots = [client.keyslot(trial.keys.of(p).events) for p in range(trial.keys.partitions)]
    for slot in slots:
        time.sleep(0.5)
        cluster.move_slot(slot)
    _finish(trial, table, "resharding", slots=len(slots))
