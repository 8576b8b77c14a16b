"""The engine: any split of the same inputs, any restart, any silence gives the same numbers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numba import config

from pipeline.errors import EntryError, Reason
from pipeline.scoring import parameters
from pipeline.scoring.batch import EVENT, FRAME, HEARTBEAT, TICK, InputBatch, InputBuilder
from pipeline.scoring.engine import Engine, is_compiled, warm_up
from pipeline.scoring.kernel import ON_TIME, PATCHED, TOO_LATE
from pipeline.scoring.parameters import Parameters
from pipeline.scoring.state import BLOB_VERSION, NEVER, ROW
from pipeline.scoring.vision import FrameValues
from tests.unit.scoring.scoring_inputs import (
    DELTA_MS,
    START_MS,
    bin_start,
    bins,
    coupled,
    independent,
)

SOURCES = ("cam-1", "robot-7", "agent:3")
_quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
Input = tuple[int, int, int, dict[str, float]]
"""Source, time, kind, values."""


def story(seed: int, count: int) -> list[Input]:
    """Make inputs of three sources: coupled events, frames, heartbeats, stragglers, gaps, ticks.

    A tick is at the source's clock or ahead of it, so that what comes next may be a straggler.
    """
    rng = np.random.default_rng(seed)
    clock = [START_MS + int(rng.integers(0, 1000)) for _ in SOURCES]
    drive = np.zeros(6)
    out: list[Input] = []
    for _ in range(count):
        source = int(rng.integers(0, 3))
        clock[source] += int(
            rng.choice([30, 120, 250, 400, 900, 7000], p=[0.3, 0.3, 0.2, 0.15, 0.04, 0.01])
        )
        ts = clock[source] - int(rng.choice([0, 600, 5000, 40_000], p=[0.9, 0.05, 0.03, 0.02]))
        drive = 0.8 * np.roll(drive, 1) + rng.standard_normal(6)
        kind = int(rng.choice([EVENT, HEARTBEAT, FRAME, TICK], p=[0.72, 0.05, 0.13, 0.1]))
        if kind == FRAME and source != 0:
            kind = EVENT
        if kind == TICK:
            ts = clock[source] + int(rng.choice([0, 300, 1500, 9000], p=[0.6, 0.2, 0.15, 0.05]))
        names = rng.choice(6, int(rng.integers(1, 6)), replace=False)
        values = {f"c{k}": float(np.exp(drive[k])) * (-1) ** k for k in names}
        out.append((source, ts, kind, {} if kind in (HEARTBEAT, TICK) else values))
    return out


def add(engine: Engine, builder: InputBuilder, entry: Input) -> None:
    source, ts, kind, values = entry
    slot = engine.slot(SOURCES[source])
    if kind == FRAME:
        seen = FrameValues(tuple(abs(values.get(f"c{k}", 0.0)) for k in range(8)), {0: 2, 3: 1})
        builder.add(slot, ts, FRAME, *engine.encode_frame(slot, seen))
    elif kind == EVENT:
        builder.add(slot, ts, EVENT, *engine.encode_event(slot, values))
    else:
        builder.add(slot, ts, kind)


def play(
    inputs: list[Input], cuts: list[int], ticks: np.random.Generator | None = None
) -> tuple[list[bytes], list[tuple[float, int, int]]]:
    """Step through the inputs, cut into batches; with ticks that pass no later input's time.

    Returns:
        every source's blob, and level, its time and phase after each input.
    """
    engine = Engine(capacity=1)
    builder = InputBuilder()
    after: list[tuple[float, int, int]] = []
    bounds = sorted({0, *(c % (len(inputs) + 1) for c in cuts), len(inputs)})
    for start, stop in pairwise(bounds):
        kept = []
        for k in range(start, stop):
            kept.append(len(builder))
            add(engine, builder, inputs[k])
            if ticks is None or ticks.random() < 0.5:
                continue
            source, ts = inputs[k][:2]
            later = [t for s, t, _, _ in inputs[k + 1 :] if s == source]
            if later:
                until = min(*later, ts + 20_000) if len(later) > 1 else later[0]
                for _ in range(int(ticks.integers(1, 4))):
                    builder.add(
                        engine.slot(SOURCES[source]),
                        int(ticks.integers(ts - 500, until + 1)) if until > ts else until,
                        TICK,
                    )
        result = engine.step(builder.build())
        after += [
            (float(result.level[k]), int(result.level_ts[k]), int(result.phase[k])) for k in kept
        ]
    return [engine.save(engine.slot(name)) for name in SOURCES], after


@_quick
@given(st.integers(0, 10**6), st.lists(st.integers(0, 400), max_size=12))
def test_any_split_gives_the_same(seed: int, cuts: list[int]) -> None:
    """However inputs are cut into batches, state and every level are the same, bit for bit."""
    inputs = story(seed, 400)

    assert play(inputs, cuts) == play(inputs, [])


@_quick
@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_ticks_that_pass_no_input_change_nothing(seed: int, other: int) -> None:
    """Ticks between inputs leave state and levels as they are without them."""
    inputs = story(seed, 300)

    blobs, after = play(inputs, [100, 200], np.random.default_rng(other))

    plain, levels = play(inputs, [])
    assert after == levels
    assert blobs == plain


def test_the_story_reaches_levels() -> None:
    """The inputs of the properties above exercise more than zeros."""
    _, after = play(story(1, 600), [])

    assert max(level for level, _, _ in after) > 0.2
    assert len({phase for _, _, phase in after}) > 1


@_quick
@given(st.integers(0, 10**6), st.integers(1, 299))
def test_restore_continues_bit_for_bit(seed: int, at: int) -> None:
    """A saved source continued elsewhere gives what an engine that never stopped gives."""
    inputs = story(seed, 300)
    first, builder = Engine(), InputBuilder()
    for entry in inputs[:at]:
        add(first, builder, entry)
    first.step(builder.build())
    second = Engine(capacity=1)
    second.slot("somebody-else")
    for name in SOURCES:
        if name in first:
            blob = first.save(first.slot(name))
            assert second.save(second.restore(name, blob)) == blob

    outcomes = []
    for engine in (first, second):
        for entry in inputs[at:]:
            add(engine, builder, entry)
        result = engine.step(builder.build())
        outcomes.append(
            (
                result.level.tobytes(),
                result.phase.tobytes(),
                [engine.save(engine.slot(name)) for name in SOURCES],
            )
        )

    assert outcomes[0] == outcomes[1]


def test_blob_is_small_and_versioned() -> None:
    """No source takes more than its row; another version, cut and foreign bytes are refused."""
    engine = Engine()
    blob = engine.save(engine.slot("a"))

    assert len(blob) < 600
    assert ROW.itemsize <= 5300
    assert max(map(len, play(story(1, 600), [])[0])) < ROW.itemsize + 200
    other = bytes([*blob[:2], BLOB_VERSION + 1, *blob[3:]])
    with pytest.raises(ValueError, match=f"version {BLOB_VERSION + 1}"):
        engine.restore("a", other)
    for size in (len(blob) - 1, 60):
        with pytest.raises(ValueError, match=r"expected|cut short"):
            engine.restore("a", blob[:size])
    with pytest.raises(ValueError, match="not a score state"):
        engine.restore("a", b"something else")


def test_a_blob_of_all_channels_is_deflated() -> None:
    """With all channels in use it is smaller, gives the same row, and a damaged one is refused."""
    engine, other = Engine(), Engine()
    slot = engine.slot("a")
    names = [f"a-channel-of-a-long-name-{channel}" for channel in range(16)]
    engine.encode_event(slot, dict.fromkeys(names, 0.0))
    engine.step(window(engine, slot, 0, 161))
    blob = engine.save(slot)

    assert len(blob) < 4900
    assert other.save(other.restore("a", blob)) == blob
    assert other.snapshot(0) == engine.snapshot(slot)
    for damaged in (blob[:-1], blob + b"x", blob[:-900] + bytes(900)):
        with pytest.raises(ValueError, match="deflated"):
            engine.restore("a", damaged)


def test_blob_of_other_parameters_starts_anew() -> None:
    """Bins of another width cannot be continued."""
    engine = Engine()
    slot = engine.slot("a")
    engine.step(bins(engine, slot, np.ones((20, 16))))
    other = Engine(Parameters(delta_ms=500))

    assert other.source_ts(other.restore("a", engine.save(slot))) is None


def window(engine: Engine, slot: int, first: int, stop: int, seed: int = 1) -> InputBatch:
    values = coupled(np.random.default_rng(seed), stop)[first:]
    return bins(engine, slot, values, first)


def tick(engine: Engine, slot: int, first: int) -> InputBatch:
    builder = InputBuilder()
    builder.add(slot, bin_start(engine, slot, first), TICK)
    return builder.build()


def test_silence_lets_the_level_fall() -> None:
    """Ticked silence after coupling: the level falls step by step to 0, the phase to dormant."""
    engine = Engine()
    slot = engine.slot("a")
    before = float(engine.step(window(engine, slot, 0, 161)).level[-1])
    levels = [
        float(engine.step(tick(engine, slot, 161 + k)).level[-1]) for k in (8, 16, 32, 48, 66, 200)
    ]

    assert before > 0.3
    assert levels[0] > 0.5 * before
    assert levels[2] < 0.75 * before
    assert levels[4:] == [0, 0]
    assert engine.snapshot(slot)["phase"] == 0


def test_a_long_absence_costs_no_more_than_the_window() -> None:
    """A jump over a year equals the same jump made in small steps, and ends at rest."""
    a, b = Engine(), Engine()
    for engine in (a, b):
        engine.step(window(engine, engine.slot("a"), 0, 100))
    year = 365 * 86_400 * 1000 // DELTA_MS
    for k in range(110, 1500, 7):
        a.step(tick(a, 0, k))
    for engine in (a, b):
        engine.step(tick(engine, 0, year))

    assert a.save(0) == b.save(0)
    assert a.snapshot(0)["level"] == 0
    assert a.snapshot(0)["level_ts"] > bin_start(a, 0, year - 5)


@pytest.mark.parametrize("far", [-(2**53), 0, 2**53])
def test_times_far_away(far: int) -> None:
    """The farthest times are taken; beyond them a batch is refused."""
    engine = Engine()
    slot = engine.slot("a")
    builder = InputBuilder()
    builder.add(slot, far, EVENT, [0], [1.0])
    builder.add(slot, START_MS, EVENT, [0], [1.0])
    engine.step(builder.build())
    builder.add(slot, 2**53 + 1, EVENT)

    assert engine.source_ts(slot) == max(far, START_MS)
    with pytest.raises(ValueError, match="ts_ms"):
        builder.build()


def test_kernels_of_other_code_are_not_taken(tmp_path: Path) -> None:
    """Wherever they are cached: the folder is named after the code of all files."""
    code = "import pipeline.scoring, numba; print(numba.config.CACHE_DIR)"
    environ = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    found = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )

    folder = Path(found.stdout.strip())
    assert folder.parent == tmp_path
    assert folder.is_dir()
    assert folder.name == Path(config.CACHE_DIR).name  # type: ignore[attr-defined]
    assert re.fullmatch("kernels-[0-9a-f]{12}", folder.name)


def test_late_events_change_the_ring_only() -> None:
    """A straggler joins its column and its bin's validity; A, N, W stay what they were."""
    engine, plain = Engine(), Engine()
    for each in (engine, plain):
        each.step(window(each, each.slot("a"), 0, 100))
    builder = InputBuilder()
    builder.add(0, bin_start(engine, 0, 80), EVENT, [3], [5.0])
    builder.add(0, bin_start(engine, 0, 99 - 64), EVENT, [3], [5.0])
    builder.add(0, bin_start(engine, 0, 99 - 65), EVENT, [3], [5.0])

    result = engine.step(builder.build())

    assert result.lateness.tolist() == [PATCHED, PATCHED, TOO_LATE]
    changed = {
        name
        for name in ROW.names or ()
        if not np.array_equal(engine._rows[0][name], plain._rows[0][name], equal_nan=True)
    }
    assert changed == {"ring", "late_count", "too_late_count"}
    column = (bin_start(engine, 0, 80) + int(engine._rows[0]["phase_ms"])) // DELTA_MS % 64
    was, now = (
        float(each._rows[0]["ring"][column, 3].view(np.float16)) for each in (plain, engine)
    )
    assert np.expm1(now) == pytest.approx(np.expm1(was) + 5, rel=2e-3)


