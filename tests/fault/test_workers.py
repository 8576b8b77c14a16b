"""Workers that are killed, paused and replaced; whatever happens, the count is right."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.fault.hooks import MOMENTS, PLACES
from tests.fault.publish import Load
from tests.fault.trial import LEASE_MS, Trial

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
