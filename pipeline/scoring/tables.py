"""Build the shipped tables: `python -m pipeline.scoring.tables` writes tables.npz (about 20 s)."""

from __future__ import annotations

import math

import numpy as np

from pipeline.scoring.dynamics import digamma
from pipeline.scoring.integration import entropies, main_complex
from pipeline.scoring.lz import lz76
from pipeline.scoring.parameters import CHANNELS, MIN_PAIRS, NODES, WINDOW
from pipeline.scoring.scratch import SHIPPED, Floats, make_scratch, with_enumeration
from pipeline.scoring.window import lag_covariance

SHUFFLES = 200
STRINGS = 32
"""Steps of the string length, 32 symbols each."""
SHARES = 64
"""Steps of the share of ones, quadratic, because complexity rises steeply near 0."""
WINDOWS = 4000
FLOOR_PAIRS = (32, 40, 48, 56, 63)


def shuffled_complexity(length_step: int, share_step: int) -> float:
    """Give the mean LZ76 of shuffled strings, from a seed of the cell's own."""
    n = length_step * CHANNELS * WINDOW // STRINGS
    ones = round(n * (share_step / SHARES) ** 2 / 2)
    if n == 0:
        return 1.0
    rng = np.random.default_rng((length_step, share_step))
    bits = np.zeros(n, np.uint8)
    bits[:ones] = 1
    words = np.zeros(n, np.uint32)
    return float(np.mean([lz76(rng.permutation(bits), n, words) for _ in range(SHUFFLES)]))


def entropy_bias(pairs: int, size: int) -> float:
    """Give what 1/2 ln det of a maximum-likelihood residual covariance exceeds the truth by.

    The residuals of `size` targets on `size` predictors and a mean are Wishart with
    nu = pairs - 1 - size degrees of freedom (Misra, Singh & Demchuk 2005).
    """
    nu = pairs - 1 - size
    if nu < size or size == 0:
        return 0.0
    psi = sum(digamma((nu - i + 1) / 2) for i in range(1, size + 1))
    return float(0.5 * (psi + size * math.log(2.0 / pairs)))


def bias_table() -> Floats:
    """Give the bias by pairs (0 to 64) and subset size (0 to 8)."""
    return np.array([[entropy_bias(n, m) for m in range(NODES + 1)] for n in range(WINDOW + 1)])


def noise_quantile(pairs: int, nodes: int) -> float:
    """Give the 95 % quantile of the main complex's score on white noise."""
    rng = np.random.default_rng((pairs, nodes))
    bias = bias_table()[pairs]
    tables = with_enumeration(np.zeros((33, 65)), bias_table(), bias_table())[0]
    scratch = make_scratch()[0]
    rows = pairs + 1
    scratch["adjacent"][:rows] = True
    alive = (1 << nodes) - 1
    scores = np.zeros(WINDOWS)
    for k in range(WINDOWS):
        z = rng.standard_normal((rows, nodes))
        scratch["z"][:rows, :nodes] = (z - z.mean(0)) / z.std(0)
        lag_covariance(scratch["z"], scratch["adjacent"], rows, alive, scratch, scratch["cov"])
        entropies(scratch["cov"], alive, bias, scratch, tables)
        scores[k] = main_complex(scratch["h"], alive, nodes, 0.0, tables)[0]
    return float(np.quantile(scores, 0.95))


def floor_table() -> Floats:
    """Give the noise quantile by pairs (interpolated) and nodes; 1 where nothing can be said."""
    table = np.ones((WINDOW + 1, NODES + 1))
    pairs = np.arange(MIN_PAIRS, WINDOW + 1)
    for nodes in range(2, NODES + 1):
        measured = [noise_quantile(n, nodes) for n in FLOOR_PAIRS]
        table[MIN_PAIRS:, nodes] = np.interp(pairs, FLOOR_PAIRS, measured)
    return table


def build() -> dict[str, Floats]:
    """Compute all tables."""
    shuffled = np.array(
        [[shuffled_complexity(i, j) for j in range(SHARES + 1)] for i in range(STRINGS + 1)]
    )
    return {"shuffled": shuffled, "bias": bias_table(), "floor": floor_table()}


if __name__ == "__main__":
    built = build()
    np.savez_compressed(
        SHIPPED, shuffled=built["shuffled"], bias=built["bias"], floor=built["floor"]
    )