def test_late_event_equals_one_in_time_in_d_and_i() -> None:
    """What a straggler adds is seen by the next evaluation as if it had been in time."""
    values = np.round(coupled(np.random.default_rng(3), 100))
    engine, plain = Engine(), Engine()
    full = bins(plain, plain.slot("a"), values)
    plain.step(full)
    missing = values.copy()
    missing[90, 2] = 0
    engine.step(bins(engine, engine.slot("a"), missing))
    builder = InputBuilder()
    builder.add(0, bin_start(engine, 0, 90), EVENT, [2], [float(values[90, 2])])
    engine.step(builder.build())
    for each in (engine, plain):
        each.step(tick(each, 0, 105))

    for name in ("differentiation", "integration", "phi", "core"):
        assert engine.snapshot(0)[name] == pytest.approx(plain.snapshot(0)[name], rel=1e-3)


def test_late_mean_samples() -> None:
    """A held mean becomes measured by a late sample, a measured one is averaged with it."""
    engine = Engine()
    slot = engine.slot("a")
    builder = InputBuilder()
    for k in (0, 3, 10):
        builder.add(slot, bin_start(engine, slot, k), EVENT, [16 | 5], [100.0 + k])
    builder.add(slot, bin_start(engine, slot, 5), EVENT, [16 | 5], [50.0])
    builder.add(slot, bin_start(engine, slot, 3), EVENT, [16 | 5], [101.0])
    engine.step(builder.build())

    row = engine._rows[slot]
    first = (bin_start(engine, slot) + int(row["phase_ms"])) // DELTA_MS
    halves = row["ring"].view(np.float16).astype(np.float64)
    held = [np.expm1(row["offset"][5] + halves[(first + k) % 64, 5]) for k in range(7)]
    assert held == pytest.approx([100, 100, 100, 102, 103, 50, 103], rel=1e-3)


