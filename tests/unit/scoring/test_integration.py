"""Integration against plain NumPy, exhaustive search and closed forms."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.scoring.integration import (
    complexity_bias,
    entropies,
    equal_time,
    integrated,
    main_complex,
    neural_complexity,
    weakest_cut,
)
from pipeline.scoring.scratch import load_tables, make_scratch
from pipeline.scoring.window import lag_covariance

Floats = NDArray[np.float64]
TABLES = load_tables()[0]
NO_BIAS = np.zeros(9)
ALL = 255


def interleaved(now: Floats, lagged: Floats) -> Floats:
    """Arrange Cov(x, x) = Cov(y, y) and Cov(y, x) as x and y of every node in turn."""
    n = len(now)
    cov = np.eye(16)
    for i, j in itertools.product(range(n), range(n)):
        cov[2 * i, 2 * j] = cov[2 * i + 1, 2 * j + 1] = now[i, j]
        cov[2 * i + 1, 2 * j] = cov[2 * j, 2 * i + 1] = lagged[i, j]
    return cov


def var1(weights: Floats) -> Floats:
    """Give the exact covariance of a VAR(1) with unit noise."""
    now = np.eye(len(weights))
    for _ in range(3000):
        now = weights @ now @ weights.T + np.eye(len(weights))
    return interleaved(now, weights @ now)


def ring(n: int, w: float) -> Floats:
    return w * np.roll(np.eye(n), 1, axis=0)


def computed(cov: Floats) -> Any:
    scratch = make_scratch()[0]
    entropies(cov, ALL, NO_BIAS, scratch, TABLES)
    return scratch


def conditional(cov: Floats, subset: int) -> float:
    """Give h(M) with NumPy: half the log-determinant of y given x."""
    members = [g for g in range(8) if subset >> g & 1]
    x = [2 * g for g in members]
    both = x + [2 * g + 1 for g in members]
    whole = np.linalg.slogdet(cov[np.ix_(both, both)])[1]
    return float(0.5 * (whole - np.linalg.slogdet(cov[np.ix_(x, x)])[1]))


def phi(h: Floats, subset: int) -> float:
    """Give the weakest bipartition by trying all."""
    cuts = [a for a in range(1, subset) if a & subset == a and a != subset]
    return float(min(h[a] + h[subset ^ a] for a in cuts) - h[subset])


def random_covariance(seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((64, 16)) @ (np.eye(16) + 0.3 * rng.standard_normal((16, 16)))
    return np.asarray(np.cov(x.T, bias=True))


@pytest.mark.parametrize("seed", range(5))
def test_entropies_of_every_subset(seed: int) -> None:
    """All 255 subset entropies agree with NumPy's log-determinants to 1e-12."""
    cov = random_covariance(seed)

    h = computed(cov)["h"]

    expected = [conditional(cov, m) if m else 0.0 for m in range(256)]
    assert np.abs(h - expected).max() < 1e-12


def test_entropies_of_the_nodes_that_vary_are_those_among_all() -> None:
    """Whatever nodes are left out, the others' subsets have the same entropies and minors."""
    cov = random_covariance(7)
    whole, scratch = computed(cov), make_scratch()[0]
    for alive in range(256):
        scratch["h"], scratch["det_now"] = np.nan, np.nan

        entropies(cov, alive, NO_BIAS, scratch, TABLES)

        for m in (m for m in range(256) if m & ~alive == 0):
            assert scratch["h"][m] == pytest.approx(whole["h"][m], abs=1e-12)
            at = m & 31, m >> 5
            assert scratch["det_now"][at] == pytest.approx(whole["det_now"][at], rel=1e-12)
        others = [m for m in range(256) if m & ~alive]
        assert np.isnan(scratch["h"][others]).all()


@pytest.mark.parametrize("seed", range(3))
def test_main_complex_by_exhaustion(seed: int) -> None:
    """The search finds the best subset and its weakest cut among all of them."""
    h = computed(random_covariance(seed))["h"]
    subsets = [m for m in range(256) if m.bit_count() > 1]
    scores = {
        m: m.bit_count() / 8 * math.sqrt(1 - math.exp(-2 * max(0, phi(h, m)))) for m in subsets
    }

    score, core_phi, core = main_complex(h, ALL, 8, 0.0, TABLES)

    assert score == pytest.approx(max(scores.values()), abs=1e-12)
    assert core == max(scores, key=lambda m: scores[m])
    assert core_phi == pytest.approx(phi(h, core), abs=1e-12)
    least, cut = weakest_cut(h, core)
    assert h[cut] + h[core ^ cut] - h[core] == pytest.approx(least)
    assert least == pytest.approx(core_phi)


