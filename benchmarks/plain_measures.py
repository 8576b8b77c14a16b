"""The measures of a window as one writes them first: plain Python and NumPy, formula by formula.

The oracle of the compiled kernels: docs/scoring.md says what each of these is. Arrays are
(bins, places), oldest bin first; a subset of nodes is a bit mask.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, gammaln

from pipeline.scoring.integration import RIDGE
from pipeline.scoring.parameters import CHANNELS, NODES, SURROGATES, WINDOW
from pipeline.scoring.scratch import load_tables
from pipeline.scoring.window import SEGMENT

Floats = NDArray[np.float64]
CHANGE = 6.0
_MEASURED = load_tables()[0]
SHUFFLED: Floats = _MEASURED["shuffled"]
BIAS: Floats = _MEASURED["bias"]
FLOOR: Floats = _MEASURED["floor"]
_WORD = 2**64 - 1


def transform(value: float) -> float:
    """Give sign(x) log1p(|x|)."""
    return math.copysign(math.log1p(abs(value)), value)


def restore(y: float) -> float:
    """Undo `transform`."""
    return math.copysign(math.expm1(abs(y)), y)


def surprise(alpha: float, beta: float, x: float) -> float:
    """Give KL(Gamma(alpha + x, beta + 1) || Gamma(alpha, beta)), nats."""
    after = alpha + x
    value = alpha * math.log((beta + 1) / beta) - after / (beta + 1)
    if x > 0:
        value += x * float(digamma(after)) - float(gammaln(after)) + float(gammaln(alpha))
    return max(0.0, value)


def lz76(text: str) -> int:
    """Count the phrases of the exhaustive history (Lempel & Ziv 1976)."""
    phrases, at = 0, 0
    while at < len(text):
        length = 1
        while at + length <= len(text) and text[at : at + length] in text[: at + length - 1]:
            length += 1
        at += length
        phrases += 1
    return phrases


def shuffled_phrases(symbols: int, ones: int) -> float:
    """Interpolate the mean phrases of shuffled strings in the shipped table."""
    share = min(ones, symbols - ones) / symbols
    across = (SHUFFLED.shape[1] - 1) * math.sqrt(2 * share)
    down = symbols * (SHUFFLED.shape[0] - 1) / (CHANNELS * WINDOW)
    j, i = min(int(across), SHUFFLED.shape[1] - 2), min(int(down), SHUFFLED.shape[0] - 2)
    u, v = across - j, down - i
    low = SHUFFLED[i, j] * (1 - u) + SHUFFLED[i, j + 1] * u
    high = SHUFFLED[i + 1, j] * (1 - u) + SHUFFLED[i + 1, j + 1] * u
    return float(low * (1 - v) + high * v)


def differentiation(y: Floats) -> float:
    """Give D: phrases of the channels that vary, over those of a shuffled string."""
    active = y[:, y.max(0) > y.min(0)]
    bits = (active > active.mean(0)).astype(int).ravel()
    if not bits.any():
        return 0.0
    phrases = lz76("".join(map(str, bits)))
    return min(1.0, phrases / shuffled_phrases(len(bits), int(bits.sum())))


def segments(activity: Floats) -> list[int]:
    """Give the bounds of at most four segments, split where a two-sample t exceeds 6."""
    bounds = [0, len(activity)]
    while len(bounds) < 5:
        strongest, where = CHANGE**2, -1
        for start, stop in pairwise(bounds):
            for at in range(start + SEGMENT, stop - SEGMENT + 1):
                squared = _squared_t(activity[start:stop], at - start)
                if squared > strongest:
                    strongest, where = squared, at
        if where < 0:
            break
        bounds = sorted([*bounds, where])
    return bounds


def _squared_t(x: Floats, at: int) -> float:
    size = len(x)
    squares = float(((x - x.mean()) ** 2).sum())
    left = float((x[:at] - x.mean()).sum())
    between = left * left * size / (at * (size - at))
    if between < 1e-12:
        return 0.0
    return between * (size - 2) / max(squares - between, 1e-9 * squares)


def standardise(y: Floats) -> tuple[Floats, int]:
    """Sum channels to nodes, take steps of the total activity out, z-score.

    Returns:
        float64 (bins, 8), and the mask of the nodes that vary.
    """
    z = y[:, ::2] + y[:, 1::2]
    bounds = segments(np.abs(y).sum(1))
    scale = np.zeros(NODES)
    for start, stop in pairwise(bounds):
        middle = z[start:stop].mean(0)
        scale = np.maximum(scale, np.abs(middle))
        z[start:stop] -= middle
    deviation = np.sqrt((z**2).mean(0))
    varies = deviation > 1e-7 * np.maximum(scale, 1e-3)
    z[:, varies] /= deviation[varies]
    z[:, ~varies] = 0
    return z, sum(1 << g for g in range(NODES) if varies[g])


def members(subset: int) -> list[int]:
    """List the nodes of a mask."""
    return [g for g in range(NODES) if subset >> g & 1]


def subsets_of(mask: int) -> list[int]:
    """List the subsets of a mask that are not empty."""
    return [m for m in range(1, mask + 1) if m & mask == m]


@dataclass(slots=True)
class Integration:
    """What the covariance of a window says: entropies by subset, the main complex, redundancy."""

    h: dict[int, float]
    score: float = 0.0
    core: int = 0
    redundancy: float = 0.0


def integrate(z: Floats, later: Sequence[int], alive: int, declared: int) -> Integration:
    """Search all subsets of the nodes that vary and all their bipartitions.

    Args:
        z: float64 (bins, 8), standardised nodes.
        later: rows whose predecessor is the bin before.
        alive: mask of the nodes that vary.
        declared: number of nodes that can be fed.
    """
    x, y = z[np.array(later) - 1], z[np.array(later)]
    cov = np.cov(np.hstack([x, y]).T, bias=True) + RIDGE * np.eye(2 * NODES)
    found = Integration({})
    for subset in subsets_of(alive):
        nodes = members(subset)
        both = nodes + [NODES + g for g in nodes]
        whole = np.linalg.slogdet(cov[np.ix_(both, both)])[1]
        past = np.linalg.slogdet(cov[np.ix_(nodes, nodes)])[1]
        found.h[subset] = float(0.5 * (whole - past)) - BIAS[len(later), len(nodes)]
    for subset in sorted(found.h, key=int.bit_count, reverse=True):
        phi = weakest(found.h, subset)
        if phi <= 0:
            continue
        score = subset.bit_count() / declared * math.sqrt(1 - math.exp(-2 * phi))
        if score > found.score:
            found.score, found.core = score, subset
    if found.core:
        found.redundancy = redundancy(cov, members(found.core))
    return found


def weakest(h: dict[int, float], subset: int) -> float:
    """Give Phi across the weakest bipartition of a subset, nats; 0 of a single node."""
    cuts = [part for part in subsets_of(subset) if part != subset]
    return min((h[part] + h[subset ^ part] for part in cuts), default=h[subset]) - h[subset]


def redundancy(cov: Floats, nodes: list[int]) -> float:
    """Give (TC - DTC) / (TC + DTC) of the nodes at one time (Rosas et al. 2019)."""

    def entropy(chosen: list[int]) -> float:
        return float(0.5 * np.linalg.slogdet(cov[np.ix_(chosen, chosen)])[1]) if chosen else 0.0

    whole = entropy(nodes)
    total = sum(entropy([g]) for g in nodes) - whole
    dual = sum(entropy([k for k in nodes if k != g]) for g in nodes) + (1 - len(nodes)) * whole
    return (total - dual) / (total + dual) if total + dual > 1e-12 else 0.0


def coupling(h: dict[int, float], alive: int) -> list[float]:
    """Give sqrt(1 - e^(-2 Phi)) of each node against the rest of those that vary."""
    values = [0.0] * NODES
    for g in members(alive):
        one = 1 << g
        phi = h[one] + h.get(alive ^ one, 0.0) - h[alive]
        values[g] = math.sqrt(1 - math.exp(-2 * max(0.0, phi)))
    return values


def surrogate_null(z: Floats, later: Sequence[int], alive: int, declared: int, seed: int) -> float:
    """Give the largest main-complex score of 19 circularly shifted copies of the window."""
    slot = len(z) // NODES
    state, largest = seed & _WORD, 0.0
    for _ in range(SURROGATES):
        order = list(range(NODES))
        for g in range(NODES - 1, 0, -1):
            state, word = _random(state)
            k = (word >> 33) % (g + 1)
            order[g], order[k] = order[k], order[g]
        shifted = np.empty_like(z)
        for g in range(NODES):
            state, word = _random(state)
            shifted[:, g] = np.roll(z[:, g], -(order[g] * slot + (word >> 33) % slot))
        largest = max(largest, integrate(shifted, later, alive, declared).score)
    return largest


def _random(state: int) -> tuple[int, int]:
    """Step splitmix64, as the kernels do, so that both draw the same shifts."""
    state = (state + 0x9E3779B97F4A7C15) & _WORD
    x = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & _WORD
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & _WORD
    return state, x ^ (x >> 31)