def test_heartbeats_make_silence_valid() -> None:
    """With heartbeats quiet bins are valid zeros; without, they are missing after `stale_after`."""
    counts = []
    for kind in (HEARTBEAT, TICK):
        engine = Engine()
        slot = engine.slot("a")
        engine.step(window(engine, slot, 0, 30))
        builder = InputBuilder()
        for k in range(30, 60):
            builder.add(slot, bin_start(engine, slot, k), kind)
        engine.step(builder.build())
        counts.append(bin(int(engine._rows[slot]["valid"])).count("1"))

    assert counts == [59, 30 + Parameters().stale_bins(DELTA_MS)]


def test_missing_bins_leave_integration_unknown() -> None:
    """Fewer than 32 pairs of valid neighbours: I is unknown, the level 0, confidence low."""
    engine = Engine()
    slot = engine.slot("a")
    early = engine.step(window(engine, slot, 0, 33))
    last = early.snapshots[early.snapshot[-1]]
    later = engine.step(window(engine, slot, 33, 42))
    known = later.snapshots[later.snapshot[-1]]

    assert np.isnan(last["integration"])
    assert last["level"] == 0
    assert engine.data(slot, last)["components"]["integration"] is None
    assert last["confidence"] == pytest.approx(29 / 64)
    assert not np.isnan(known["integration"])


