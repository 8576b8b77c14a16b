"""Surprise, workspace, level, phase and replicator against quadrature, algebra and definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import integrate, special, stats

from pipeline.scoring.dynamics import (
    digamma,
    direction,
    dirichlet_surprise,
    diversity,
    follow_workspace,
    gamma_surprise,
    level_of,
    select,
)
from pipeline.scoring.parameters import Parameters
from pipeline.scoring.state import fresh_row

P = Parameters().for_kernel()
UNIT = st.floats(0, 1)
_unhurried = settings(deadline=None)
Floats = NDArray[np.float64]


@pytest.mark.parametrize("x", [1e-3, 0.5, 1, 3.7, 8, 50, 1e6])
def test_digamma(x: float) -> None:
    """The series agrees with SciPy."""
    assert digamma(x) == pytest.approx(special.digamma(x), rel=1e-11, abs=1e-11)


@pytest.mark.parametrize(
    ("alpha", "beta", "x"), [(0.9, 0.9, 0), (2, 9, 1), (18, 9, 2), (18, 9, 40), (0.4, 9, 3)]
)
def test_gamma_surprise_by_quadrature(alpha: float, beta: float, x: float) -> None:
    """The closed form is the integral of posterior times log ratio."""
    before, after = stats.gamma(alpha, scale=1 / beta), stats.gamma(alpha + x, scale=1 / (beta + 1))

    def integrand(u: float) -> float:
        rate = math.exp(u)  # in ln(rate), where the density has no pole
        return float(after.pdf(rate) * rate * (after.logpdf(rate) - before.logpdf(rate)))

    centre = math.log((alpha + x) / (beta + 1))
    value, _ = integrate.quad(
        integrand, centre - 60, centre + 5, limit=2000, epsabs=1e-12, points=[centre - 2, centre]
    )

    assert gamma_surprise(alpha, beta, x) == pytest.approx(value, abs=1e-8)


def dirichlet_divergence(after: Floats, before: Floats) -> float:
    """Give KL(Dir(after) || Dir(before)) in full."""
    gammaln, psi = special.gammaln, special.digamma
    return float(
        gammaln(after.sum())
        - gammaln(before.sum())
        - (gammaln(after) - gammaln(before)).sum()
        + ((after - before) * (psi(after) - psi(after.sum()))).sum()
    )


def test_dirichlet_surprise() -> None:
    """One object is the O(1) form, several are the full divergence."""
    alpha = np.array([1.0, 4.0, 2.5, 7.0])
    total = alpha.sum()

    one = dirichlet_surprise(alpha, np.array([0.0, 1.0, 0.0, 0.0]))
    many = dirichlet_surprise(alpha, np.array([3.0, 0.0, 2.0, 0.0]))

    short = math.log(total) - math.log(4) + special.digamma(5) - special.digamma(total + 1)
    assert one == pytest.approx(short, abs=1e-12)
    assert many == pytest.approx(
        dirichlet_divergence(alpha + np.array([3, 0, 2, 0]), alpha), abs=1e-12
    )
    assert dirichlet_surprise(alpha, np.zeros(4)) == 0


def selection(share: Floats, fitness: Floats, eta: float, mu: float = 0.0) -> Floats:
    out = share.copy()
    select(out, fitness, eta, mu, np.zeros(8))
    return out


@_unhurried
@given(st.lists(UNIT, min_size=8, max_size=8), st.lists(UNIT, min_size=8, max_size=8))
def test_selection_keeps_the_simplex_and_raises_fitness(
    weights: list[float], fitness: list[float]
) -> None:
    """Shares add up to 1; without mutation mean fitness never falls."""
    share = np.array(weights) + 1e-3
    share /= share.sum()
    f = np.array(fitness)

    after = selection(share, f, 0.25)

    assert after.sum() == pytest.approx(1)
    assert (after @ f) >= (share @ f) - 1e-12


@pytest.mark.parametrize("seed", range(10))
def test_price_equation(seed: int) -> None:
    """The growth of mean fitness with pressure is the variance of fitness, to eight places."""
    rng = np.random.default_rng(seed)
    share, f = rng.dirichlet(np.ones(8)), rng.random(8)
    eta = 1e-4

    growth = (selection(share, f, eta) - selection(share, f, -eta)) @ f / (2 * eta)

    variance = share @ f**2 - (share @ f) ** 2
    assert variance > 0.01
    assert growth == pytest.approx(variance, abs=1e-8)


def test_fittest_takes_all() -> None:
    """Under constant fitness the fittest node's share goes to 1, and diversity to 0."""
    f = np.linspace(0.2, 0.9, 8)
    share: Floats = np.full(8, 1 / 8)
    assert diversity(share) == pytest.approx(1)

    for _ in range(1000):
        share = selection(share, f, 0.25)

    assert share[7] > 0.999
    assert diversity(share) < 0.01


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["random", "against"])
def test_hedge_regret(kind: str, seed: int) -> None:
    """Without mutation the replicator earns what the best node does, less sqrt(T ln 8 / 2) at most.

    That is Hedge's bound for eta = sqrt(8 ln 8 / T), here 22.80; it holds of random fitness and of
    fitness that only the smaller half of the shares has.
    """
    rng, rounds = np.random.default_rng(seed), 500
    eta, bound = math.sqrt(8 * math.log(8) / rounds), math.sqrt(rounds * math.log(8) / 2)
    share: Floats = np.full(8, 1 / 8)
    gains, earned = np.zeros(8), 0.0
    for _ in range(rounds):
        f = rng.random(8)
        if kind == "against":
            f *= share <= np.median(share)
        earned += float(share @ f)
        gains += f
        share = selection(share, f, eta)

    assert bound == pytest.approx(22.80, abs=0.005)
    assert 0 < gains.max() - earned <= bound


