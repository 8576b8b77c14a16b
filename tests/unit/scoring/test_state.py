"""The phase that spreads sources over a window, and what a straggler does to a missing bin."""

from __future__ import annotations

from zlib import crc32

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.scoring.batch import EVENT, InputBuilder
from pipeline.scoring.engine import Engine
from pipeline.scoring.kernel import PATCHED, TOO_LATE
from pipeline.scoring.parameters import Parameters
from pipeline.scoring.state import ROW, golden_phase
from tests.unit.scoring.scoring_inputs import DELTA_MS, bin_start, bins, coupled, phase_ms

PERIOD_MS = Parameters().period_ms


@given(st.integers(0, 2**32 - 1), st.integers(1, 64 * 3_600_000))
def test_a_phase_lies_within_the_window(source_hash: int, period_ms: int) -> None:
    """Whatever the hash and the bin width, the phase is a whole time in [0, period)."""
    assert 0 <= golden_phase(source_hash, period_ms) < period_ms


def test_a_phase_is_the_names_alone() -> None:
    """Another engine, with other sources before it, gives a source the same phase."""
    one, other = Engine(), Engine()
    other.slot("somebody-else")

    phase = phase_ms(one, one.slot("cam-1"))

    assert phase == phase_ms(other, other.slot("cam-1"))
    assert phase == golden_phase(crc32(b"cam-1"), PERIOD_MS)
    assert phase != phase_ms(other, other.slot("cam-2"))


@pytest.mark.parametrize("pattern", ["cam-{}", "robot-{:03}", "agent:{}", "site-{}/cam", "{}"])
@pytest.mark.parametrize("delta_ms", [1, 250, 1000])
def test_sources_spread_evenly(pattern: str, delta_ms: int) -> None:
    """Of 1,000 sources no 64th of the window holds 2.5 times its share or nothing."""
    engine = Engine(Parameters(delta_ms=delta_ms, stale_after_ms=5 * delta_ms), capacity=1000)
    period_ms = engine.parameters.period_ms
    phases = [phase_ms(engine, engine.slot(pattern.format(k))) for k in range(1000)]

    held = np.bincount(np.array(phases) * 64 // period_ms, minlength=64)

    assert held.size == 64
    assert held.min() > 0
    assert held.max() < 2.5 * 1000 / 64


@pytest.mark.parametrize("step", [1, 2, 10, 256])
def test_neighbouring_hashes_are_golden(step: int) -> None:
    """Hashes in a row, which a random spread would clump, lie nearly as even as can be."""
    phases = [golden_phase(step * k, PERIOD_MS) for k in range(1000)]

    held = np.bincount(np.array(phases) * 64 // PERIOD_MS, minlength=64)

    assert held.max() - held.min() <= 8


def with_a_gap() -> Engine:
    """Give an engine whose source sent nothing in bins 30 to 69, of which 50 to 69 are missing."""
    engine = Engine()
    slot = engine.slot("a")
    values = coupled(np.random.default_rng(1), 100)
    engine.step(bins(engine, slot, values[:30]))
    engine.step(bins(engine, slot, values[70:], 70))
    return engine


def straggle(engine: Engine, at_bin: int) -> int:
    """Send one event of channel 3 at a bin; give its lateness."""
    builder = InputBuilder()
    builder.add(0, bin_start(engine, 0, at_bin), EVENT, [3], [5.0])
    return int(engine.step(builder.build()).lateness[0])


def valid_bins(engine: Engine) -> set[int]:
    """Give the valid bins of the window, counted as `bin_start` counts."""
    row = engine._rows[0]
    newest = int(row["bin"]) - 1 - (bin_start(engine, 0) + int(row["phase_ms"])) // DELTA_MS
    return {newest - k for k in range(64) if int(row["valid"]) >> k & 1}


def test_a_straggler_makes_its_missing_bin_valid() -> None:
    """Of 20 missing bins the one it falls into becomes valid; ring and counts change, no more."""
    engine, plain = with_a_gap(), with_a_gap()

    assert straggle(engine, 60) == PATCHED

    missing = set(range(50, 70))
    assert set(range(35, 99)) - valid_bins(plain) == missing
    assert valid_bins(engine) - valid_bins(plain) == {60}
    changed = {
        name
        for name in ROW.names or ()
        if not np.array_equal(engine._rows[0][name], plain._rows[0][name], equal_nan=True)
    }
    assert changed == {"ring", "valid", "late_count"}


def test_a_straggler_beyond_the_window_makes_nothing_valid() -> None:
    """Further back than 64 bins it is counted only."""
    engine, plain = with_a_gap(), with_a_gap()

    assert straggle(engine, 34) == TOO_LATE

    assert engine._rows[0]["valid"] == plain._rows[0]["valid"]


def test_the_next_evaluation_sees_the_bin_in_d_and_i_only() -> None:
    """Three late inputs, three valid bins more: D and Phi move; A, N and W are as without them."""
    engine, plain = with_a_gap(), with_a_gap()
    for at_bin in (51, 52, 53):
        straggle(engine, at_bin)
    values = coupled(np.random.default_rng(2), 105)
    for each in (engine, plain):
        each.step(bins(each, 0, values[100:], 100))

    now, was = engine.snapshot(0), plain.snapshot(0)
    assert now["level_ts"] == was["level_ts"]
    assert now["bins"] == was["bins"] + 3
    assert now["late"] == was["late"] + 3
    assert now["differentiation"] != was["differentiation"]
    assert now["phi"] != was["phi"]
    for name in ("arousal", "novelty", "workspace", "ignitions"):
        assert now[name] == was[name]
