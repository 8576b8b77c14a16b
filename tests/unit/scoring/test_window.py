"""The window: halves as IEEE has them, covariance as NumPy has it, steps found where they are."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.scoring.batch import HEARTBEAT, InputBuilder
from pipeline.scoring.engine import Engine
from pipeline.scoring.integration import RIDGE
from pipeline.scoring.scratch import make_scratch
from pipeline.scoring.window import change_points, from_half, lag_covariance, to_half


def test_halves_widen_as_ieee() -> None:
    """Every finite half widens to its value."""
    bits = np.arange(65536, dtype=np.uint16)
    values = bits.view(np.float16).astype(np.float32)
    finite = np.isfinite(values)

    widened = np.array([from_half(b) for b in bits[finite]])

    assert np.array_equal(widened, values[finite])


def test_halves_round_as_ieee() -> None:
    """Numbers round to the nearest half, to even on a tie, clipped at the largest."""
    rng = np.random.default_rng(1)
    numbers = rng.standard_normal(3000) * 10.0 ** rng.uniform(-4, 4, 3000)
    numbers = np.array([*numbers, 0.0, 1.0, 2049.0, 2051.0, 65504.0, 1e9, -1e9])

    rounded = np.array([to_half(x) for x in numbers], np.uint16).view(np.float16)

    clipped = np.clip(numbers, -65504, 65504).astype(np.float32)
    assert np.array_equal(rounded, clipped.astype(np.float16))


def test_covariance_of_valid_pairs() -> None:
    """Only neighbouring valid bins pair up; their covariance is NumPy's plus the ridge."""
    rng = np.random.default_rng(2)
    scratch = make_scratch()[0]
    z = rng.standard_normal((64, 8))
    z[:, 5] = 0
    adjacent = rng.random(64) < 0.8
    adjacent[0] = False
    alive = 0xFF & ~(1 << 5)

    pairs = lag_covariance(z, adjacent.astype(np.uint8), 60, alive, scratch, scratch["cov"])

    later = np.flatnonzero(adjacent[:60])
    both = np.stack([z[later - 1], z[later]], axis=2).reshape(len(later), 16)
    expected = np.cov(both.T, bias=True) + RIDGE * np.eye(16)
    expected[10, 10] = expected[11, 11] = 1
    assert pairs == len(later)
    assert np.abs(scratch["cov"] - expected).max() < 1e-12


@pytest.mark.parametrize(
    ("steps", "bounds"),
    [([], [0, 64]), ([40], [0, 40, 64]), ([20, 44], [0, 20, 44, 64]), ([60], [0, 64])],
)
def test_change_points(steps: list[int], bounds: list[int]) -> None:
    """Steps of five deviations are cut where they are; one younger than ten bins is not."""
    x = np.random.default_rng(3).standard_normal(64)
    for step in steps:
        x[step:] += 5.0
    cuts = np.zeros(6, np.int64)

    segments = change_points(x, 64, 6.0, cuts)

    found = cuts[: segments + 1].tolist()
    if steps == [60]:
        assert found[-2] <= 54
    else:
        assert found == pytest.approx(bounds, abs=1)


def test_a_source_of_heartbeats_only() -> None:
    """Heartbeats without any channel are valid silence: level 0, nothing to integrate."""
    engine, builder = Engine(), InputBuilder()
    slot = engine.slot("a")
    for k in range(400):
        builder.add(slot, 1_700_000_000_000 + 250 * k, HEARTBEAT)
    engine.step(builder.build())

    data = engine.data(slot, engine.snapshot(slot))
    assert data["components"]["integration"] == 0
    assert data["components"]["arousal"] == 0
    assert data["core"] == data["populations"]["population_id"] == []
    assert engine.report(slot)["pairs"] == []