def test_select_returns_divergence_and_fitness() -> None:
    """The adaptation rate is KL(new || old), the second value the new mean fitness."""
    share, f = np.full(8, 1 / 8), np.linspace(0, 1, 8)

    moved, fitness = select(share, f, 0.25, 0.01, np.zeros(8))

    assert moved == pytest.approx((share * np.log(share * 8)).sum())
    assert fitness == pytest.approx(share @ f)


COMPONENTS = ("arousal", "differentiation", "integration", "workspace", "novelty", "filled")
Components = dict[str, float]
_components = st.fixed_dictionaries(dict.fromkeys(COMPONENTS, UNIT))


@_unhurried
@given(_components, st.sampled_from(COMPONENTS[:3]))
def test_level_is_bounded(components: Components, gate: str) -> None:
    """The level lies in [0, 1] and is 0 when arousal, differentiation or integration is."""
    assert 0 <= level_of(P, **components) <= 1
    assert level_of(P, **{**components, gate: 0.0}) == 0


@_unhurried
@given(_components, st.sampled_from(COMPONENTS), UNIT)
def test_level_is_monotone(components: Components, which: str, other: float) -> None:
    """More of any component never lowers the level."""
    raised = {**components, which: max(components[which], other)}

    assert level_of(P, **raised) >= level_of(P, **components) - 1e-12


def test_level_formula() -> None:
    """Worked example of L = K + beta K (1 - K)."""
    k = 0.8**0.20 * (0.9 * 0.5) ** 0.35 * (0.6 * 0.5) ** 0.45
    beta = 0.7 * 0.4 + 0.3 * 0.5

    level = level_of(P, **dict(zip(COMPONENTS, (0.8, 0.9, 0.6, 0.4, 0.5, 0.5), strict=True)))

    assert level == pytest.approx(k + beta * k * (1 - k))


@pytest.mark.parametrize(
    ("phase", "smooth", "way"),
    [
        (0, 0.09, 0), (0, 0.10, 1), (1, 0.30, 1), (1, 0.06, 0), (1, 0.04, -1), (2, 0.26, 0),
        (2, 0.24, -1), (3, 0.79, 0), (3, 0.8, 1), (3, 0.54, -1), (4, 0.73, 0), (4, 0.71, -1),
    ],
)  # fmt: skip
def test_direction(phase: int, smooth: float, way: int) -> None:
    """Every phase is entered at one level and left at a lower one."""
    assert direction(phase, smooth) == way


def test_workspace_and_refractory_ignitions() -> None:
    """Broad drive lifts W by half the way, ignitions are 8 bins apart, silence lets it fall."""
    row = fresh_row()[0]
    levels = []
    for k in range(20):
        follow_workspace(row, P[0], np.full(9, 5.0), 255, k)
        levels.append(float(row["workspace_now"]))

    drive = 1 - math.exp(-5)
    assert levels[0] == pytest.approx(0.5 * drive)
    assert levels[1] == pytest.approx(0.75 * drive)
    assert row["ignition_count"] == 3
