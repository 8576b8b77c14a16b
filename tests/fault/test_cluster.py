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
    """kill -9 of a primary and of a worker, again and again; the dead come back as replicas."""
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
