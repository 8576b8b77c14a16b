"""Workers that are killed, paused and replaced; whatever happens, the count is right."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.fault.checker import Outputs
from tests.fault.hooks import MOMENTS, PLACES
from tests.fault.publish import Load, Place
from tests.fault.trial import LEASE_MS, PARTITIONS, Trial

Table = Callable[[str, dict[str, Any]], None]


def test_nothing_happens(trial: Trial, table: Table) -> None:
    """The harness itself: without a fault everything is in order and nothing is late."""
    trial.fleet.start_many(2, 2)
    trial.publish(Load())
    took_s = trial.wait_until_quiet()
    verdict = trial.judge()
    assert verdict.is_clean, verdict
    assert verdict.inputs == Load().total
    assert trial.fleet.stop() == [0, 0, 0, 0]
    table("no fault", verdict.as_row() | {"seconds": round(took_s, 1)})


def test_kill_at_random(trial: Trial, table: Table, is_long: bool) -> None:
    """Any worker, at any moment, again and again."""
    wanted = 110 if is_long else 15
    trial.fleet.start_many(2, 2)
    per_s = 150.0
    events = int(wanted * 0.5 * per_s / 10)
    trial.publish(Load(streams={"events": events, "recordings": events // 4}, per_s=per_s))
    while trial.fleet.kills < wanted:
        time.sleep(trial.dice.uniform(0.1, 0.6))
        trial.fleet.kill(trial.dice.choice(list(trial.fleet.alive)))
        trial.fleet.revive()
    recovery_s = trial.wait_until_quiet()
    verdict = trial.judge()
    row = verdict.as_row() | {"kills": trial.fleet.kills, "recovery_s": round(recovery_s, 1)}
    table("kill -9 at random", row)
    assert verdict.is_clean, verdict


def test_kill_at_every_step(trial: Trial, table: Table, is_long: bool) -> None:
    """Before, during and after each step of both stages."""
    per_s, each_s = 100.0, 4.0 if is_long else 1.2
    steps = [(step, moment) for step in PLACES for moment in MOMENTS]
    events = int(len(steps) * each_s * per_s / 10)
    trial.publish(Load(streams={"events": events, "recordings": events // 4}, per_s=per_s))
    for number, (step, moment) in enumerate(steps):
        chance = 0.5 if step in ("acquire", "renew", "release", "claim") else 0.15
        order = {"KILL_AT": f"{step},{moment},{chance},{trial.seed + number}"}
        trial.fleet.start_many(2, 2, **order)
        ends_s = time.monotonic() + each_s
        while time.monotonic() < ends_s:
            time.sleep(0.1)
            trial.fleet.revive(**order)
        trial.fleet.reap()
        trial.fleet.codes += trial.fleet.stop()
    kills = trial.fleet.codes.count(-signal.SIGKILL)
    trial.fleet.start_many(2, 2)
    recovery_s = trial.wait_until_quiet()
    verdict = trial.judge()
    row = verdict.as_row() | {"kills": kills, "recovery_s": round(recovery_s, 1)}
    table("kill -9 at every step", row)
    assert verdict.is_clean, verdict
    assert kills >= (100 if is_long else 20)


def test_takeover_after_a_crash(trial: Trial, table: Table) -> None:
    """A dead owner's partitions have another within the lease and 2 s."""
    trial.fleet.start_many(1, 2)
    trial.publish(Load(per_s=150))
    trial.wait_until_owned()
    victim = trial.fleet.pids("score")[0]
    trial.fleet.kill(victim)
    name = trial.fleet.alive.pop(victim)[1]
    took_s = trial.wait_until(
        lambda: (owners := trial.owners()) and all(o and not o.startswith(name) for o in owners)
    )
    trial.wait_until_quiet()
    verdict = trial.judge()
    table("takeover after kill -9", verdict.as_row() | {"recovery_s": round(took_s, 2)})
    assert verdict.is_clean, verdict
    assert took_s <= LEASE_MS / 1e3 + 2 + 5 * trial.look_s()


@pytest.mark.parametrize("kind", ["score", "detect"])
def test_a_paused_worker_wakes_up(trial: Trial, table: Table, kind: str) -> None:
    """Stopped beyond its lease, with work in hand; what it then writes is refused."""
    trial.fleet.start_many(2, 2, FAKE_INFER_S="0.05")
    trial.publish(Load(streams={"events": 150, "recordings": 60}, per_s=200))
    for _ in range(3):
        time.sleep(0.3)
        pid = trial.dice.choice(trial.fleet.pids(kind))
        os.kill(pid, signal.SIGSTOP)
        time.sleep(2 * LEASE_MS / 1e3)
        os.kill(pid, signal.SIGCONT)
    recovery_s = trial.wait_until_quiet()
    verdict = trial.judge()
    row = verdict.as_row() | {"recovery_s": round(recovery_s, 1)}
    table(f"zombie: {kind} worker stopped for two leases, three times", row)
    assert verdict.is_clean, verdict