@pytest.mark.parametrize("seed", range(3))
def test_weakest_cut_by_exhaustion(seed: int) -> None:
    """Of every subset of two and more nodes the weakest cut is the least of all its cuts."""
    h = computed(random_covariance(seed))["h"]

    for subset in [m for m in range(256) if m.bit_count() > 1]:
        least, cut = weakest_cut(h, subset)
        assert least == pytest.approx(phi(h, subset), abs=1e-12)
        assert h[cut] + h[subset ^ cut] - h[subset] == pytest.approx(least, abs=1e-12)


@pytest.mark.parametrize("n", range(2, 9))
@pytest.mark.parametrize(("w", "printed"), [(0.3, 0.094311), (0.5, 0.287682), (0.9, 1.660731)])
def test_ring(n: int, w: float, printed: float) -> None:
    """A ring's weakest cut is -ln(1 - w^2) whatever its length, its atoms N/2 times that."""
    h = computed(var1(ring(n, w)))["h"]
    whole = (1 << n) - 1

    value, _cut = weakest_cut(h, whole)
    atoms = sum(h[1 << g] for g in range(n)) - h[whole]

    expected = -math.log(1 - w * w)
    assert value == pytest.approx(expected, abs=1e-12)
    assert atoms == pytest.approx(n / 2 * expected, abs=1e-12)
    assert expected == pytest.approx(printed, abs=5e-7)


def test_two_rings() -> None:
    """Two rings without a link are not integrated as a whole; the stronger is the complex."""
    weights = np.zeros((8, 8))
    weights[:4, :4] = ring(4, 0.5)
    weights[4:, 4:] = ring(4, 0.8)
    h = computed(var1(weights))["h"]

    _score, value, core = main_complex(h, ALL, 8, 0.0, TABLES)
    least, cut = weakest_cut(h, ALL)

    assert least == pytest.approx(0, abs=1e-12)
    assert {cut, ALL ^ cut} == {0b1111, 0b11110000}
    assert core == 0b11110000
    assert value == pytest.approx(-math.log(1 - 0.64), abs=1e-12)
    assert value == pytest.approx(1.021651, abs=5e-7)


@pytest.mark.parametrize("a", [0.1, 0.6, 0.95])
def test_swap(a: float) -> None:
    """Two nodes that copy each other with weight a have Phi = -ln(1 - a^2)."""
    h = computed(var1(np.array([[0, a], [a, 0]])))["h"]

    assert weakest_cut(h, 3)[0] == pytest.approx(-math.log(1 - a * a), abs=1e-12)


def test_equicorrelated() -> None:
    """TC, DTC, O-information and C_N of eight nodes correlated .4 have their closed forms."""
    scratch = computed(interleaved(0.6 * np.eye(8) + 0.4, np.zeros((8, 8))))

    total, dual = equal_time(scratch["det_now"], ALL, 8)

    assert total == pytest.approx(1.120389, abs=1e-6)
    assert dual == pytest.approx(0.478011, abs=1e-6)
    assert total - dual == pytest.approx(0.642378, abs=1e-6)
    assert neural_complexity(scratch["det_now"], ALL, 8, TABLES) == pytest.approx(
        1.241186, abs=1e-6
    )


def discrete(kind: str) -> Floats:
    """Give the joint distribution of four bits."""
    table = np.zeros((2, 2, 2, 2))
    if kind == "giant bit":
        table[0, 0, 0, 0] = table[1, 1, 1, 1] = 0.5
    elif kind == "parity":
        table[np.indices(table.shape).sum(0) % 2 == 0] = 1 / 8
    else:
        table += np.random.default_rng(3).dirichlet(np.ones(16)).reshape(table.shape)
    return table


@pytest.mark.parametrize(
    ("kind", "bits"), [("giant bit", (3, 1)), ("parity", (1, 3)), ("random", None)]
)
def test_the_same_identities_hold_of_discrete_variables(
    kind: str, bits: tuple[float, float] | None
) -> None:
    """With their entropies for those of Gaussians, TC and DTC are what they are by definition.

    TC is the divergence from the product of the marginals, DTC what is left of the entropy without
    each variable's own share given the others.
    """
    table = discrete(kind)
    marginals = [table.sum(tuple({0, 1, 2, 3} - set(some))) for some in ((0,), (1,), (2,), (3,))]
    apart = np.einsum("i,j,k,l->ijkl", *marginals)
    kept = table > 0
    divergence = float((table[kept] * np.log(table[kept] / apart[kept])).sum())
    entropy = float(-(table[kept] * np.log(table[kept])).sum())
    own = 0.0
    for axis in range(4):
        given = (table / np.maximum(table.sum(axis, keepdims=True), 1e-300))[kept]
        own -= float((table[kept] * np.log(given)).sum())
    det_now = np.ones((32, 8))
    for subset in range(1, 16):
        others = tuple(g for g in range(4) if not subset >> g & 1)
        some = table.sum(others).ravel()
        det_now[subset, 0] = math.exp(-2 * float((some[some > 0] * np.log(some[some > 0])).sum()))

    total, dual = equal_time(det_now, 0b1111, 4)

    assert total == pytest.approx(divergence, abs=1e-9)
    assert dual == pytest.approx(entropy - own, abs=1e-9)
    if bits is not None:
        assert (total, dual) == pytest.approx([each * math.log(2) for each in bits], abs=1e-9)


