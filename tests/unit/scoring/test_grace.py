"""Frames detected after the events of their time: A, N, W and correlations wait for them."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.scoring.batch import EVENT, FRAME, TICK, InputBatch, InputBuilder
from pipeline.scoring.engine import Engine
from pipeline.scoring.kernel import MEAN, MOST_GRACE, ON_TIME, PATCHED
from pipeline.scoring.parameters import LAGS
from pipeline.scoring.vision import BUCKETS
from tests.unit.scoring.scoring_inputs import Floats, bin_start, independent

CLASSES = [32 | bucket for bucket in range(BUCKETS)]
FOLLOWED = ("fast", "slow", "alpha", "beta", "class_alpha", "mean", "variance", "cross")


def frames_behind(
    engine: Engine, values: Floats, behind: int, *, first: int = 0, mean: int = 0
) -> InputBatch:
    """Make a frame and an event a bin, each frame so many bins after the event of its time.

    The first frames show nothing, so that nothing is missed before it is known how late they come.
    A frame feeds channels 0 to 4, the class surprise of channel 5 and 16 classes, an event 8 to 15.
    """
    slot, builder = engine.slot("a"), InputBuilder()
    for k in range(len(values) + behind):
        if k < len(values):
            at_ms = bin_start(engine, slot, first + k)
            builder.add(slot, at_ms, EVENT, range(8, 16), values[k, 8:].tolist())
        if 0 <= (then := k - behind) < len(values):
            at_ms = bin_start(engine, slot, first + then)
            is_blank = then <= MOST_GRACE
            codes = [] if is_blank else [*[mean | c for c in range(5)], 64 | 5, *CLASSES]
            seen = [] if is_blank else [*values[then, :5], 0.0, *np.arange(BUCKETS) % 3]
            builder.add(slot, at_ms, FRAME, codes, seen)
    return builder.build()


def tick(engine: Engine, at_bin: int) -> None:
    builder = InputBuilder()
    builder.add(0, bin_start(engine, 0, at_bin), TICK)
    engine.step(builder.build())


@pytest.mark.parametrize("mean", [0, MEAN])
@pytest.mark.parametrize("behind", [1, 3, MOST_GRACE])
def test_what_follows_bins_is_as_if_frames_had_been_in_time(behind: int, mean: int) -> None:
    """Of the bins followed so far, but for the rounding of halves."""
    values = independent(np.random.default_rng(behind), 130)
    late, prompt = Engine(), Engine()
    lateness = late.step(frames_behind(late, values, behind, mean=mean)).lateness
    prompt.step(frames_behind(prompt, values, 0, mean=mean))
    tick(late, 130 + behind)
    tick(prompt, 130)

    assert lateness.tolist().count(PATCHED) == behind
    assert (lateness != ON_TIME).sum() == behind
    was, now = prompt._rows[0], late._rows[0]
    assert (int(now["grace_now"]), int(now["unfollowed"])) == (behind, behind)
    assert (int(was["grace_now"]), int(was["unfollowed"])) == (0, 0)
    for name in FOLLOWED:
        assert now[name] == pytest.approx(was[name], rel=2e-3, abs=2e-3), name


def test_a_planted_lag_is_found_however_long_detection_takes() -> None:
    """An event follows what is seen by two bins; frames come three bins behind it."""
    rng = np.random.default_rng(1)
    values, drive = independent(rng, 600), rng.standard_normal(600)
    values[:, 0] = rng.poisson(np.exp(1.5 + 0.9 * drive))
    values[:, 8] = rng.poisson(np.exp(1.5 + 0.9 * np.roll(drive, 2)))
    values[:, [1, 9]] = 0
    engine = Engine()
    stepped = engine.step(frames_behind(engine, values, 3))

    data = engine.data(0, stepped.snapshots[-1])
    pair = data["correlation"]["pair"]
    assert (data["patched"], data["too_late"], data["grace_ms"]) == (3, 0, 750)
    assert pair["lag_ms"] == 500
    assert pair["r"] > 0.6
    assert pair["p"] < 1e-6
    row = engine._rows[0]
    assert int(np.argmax(np.abs(row["cross"][:, 0, 0]))) - LAGS == 2


def test_frames_later_than_that_join_the_window_only() -> None:
    """They are counted, and what comes in time meanwhile is followed eight bins later at most."""
    engine = Engine()
    values = independent(np.random.default_rng(2), 60)
    result = engine.step(frames_behind(engine, values, MOST_GRACE + 2))

    assert result.lateness.tolist().count(PATCHED) == 51  # of the last ones some are nearer
    row = engine._rows[0]
    assert int(row["late_count"]) == 51
    assert engine.data(0, result.snapshots[-1])["patched"] >= 40
    assert int(row["unfollowed"]) == MOST_GRACE
    assert row["alpha"][:5].tolist() == pytest.approx([0.01] * 5, abs=0.01)


def test_the_wait_ends_with_the_need() -> None:
    """Two windows after the last frame that was behind, bins are followed as they close."""
    engine = Engine()
    engine.step(frames_behind(engine, independent(np.random.default_rng(3), 70), 4))
    graces = []
    for k in range(70, 270):
        values = independent(np.random.default_rng(k), 1)
        engine.step(frames_behind(engine, values, 0, first=k))
        graces.append((int(engine._rows[0]["grace_now"]), int(engine._rows[0]["unfollowed"])))

    assert graces[0] == (4, 4)
    assert graces[-1] == (0, 0)
    assert graces == sorted(graces, reverse=True)
    assert int(engine._rows[0]["valid_bins"]) == 269


def test_a_late_frame_is_held_up_to_the_next_one() -> None:
    """Averages of a slow camera: what bins hold between two frames, and after the newest one."""
    engine, builder = Engine(), InputBuilder()
    slot = engine.slot("a")

    def add(kind: int, at_bin: int, code: int, value: float) -> None:
        builder.add(slot, bin_start(engine, slot, at_bin), kind, [code], [value])

    add(FRAME, 0, MEAN, 100.0)
    add(EVENT, 6, 8, 1.0)
    add(FRAME, 1, MEAN, 101.0)  # from here on frames are waited for, five bins
    for k in range(7, 10):
        add(EVENT, k, 8, 1.0)
    add(FRAME, 8, MEAN, 108.0)
    add(FRAME, 6, MEAN, 106.0)
    add(EVENT, 12, 8, 1.0)
    engine.step(builder.build())

    row = engine._rows[slot]
    first = (bin_start(engine, slot) + int(row["phase_ms"])) // int(row["delta_ms"])
    halves = row["ring"].view(np.float16).astype(np.float64)
    held = [np.expm1(row["offset"][0] + halves[(first + k) % 64, 0]) for k in range(12)]
    wanted = [100, 101, 100, 100, 100, 100, 106, 106, 108, 108, 108, 108]
    assert held == pytest.approx(wanted, rel=1e-3)


def test_a_source_at_rest_waits_for_nothing() -> None:
    """A long silence ends the wait, and skips ahead as with any other source."""
    engine, other = Engine(), Engine()
    for each in (engine, other):
        each.step(frames_behind(each, independent(np.random.default_rng(4), 100), 5))
    tick(engine, 1_000_000)
    for at_bin in range(105, 700, 7):
        tick(other, at_bin)
    tick(other, 1_000_000)

    assert engine.save(0) == other.save(0)
    assert (int(engine._rows[0]["grace_now"]), int(engine._rows[0]["unfollowed"])) == (0, 0)
