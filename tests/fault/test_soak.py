"""Everything at once, for a long time."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.fault.publish import Load
from tests.fault.rig import Server
from tests.fault.trial import LEASE_MS, Trial

SOAK_S = 1200.0


def _pause(trial: Trial, _server: Server) -> None:
    pid = trial.dice.choice(list(trial.fleet.alive))
    os.kill(pid, signal.SIGSTOP)
    time.sleep(1.5 * LEASE_MS / 1e3)
    os.kill(pid, signal.SIGCONT)


def _kill(trial: Trial, _server: Server) -> None:
    trial.fleet.kill(trial.dice.choice(list(trial.fleet.alive)))


def _restart(trial: Trial, _server: Server) -> None:
    pid = trial.dice.choice(list(trial.fleet.alive))
    kind, name = trial.fleet.alive[pid]
    trial.fleet.stop([pid])
    trial.fleet.start(kind, name)


def _kill_redis(_trial: Trial, server: Server) -> None:
    server.kill()
    time.sleep(0.3)
    server.start()


def _flush_functions(_trial: Trial, server: Server) -> None:
    with server.client as client:
        client.function_flush("SYNC")


def _cut_connections(_trial: Trial, server: Server) -> None:
    with server.client as client:
        client.execute_command("CLIENT KILL", "TYPE", "normal")


NEMESES = (_pause, _kill, _kill, _restart, _kill_redis, _flush_functions, _cut_connections)


@pytest.mark.timeout(1800)
def test_a_mixed_soak(
    trial: Trial, server: Server, table: Callable[[str, dict[str, Any]], None], is_long: bool
) -> None:
    """Kills, pauses, restarts, flushes and cut connections, 20 minutes, 20 s in the short form."""
    lasts_s = SOAK_S if is_long else 20.0
    trial.fleet.start_many(2, 2)
    per_s = 50.0
    events = int(lasts_s * per_s / 10)
    trial.publish(Load(streams={"events": events, "recordings": events // 4}, per_s=per_s))
    ends_s, faults = time.monotonic() + lasts_s, 0
    while time.monotonic() < ends_s:
        time.sleep(trial.dice.uniform(0.5, 2.0))
        trial.dice.choice(NEMESES)(trial, server)
        trial.fleet.revive()
        faults += 1
    recovery_s = trial.wait_until_quiet()
    verdict = trial.judge()
    facts = {"faults": faults, "minutes": round(lasts_s / 60, 1)}
    table("mixed soak", verdict.as_row() | facts | {"recovery_s": round(recovery_s, 1)})
    assert verdict.is_clean, verdict