def test_a_rolling_restart(trial: Trial, table: Table) -> None:
    """SIGTERM under load: each worker finishes, hands over at once and exits 0."""
    trial.fleet.start_many(2, 2)
    trial.wait_until_owned()
    trial.publish(Load(streams={"events": 150, "recordings": 50}, per_s=200))
    codes, gaps_s = [], []
    for pid, (kind, name) in list(trial.fleet.alive.items()):
        time.sleep(0.3)
        codes += trial.fleet.stop([pid])
        if kind == "score":
            gaps_s.append(trial.wait_until(lambda: trial.owners() and all(trial.owners())))
        trial.fleet.start(kind, name)
    recovery_s = trial.wait_until_quiet()
    verdict = trial.judge()
    row = verdict.as_row() | {"takeover_s": round(max(gaps_s), 2)}
    table("SIGTERM drain, rolling restart", row | {"recovery_s": round(recovery_s, 1)})
    assert verdict.is_clean, verdict
    assert codes == [0, 0, 0, 0]
    assert not verdict.late
    assert max(gaps_s) < LEASE_MS / 1e3 + 10 * trial.look_s()


def test_the_fleet_grows_and_shrinks(trial: Trial, table: Table) -> None:
    """1 to 8 to 2 score workers, half of them killed: partitions are spread evenly."""
    trial.fleet.start_many(1, 1)
    trial.wait_until_owned()
    trial.publish(Load(streams={"events": 200, "recordings": 30}, per_s=150))
    for number in range(1, 8):
        trial.fleet.start("score", f"score-{number}")
    grown_s = trial.wait_until(lambda: len({*trial.owners()} - {None}) == PARTITIONS)
    leaving = trial.fleet.pids("score")[2:]
    for pid in leaving[:3]:
        trial.fleet.kill(pid)
        trial.fleet.alive.pop(pid)
    trial.fleet.stop(leaving[3:])
    shrunk_s = trial.wait_until(
        lambda: (
            (owners := trial.owners())
            and all(owners)
            and set(Counter(owners).values()) == {PARTITIONS // 2}
        )
    )
    trial.wait_until_quiet()
    verdict = trial.judge()
    facts = {"grown_s": round(grown_s, 1), "shrunk_s": round(shrunk_s, 1)}
    table("scale 1 to 8 to 2 score workers", verdict.as_row() | facts)
    assert verdict.is_clean, verdict


def test_a_slow_frame_holds_up_no_other_partition(trial: Trial, table: Table) -> None:
    """One frame that takes 3 s: with two detect workers the other goes on."""

    def slow(place: Place, number: int) -> str:
        return "slow:30" if place == ("recordings", "src-3") and number == 10 else ""

    trial.fleet.start_many(2, 1)
    trial.wait_until_owned()
    trial.publish(Load(streams={"recordings": 40}, per_s=100, poison=slow)).join()
    done = trial.status()["ledger"]["frames_detected"]
    trial.wait_until_quiet()
    verdict = trial.judge()
    table("head of line: one frame takes 3 s", verdict.as_row() | {"detected_at_the_end": done})
    assert verdict.is_clean, verdict


@pytest.mark.parametrize("favourite", [1, 8])
def test_overload(trial: Trial, table: Table, favourite: int) -> None:
    """Live frames three times as fast as they can be detected: the oldest go, each counted.

    With the default bounds batches stay full, frames fresh, and a source that sends eight times
    as much as each of the others does not take their place.
    """
    settings = {"PERCIPIO_FRAMES_BACKLOG": "256", "PERCIPIO_FRAME_MAX_AGE_MS": "1000"}
    trial.fleet.start_many(1, 1, FAKE_INFER_S="0.16", **settings)
    trial.wait_until_owned()
    load = Load(streams={"frames": 900 // (7 + favourite)}, per_s=150, favourite=favourite)
    trial.publish(load).join()
    took_s = trial.wait_until_quiet()
    verdict, status = trial.judge(), trial.status()
    ledger = status["ledger"]
    dropped = ledger["frames_dropped_overflow"] + ledger["frames_dropped_age"]
    with trial.connect() as client:
        states = [trial.keys.of_source(f"src-{n}").state(f"src-{n}") for n in range(8)]
        counted = sum(int(client.hget(state, "frames_dropped") or 0) for state in states)
        shares = [int(client.hget(state, "frames") or 0) for state in states]
        timings = Outputs(client, trial.keys).timings()
    waited_ms = sorted(timing["queued_ms"] for timing in timings)
    fill = len(timings) / sum(1 / timing["batch"] for timing in timings)
    facts = {
        "detected": ledger["frames_detected"],
        "dropped_and_counted": dropped,
        "mean_batch_of_8": round(fill, 1),
        "detected_of_a_source": f"{min(shares)} to {max(shares)}",
        "waited_ms": f"{waited_ms[len(waited_ms) // 2]:.0f}, at most {waited_ms[-1]:.0f}",
    }
    row = "overload x 3" + (", one source sends half of it" if favourite > 1 else "")
    uncounted = {"lost": verdict.lost - dropped, "recovery_s": round(took_s, 1)}
    table(row, verdict.as_row() | facts | uncounted)
    assert uncounted["lost"] == verdict.doubled == verdict.reordered == 0, verdict
    assert status["balanced"]
    assert not status["in_flight"]
    assert dropped + ledger["frames_detected"] == load.total
    assert counted == dropped
    assert fill > 5
    assert max(shares) < 3 * sorted(shares)[len(shares) // 2]
    assert min(shares) * 12 > max(shares)