def test_one_channel_scores_nothing() -> None:
    """One channel alone is differentiated at best, never integrated."""
    engine = Engine()
    slot = engine.slot("a")
    engine.step(bins(engine, slot, independent(np.random.default_rng(1), 130)[:, :1]))

    snapshot = engine.snapshot(slot)
    assert snapshot["differentiation"] > 0.8
    assert snapshot["integration"] == snapshot["level"] == 0


def test_channels_of_a_node_commute() -> None:
    """Exchanging the two channels inside every node leaves I as it is, to rounding."""
    values = coupled(np.random.default_rng(2), 130)
    values[:, ::2] *= 1.5
    found = []
    for order in (np.arange(16), np.arange(16) ^ 1):
        engine = Engine()
        slot = engine.slot("a")
        engine.step(bins(engine, slot, values[:, order]))
        found.append(float(engine.snapshot(slot)["integration"]))

    assert found[0] > 0.1
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_signed_values() -> None:
    """Negative values are as valid as positive ones: flipping all signs changes no I."""
    rng = np.random.default_rng(5)
    values = coupled(rng, 130) * rng.choice([-1, 1], (130, 16))
    snapshots = []
    for sign in (1, -1):
        engine = Engine()
        slot = engine.slot("a")
        engine.step(bins(engine, slot, sign * values))
        snapshots.append(engine.snapshot(slot))

    for name in ("arousal", "integration", "novelty", "phi"):
        assert snapshots[0][name] == pytest.approx(snapshots[1][name], rel=1e-5)