HALVES = np.array([a for a in range(1, 128) if a.bit_count() == 4])
"""One side of each of the 35 cuts of eight nodes into four and four."""


def white_noise(number: int, seed: int) -> tuple[Floats, Floats]:
    """Give Phi of a cut 4|4, corrected, mean over all of them, and the score; of windows of noise.

    White noise does not know the nodes apart, so that all these cuts have one expectation.
    """
    rng = np.random.default_rng(seed)
    scratch = make_scratch()[0]
    scratch["adjacent"][:] = True
    h = scratch["h"]
    corrected, score = np.zeros(number), np.zeros(number)
    for k in range(number):
        z = rng.standard_normal((64, 8))
        scratch["z"][:] = (z - z.mean(0)) / z.std(0)
        pairs = lag_covariance(scratch["z"], scratch["adjacent"], 64, ALL, scratch, scratch["cov"])
        entropies(scratch["cov"], ALL, TABLES["bias"][pairs], scratch, TABLES)
        corrected[k] = np.mean(h[HALVES] + h[ALL ^ HALVES]) - h[ALL]
        score[k] = main_complex(h, ALL, 8, 0.0, TABLES)[0]
    return corrected, score


@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", [20_000, pytest.param(100_000, marks=pytest.mark.long)])
def test_white_noise(number: int) -> None:
    """White noise: Phi(4|4) .461 without correction, below .003 with it, score rarely above .20.

    The mean of so many windows is known to a standard error of .0006 and less; the bound holds of
    the mean and two of these.
    """
    corrected, score = white_noise(number, 1)

    error = corrected.std() / math.sqrt(number)
    assert error < 0.0006
    assert abs(corrected.mean()) + 2 * error < 0.003
    bias = TABLES["bias"][63]
    assert corrected.mean() + 2 * bias[4] - bias[8] == pytest.approx(0.4611, abs=0.003)
    assert np.mean(score > 0.20) < 0.08
    assert np.quantile(score, 0.95) == pytest.approx(0.206, abs=0.003)


def test_white_noise_has_no_complexity() -> None:
    """C_N of white noise is 0 on average, and so is the whole less its parts, once corrected."""
    rng, scratch = np.random.default_rng(2), make_scratch()[0]
    scratch["adjacent"][:] = True
    raw, wms = np.zeros(3000), np.zeros(3000)
    bias = TABLES["equal_bias"][63]
    for k in range(len(raw)):
        z = rng.standard_normal((64, 8))
        scratch["z"][:] = (z - z.mean(0)) / z.std(0)
        pairs = lag_covariance(scratch["z"], scratch["adjacent"], 64, ALL, scratch, scratch["cov"])
        entropies(scratch["cov"], ALL, TABLES["bias"][pairs], scratch, TABLES)
        raw[k] = neural_complexity(scratch["det_now"], ALL, 8, TABLES)
        now = 0.5 * np.log(scratch["det_now"].T.ravel())
        whole, half, rest = (now[m] - scratch["h"][m] for m in (ALL, 0x0F, 0xF0))
        wms[k] = whole - bias[8] - (half + rest - 2 * bias[4])

    assert raw.mean() == pytest.approx(0.436, abs=0.01)
    assert raw.mean() - complexity_bias(bias, 8) == pytest.approx(0, abs=0.005)
    assert wms.mean() == pytest.approx(0, abs=0.005)


def test_discount() -> None:
    """I is what exceeds the null, less the redundant part; synergy adds nothing."""
    assert integrated(0.6, 0.2, 0.0) == pytest.approx(0.5)
    assert integrated(0.6, 0.2, 0.5) == pytest.approx(0.25)
    assert integrated(0.6, 0.2, -0.5) == pytest.approx(0.5)
    assert integrated(0.1, 0.2, 0.0) == 0
