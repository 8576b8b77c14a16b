"""The same promise on Redis Cluster: failovers, lossy ones too, and slots that move."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fault.cluster import Cluster
from tests.fault.publish import Load
from tests.fault.rig import Nursery
from tests.fault.trial import Trial

Table = Callable[[str, dict[str, Any]], None]


@pytest.fixture
def cluster(tmp_path: Path, program: str) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path / "cluster", program)
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture
def cluster_trial(cluster: Cluster, nursery: Nursery, fault_seed: int) -> Iterator[Trial]:
    trial = Trial(cluster.url, nursery, fault_seed, cluster.connect)
    yield trial
    trial.end()


def _finish(trial: Trial, table: Table, row: str, **facts: object) -> None:
    recovery_s = trial.wait_until_quiet(90)
    verdict = trial.judge()
    table(row, verdict.as_row() | facts | {"recovery_s": round(recovery_s, 1)})
    assert verdict.is_clean, verdict


def test_a_cluster_works(cluster_trial: Trial, table: Table) -> None:
    """Without a fault everything is in order."""
    cluster_trial.fleet.start_many(2, 2)
    cluster_trial.publish(Load(streams={"events": 60, "recordings": 20}, per_s=200))
    _finish(cluster_trial, table, "Cluster, no fault")


def test_a_primary_is_killed(
    cluster_trial: Trial, cluster: Cluster, table: Table, is_long: bool
) -> None:
    """Kill -9 of a primary and of a worker, again and again; the dead come back as replicas."""
    failovers = 5 if is_long else 2
    trial = cluster_trial
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
    _finish(trial, table, "Cluster failover, primary kill -9", **facts)


def test_acknowledged_writes_are_lost(
    cluster_trial: Trial, cluster: Cluster, table: Table, is_long: bool
) -> None:
    """A replica that lags becomes primary: a partition goes back as a whole, and is repaired.

    What Redis had acknowledged and lost is missing in the numbers; a publisher that kept its
    inputs sends them again, and what was there already is dropped.
    """
    trial, failovers = cluster_trial, 4 if is_long else 1
    trial.fleet.start_many(2, 2)
    trial.wait_until_owned()
    load = Load(streams={"events": 80 * failovers, "recordings": 20}, per_s=120, apart=True)
    publisher = trial.publish(load)
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
    publisher.join()
    trial.wait_until_quiet(60)
    before = trial.judge()
    assert not before.doubled
    trial.publish(load).join()
    recovery_s = trial.wait_until_quiet(60)
    verdict = trial.judge()
    facts = {"failovers": failovers, "lost_before_repair": before.lost}
    table("Cluster failover that loses acknowledged writes", verdict.as_row() | facts)
    assert recovery_s < 60
    assert (verdict.lost, verdict.doubled, verdict.problems) == (0, 0, [])


def test_slots_move(cluster_trial: Trial, cluster: Cluster, table: Table) -> None:
    """Resharding of every partition while it works."""
    trial = cluster_trial
    trial.fleet.start_many(2, 2)
    trial.wait_until_owned()
    trial.publish(Load(streams={"events": 120, "recordings": 30}, per_s=100))
    with cluster.connect() as client:
        slots = [client.keyslot(trial.keys.of(p).events) for p in range(trial.keys.partitions)]
    for slot in slots:
        time.sleep(0.5)
        cluster.move_slot(slot)
    _finish(trial, table, "Cluster, resharding", slots=len(slots))