@pytest.mark.parametrize("value", [1e38, -1e38, 0.0, 1e-30])
def test_extreme_values_stay_finite(value: float) -> None:
    """Whatever finite number comes, components stay within [0, 1]."""
    engine = Engine()
    slot = engine.slot("a")
    values = coupled(np.random.default_rng(6), 130)
    values[::3] = value
    engine.step(bins(engine, slot, values))

    snapshot = engine.snapshot(slot)
    for name in ("level", "arousal", "differentiation", "integration", "workspace", "novelty"):
        assert 0 <= snapshot[name] <= 1


def test_snapshots_hold_as_of_each_input() -> None:
    """The snapshot of an input is what a step that ended there would have left."""
    values = coupled(np.random.default_rng(7), 90)
    engine = Engine()
    slot = engine.slot("a")
    result = engine.step(bins(engine, slot, values))

    for stop in (10, 41, 42, 77):
        other = Engine()
        other.step(bins(other, other.slot("a"), values[:stop]))
        assert result.snapshots[result.snapshot[stop - 1]].tobytes() == other.snapshot(0).tobytes()
    changes = np.flatnonzero(result.phase_changed)
    assert changes.size
    assert (result.phase[changes] == result.phase_before[changes] + 1).all()


def test_late_counts_reach_snapshots() -> None:
    """A snapshot is as of the last evaluation, stragglers show in the next."""
    engine = Engine()
    slot = engine.slot("a")
    engine.step(window(engine, slot, 0, 100))
    builder = InputBuilder()
    builder.add(slot, bin_start(engine, slot, 80), EVENT, [3], [5.0])
    builder.add(slot, bin_start(engine, slot, 108), EVENT, [3], [5.0])
    result = engine.step(builder.build())

    assert result.lateness.tolist() == [PATCHED, ON_TIME]
    assert result.snapshots[result.snapshot[1]]["late"] == 1


def test_a_look_ahead_changes_nothing() -> None:
    """`peek` gives what a step gives, and leaves the source as it is."""
    engine = Engine()
    slot = engine.slot("a")
    engine.step(window(engine, slot, 0, 161))
    before = engine.save(slot)

    seen = engine.peek(tick(engine, slot, 190))

    assert engine.save(slot) == before
    done = engine.step(tick(engine, slot, 190))
    assert seen.level.tolist() == done.level.tolist() != [0.0]
    assert seen.snapshots.tobytes() == done.snapshots.tobytes()


