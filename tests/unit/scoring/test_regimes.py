"""Levels of known dynamics are ordered as they should be; emergent takes an ignition."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.regimes import REGIMES, independent, ring, score, slow
from pipeline.scoring.parameters import PHASES, Parameters

SOURCES = 8


@lru_cache
def snapshots(name: str) -> NDArray[np.void]:
    return score(REGIMES[name], SOURCES, 120).snapshots


def level(name: str) -> float:
    return float(snapshots(name)["level"].mean())


def test_order() -> None:
    """Silence = constant = one channel = 0 < independent < half coupled < coupled."""
    assert level("silence") == level("constant") == level("one channel") == 0
    assert 0 <= level("independent 2/bin") < 0.05
    assert 0.2 < level("half coupled") < level("coupled .85")
    assert level("coupled .85") > 0.65


def test_coupling_is_monotone() -> None:
    """The level grows with the coupling."""
    assert level("coupled .3") < level("coupled .6") < level("coupled .85")
    assert level("coupled .3") < 0.2


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("independent 2/bin", 0.0, 0.05),
        ("independent .1/bin", 0.0, 0.05),
        ("independent slow", 0.0, 0.10),
        ("copies of one", 0.30, 0.44),
        ("common rate, own noise", 0.45, 0.70),
        ("half coupled", 0.25, 0.50),
        ("coupled .6", 0.35, 0.60),
        ("coupled .85", 0.65, 0.82),
        ("independent + bursts", 0.30, 0.62),
    ],
)
def test_within_the_spread(name: str, low: float, high: float) -> None:
    """Each regime's level lies where the documentation says."""
    assert low <= level(name) <= high


def test_redundant_copies_are_discounted() -> None:
    """Copies of one channel are integrated but redundant and undifferentiated."""
    s = snapshots("copies of one")

    assert s["o_ratio"].mean() == pytest.approx(0.71, abs=0.05)
    assert s["differentiation"].mean() < 0.25


def test_surrogates_take_slow_noise_out() -> None:
    """Independent slow rates look integrated without surrogates and do not with them."""
    plain = score(slow, SOURCES, 120, Parameters(surrogates=False))

    assert level("independent slow") < 0.1
    assert plain.mean("level") > level("independent slow")


def test_a_common_step_is_not_integration() -> None:
    """A step of all rates at once is taken out once it is ten bins old."""

    def step(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
        rate = np.where(np.arange(n)[:, None] < n - 60, 2.0, 4.0)
        return rng.poisson(rate, (n, 16)).astype(np.float64)

    after = score(step, SOURCES, 40)
    blind = score(step, SOURCES, 40, Parameters(change_threshold=1e9, surrogates=False))

    assert after.mean("level") < 0.1
    assert blind.mean("level") > 0.2


def test_emergent_takes_an_ignition() -> None:
    """Only coupling with stimuli becomes emergent, never one without an ignition."""
    emergent = PHASES.index("emergent")

    stimulated = score(ring(0.95, stimulus_bins=24), SOURCES, 160).snapshots
    quiet = score(ring(0.95), SOURCES, 160).snapshots

    assert (stimulated["phase"] == emergent).any()
    assert (stimulated["ignitions"][stimulated["phase"] == emergent] > 0).all()
    assert not (quiet["phase"] == emergent).any()
    assert not quiet["ignitions"].any()


def test_emergent_takes_surrogates() -> None:
    """Without a null nothing becomes emergent, however high the level."""
    plain = score(ring(0.95, stimulus_bins=24), SOURCES, 160, Parameters(surrogates=False))

    assert (plain.snapshots["level"] > 0.8).any()
    assert (plain.snapshots["ignitions"] > 0).any()
    assert plain.snapshots["phase"].max() == PHASES.index("focused")


def test_phases_move_one_step_at_a_time_and_dwell() -> None:
    """No phase is skipped, and each is kept for at least three evaluations."""
    phases = score(ring(0.85), SOURCES, 256, fill=0).snapshots["phase"].astype(int)

    for path in phases:
        moves = np.flatnonzero(np.diff(path))
        assert (np.abs(np.diff(path)) <= 1).all()
        assert moves.size >= 3
        assert (np.diff(moves) >= 3).all()


def test_null_is_the_same_again() -> None:
    """Surrogates are drawn from the source and the bin: a second run gives the same bits."""
    again = score(REGIMES["coupled .6"], SOURCES, 120).snapshots

    for name in ("level", "null", "phi", "share", "phase"):
        assert np.array_equal(again[name], snapshots("coupled .6")[name])
    assert (again["null"] >= 0.2).all()
    assert (again["null"] > 0.21).any()


def test_replicator_favours_coupled_nodes() -> None:
    """With half the nodes coupled their shares grow at the cost of the others."""
    share = snapshots("half coupled")["share"][:, -1]

    assert np.abs(share.sum(1) - 1).max() < 1e-5
    assert share[:, :4].sum(1).min() > 0.6


def test_every_bin_evaluated() -> None:
    """A hop of one evaluates every bin and sees the same sources."""
    each = score(independent(2.0), 3, 64, Parameters(hop_bins=1))

    assert each.snapshots.shape == (3, 64)
    assert each.mean("level") < 0.1
