"""Nodes, workers and the head are killed or stopped; whatever happens, the count is right."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tests.fault.publish import Load
from tests.ray.rig import RayTrial, my_node, pause, rows_of, wait_for

LOOK_S = 0.05
Table = Callable[[str, dict[str, Any]], None]


def _finish(trial: RayTrial, table: Table, row: str, **facts: object) -> None:
    recovery_s = trial.wait_until_quiet(90)
    verdict = trial.judge()
    table(row, verdict.as_row() | facts | {"recovery_s": round(recovery_s, 1)})
    assert verdict.is_clean, verdict


def test_scale_1_to_4_to_2(ray_trial: RayTrial, table: Table) -> None:
    """Partitions spread over workers that come, and go back to those that stay, under load."""
    with ray_trial.connected() as fleet:
        ray_trial.up(fleet, score=1)
        ray_trial.publish(Load(streams={"events": 600, "recordings": 60}, per_s=80))
        fleet.scale("score", 4)
        grown_s = wait_for(lambda: ray_trial.is_owned_by(4))
        status = fleet.status()
        nodes = {row["node"] for row in rows_of(status, "score")}
        fleet.scale("score", 2)
        shrunk_s = wait_for(lambda: ray_trial.is_owned_by(2))
        wait_for(lambda: len(rows_of(fleet.status(), "score")) == 2)
        decisions = fleet.status()["decisions"]
        facts = {"grown_s": round(grown_s, 1), "shrunk_s": round(shrunk_s, 1), "nodes": len(nodes)}
        _finish(ray_trial, table, "scale 1 to 4 to 2 score workers", **facts)
        assert len(nodes) == 2
        assert [(row["from"], row["to"]) for row in decisions] == [("4", "2"), ("1", "4")]


def test_a_node_is_killed(ray_trial: RayTrial, table: Table) -> None:
    """Others own its partitions after the lease; Ray starts its workers on other nodes."""
    with ray_trial.connected() as fleet:
        status = ray_trial.up(fleet, score=3, detect=2)
        ray_trial.publish(Load(streams={"events": 500, "recordings": 60}, per_s=80))
        time.sleep(2)
        before = set(ray_trial.owners())
        victim = next(row for row in rows_of(status, "score") if row["node"] != my_node())
        lost = [row["name"] for row in status["workers"] if row["node"] == victim["node"]]
        killed_s = time.monotonic()
        ray_trial.nodes.kill(ray_trial.nodes.node_of(victim["node"]))
        ray_trial.wait_until_taken_over(before)
        takeover_s = time.monotonic() - killed_s
        replaced_s = takeover_s + wait_for(
            lambda: all(
                row["state"] == "ready" and row["node"] != victim["node"]
                for row in fleet.status()["workers"]
            )
        )
        facts = {"takeover_s": round(takeover_s, 2), "replaced_s": round(replaced_s, 1)}
        _finish(ray_trial, table, "node killed", **facts, workers_lost=len(lost))


def test_a_worker_hangs(ray_trial: RayTrial, table: Table) -> None:
    """Its lease goes to others; its actor ends it and itself, and Ray starts both anew."""
    with ray_trial.connected() as fleet:
        status = ray_trial.up(fleet, score=2)
        ray_trial.publish(Load(streams={"events": 500, "recordings": 60}, per_s=80))
        time.sleep(2)
        before, victim = set(ray_trial.owners()), rows_of(status, "score")[0]
        pause(victim["pid"])
        takeover_s = ray_trial.wait_until_taken_over(before)
        replaced_s = takeover_s + wait_for(
            lambda: any(
                row["name"] == victim["name"]
                and row["state"] == "ready"
                and row["pid"] != victim["pid"]
                for row in fleet.status()["workers"]
            )
        )
        facts = {"takeover_s": round(takeover_s, 2), "replaced_s": round(replaced_s, 1)}
        _finish(ray_trial, table, "worker hung (SIGSTOP)", **facts)


def test_a_rolling_restart(ray_trial: RayTrial, table: Table) -> None:
    """Each worker has a successor before it goes, and hands over at once."""
    with ray_trial.connected() as fleet:
        before = {row["pid"] for row in ray_trial.up(fleet, score=2)["workers"]}
        ray_trial.publish(Load(streams={"events": 700, "recordings": 60}, per_s=80))
        began_s = time.monotonic()
        fleet.restart()
        unowned_s = _watch_owners(ray_trial, lambda: _is_restarted(fleet.status(), before))
        took_s = time.monotonic() - began_s
        facts = {"took_s": round(took_s, 1), "without_owner_s": round(unowned_s, 2)}
        _finish(ray_trial, table, "rolling restart", **facts)


def _is_restarted(status: dict[str, Any], before: set[int]) -> bool:
    rows = status["workers"]
    return len(rows) == len(before) and all(
        row["state"] == "ready" and row["pid"] not in before for row in rows
    )


def _watch_owners(trial: RayTrial, is_done: Callable[[], bool]) -> float:
    """Give the longest time that a partition was without an owner."""
    longest_s, since_s, deadline_s = 0.0, None, time.monotonic() + 200
    while not is_done():
        assert time.monotonic() < deadline_s, "not restarted"
        is_owned = bool(owners := trial.owners()) and all(owners)
        now_s = time.monotonic()
        since_s = None if is_owned else since_s or now_s
        longest_s = max(longest_s, now_s - since_s if since_s else 0.0)
        time.sleep(LOOK_S)
    return longest_s


def test_the_head_is_restarted(ray_trial: RayTrial, table: Table) -> None:
    """Without a store of its own Ray forgets everything; Redis has not: `up` says it again.

    While the head is away the workers go on for as long as Ray leaves the nodes without one.
    """
    with ray_trial.connected() as fleet:
        ray_trial.up(fleet, score=2)
        ray_trial.publish(Load(streams={"events": 500, "recordings": 60}, per_s=80))
        time.sleep(2)
        ray_trial.nodes.kill_head()
        began_s, done = time.monotonic(), ray_trial.status()["ledger"]["events_scored"]
        wait_for(lambda: ray_trial.status()["ledger"]["events_scored"] > done + 50)
    wait_for(lambda: not any(ray_trial.owners()))
    orphaned_s = time.monotonic() - began_s
    ray_trial.nodes.stop()
    ray_trial.nodes.start(1)
    with ray_trial.connected() as fleet:
        fleet.up()
        status = fleet.wait_until_ready(200)
        ray_trial.wait_until(lambda: ray_trial.is_owned_by(2))
        back_s = time.monotonic() - began_s
        facts = {"workers_went_on_s": round(orphaned_s, 1), "back_s": round(back_s, 1)}
        _finish(ray_trial, table, "head killed, cluster and fleet started anew", **facts)
        assert {name: role["wanted"] for name, role in status["roles"].items()} == {
            "detect": 1,
            "score": 2,
        }


def test_lag_adds_workers(ray_trial: RayTrial, table: Table) -> None:
    """What waits too long makes more of them, up to the most, and Redis says why.

    A batch of 8 takes 320 ms here on any machine, so one worker does 25 frames a second.
    """
    with ray_trial.connected() as fleet:
        ray_trial.up(fleet, score=1, most=2, FAKE_INFER_S="0.32")
        ray_trial.publish(Load(streams={"recordings": 125}, per_s=40))
        wait_for(lambda: fleet.status()["roles"]["detect"]["wanted"] == 2)
        grown_s = wait_for(lambda: fleet.status()["roles"]["detect"]["ready"] == 2)
        decision = fleet.status()["decisions"][0]
        facts = {"grown_s": round(grown_s, 1), "why": decision["reason"]}
        _finish(ray_trial, table, "more workers by lag", **facts)
        assert (decision["from"], decision["to"]) == ("1", "2")
        assert float(decision["oldest_s"]) > 0.5