def test_what_an_older_engine_saved_is_not_continued(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers of two engine versions never meet in one window."""
    engine = Engine()
    slot = engine.slot("a")
    engine.step(window(engine, slot, 0, 50))
    blob = engine.save(slot)
    monkeypatch.setattr(parameters, "ENGINE_VERSION", parameters.ENGINE_VERSION + 1)
    newer = Engine()

    assert newer.source_ts(newer.restore("a", blob)) is None
    assert newer.data(0, newer.snapshot(0))["engine_version"].startswith(
        f"{parameters.ENGINE_VERSION}-250ms-"
    )


def test_trend_and_stability() -> None:
    """A level that rises says so, one that stands still is steady and stable."""
    engine = Engine()
    slot = engine.slot("a")
    rise = engine.step(window(engine, slot, 0, 81))
    rising = engine.data(slot, rise.snapshots[rise.snapshot[-1]])
    engine.step(tick(engine, slot, 140))
    fallen = engine.data(slot, engine.snapshot(slot))
    engine.step(tick(engine, slot, 400))
    rested = engine.data(slot, engine.snapshot(slot))
    quiet = Engine()
    quiet.step(bins(quiet, quiet.slot("a"), np.ones((200, 16))))
    steady = quiet.data(0, quiet.snapshot(0))

    assert (rising["trend"], fallen["trend"], steady["trend"]) == ("rising", "falling", "steady")
    assert rested["trend"] == "steady"
    assert steady["stability"] == 1.0
    assert 0.0 < rising["stability"] < 1.0
    assert (rising["band"], fallen["band"]) == ("high", "low")


def test_slots_are_reused_clean() -> None:
    """A forgotten source's slot serves the next one, with nothing left in it; capacity grows."""
    engine = Engine(capacity=1)
    slot = engine.slot("a")
    engine.step(window(engine, slot, 0, 100))
    empty = Engine()
    for k in range(10):
        engine.slot(f"b{k}")
    engine.forget("a")

    assert engine.slot("c") == slot
    assert engine.save(slot) == empty.save(empty.slot("c"))
    assert len(engine) == 11
    assert "a" not in engine


def test_batches_are_checked() -> None:
    """Wrong dtypes, offsets and slots are refused before anything is applied."""
    engine = Engine()
    one = np.zeros(1, np.int32)
    good = (one, np.zeros(1, np.int64), np.zeros(1, np.uint8))
    no_codes = (np.zeros(0, np.uint8), np.zeros(0, np.float32))

    with pytest.raises(ValueError, match="slot"):
        InputBatch(one.astype(np.int64), *good[1:], np.zeros(2, np.int64), *no_codes)
    with pytest.raises(ValueError, match="start"):
        InputBatch(*good, np.array([0, 3]), *no_codes)
    with pytest.raises(IndexError, match="slots"):
        engine.step(InputBatch(*good, np.zeros(2, np.int64), *no_codes))


def test_values_are_checked() -> None:
    """A number that is not finite makes the event a dead letter and places no name."""
    engine = Engine()
    slot = engine.slot("a")

    with pytest.raises(EntryError, match=r"'y'.*finite") as error:
        engine.encode_event(slot, {"x": 1.0, "y": float("nan")})

    assert error.value.reason is Reason.BAD_FIELD
    assert engine.encode_event(slot, {"z": 1.0}) == ([8], [1.0])


def test_warm_up() -> None:
    """Warming up compiles or loads, and leaves the kernel ready."""
    warm_up()

    assert is_compiled()
    assert NEVER < -(2**60)


def test_sources_leave_nothing_to_each_other() -> None:
    """A source of few nodes beside others of many is what it is alone, to the bit.

    The working memory is shared: what a window of more nodes left there must not show.
    """
    counts = (8, 1, 3, 16, 2, 5, 4, 7)
    together, alone = Engine(), [Engine() for _ in counts]
    rng = np.random.default_rng(5)
    for turn in range(200):
        common = rng.gamma(2.0)
        for number, (count, single) in enumerate(zip(counts, alone, strict=True)):
            noise = rng.gamma(1.0, size=count).tolist()
            values = {f"c{k}": common + each for k, each in enumerate(noise)}
            for engine in (together, single):
                slot, builder = engine.slot(f"s{number}"), InputBuilder()
                builder.add(slot, 250 * turn, EVENT, *engine.encode_event(slot, values))
                engine.step(builder.build())

    saved = [together.save(together.slot(f"s{number}")) for number in range(len(counts))]

    assert saved == [single.save(single.slot(f"s{n}")) for n, single in enumerate(alone)]
    reached = [together.snapshot(together.slot(f"s{number}")) for number in range(len(counts))]
    assert sum(one["core"] > 0 for one in reached) >= 5
