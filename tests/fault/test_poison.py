"""Inputs that fail, hang or kill whoever touches them: they end as dead letters, alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.dead import list_dead, replay_dead
from pipeline.deployment import find_deployment
from tests.fault.publish import Load, Place
from tests.fault.trial import PATIENCE_S, Trial

Table = Callable[[str, dict[str, Any]], None]
VICTIM = "src-3"
NUMBER = 17


def _poison(stream: str, command: str) -> Callable[[Place, int], str]:
    def choose(place: Place, number: int) -> str:
        return command if place == (stream, VICTIM) and number == NUMBER else ""

    return choose


@pytest.mark.parametrize("command", ["raise", "hang", "kill", "segv", "oom"])
def test_a_poison_frame(trial: Trial, table: Table, command: str) -> None:
    """One frame of 240 is a dead letter; its neighbours are detected, once and in order."""
    extra = {"PERCIPIO_STALL_S": "1"} if command == "hang" else {}
    trial.fleet.start_many(1, 1, **extra)
    load = Load(streams={"recordings": 30}, per_s=200, poison=_poison("recordings", command))
    began_s = time.monotonic()
    trial.publish(load)
    trial.wait_until_quiet(PATIENCE_S, **extra)
    verdict = trial.judge()
    crashes = sum(code != 0 for code in trial.fleet.codes)
    row = verdict.as_row() | {
        "crashes": crashes,
        "recovery_s": round(time.monotonic() - began_s, 1),
    }
    table(f"poison frame: {command}", row)
    assert verdict.is_clean, verdict
    assert verdict.dead == 1
    assert crashes <= 6


@pytest.mark.parametrize("command", ["raise", "kill"])
def test_a_poison_event(trial: Trial, table: Table, command: str) -> None:
    """One event of 800 is a dead letter; its neighbours are scored, once and in order."""
    load = Load(streams={"events": 100}, per_s=0, poison=_poison("events", command))
    trial.publish(load).join()
    began_s = time.monotonic()
    trial.fleet.start_many(1, 1)
    trial.wait_until_quiet()
    verdict = trial.judge()
    crashes = sum(code != 0 for code in trial.fleet.codes)
    row = verdict.as_row() | {
        "crashes": crashes,
        "recovery_s": round(time.monotonic() - began_s, 1),
    }
    table(f"poison event: {command}", row)
    assert verdict.is_clean, verdict
    assert verdict.dead == 1


def test_a_replayed_dead_letter_is_processed_once(trial: Trial) -> None:
    trial.fleet.start_many(1, 1)
    load = Load(streams={"recordings": 20}, per_s=0, poison=_poison("recordings", "raise"))
    trial.publish(load)
    trial.wait_until_quiet()
    assert trial.judge().dead == 1

    async def replay() -> list[str]:
        async with find_deployment(trial.url, trial.keys.prefix) as store:
            return [await replay_dead(store, letter.name) async for letter in list_dead(store)]

    assert len(asyncio.run(replay())) == 1
    trial.wait_until(lambda: trial.status()["ledger"]["frames_dead"] == 2)
    trial.wait_until_quiet()
    assert trial.status()["ledger"]["frames_in"] == load.total + 1
