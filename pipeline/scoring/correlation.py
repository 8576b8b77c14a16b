"""Lagged correlation of seen with reported activity and of the level with both, with p-values."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from pipeline.scoring.parameters import LAGS, NODES

LEVEL = NODES
"""Index of the level beside the nodes in history and autocorrelation."""
FALSE_DISCOVERY = 0.05


@njit(cache=True, nogil=True)
def follow_level(r, p, level):  # type: ignore[no-untyped-def]
    """Standardise the level by its running mean and deviation, then update those."""
    weight = max(1.0 / p.tau_slow_bins, 1.0 / (r.levels + 1.0))
    d = level - r.level_mean
    z = 0.0
    if r.levels >= 8 and r.level_variance > 1e-8:
        z = min(max(d / math.sqrt(np.float64(r.level_variance)), -6.0), 6.0)
    r.level_mean += np.float32(weight * d)
    r.level_variance = np.float32((1.0 - weight) * (r.level_variance + weight * d * d))
    r.levels += 1
    return z


@njit(cache=True, nogil=True)
def follow_pairs(r, p, z, closed):  # type: ignore[no-untyped-def]
    """Update every lagged product with the bin just closed.

    Lag k of nodes a and b is z_a(t) z_b(t + k): positive when b follows. The level counts as b.

    Args:
        r: the source's row.
        p: parameters.
        z: float64 (9,), the bin's standardised nodes and level.
        closed: index of the bin.
    """
    weight = np.float32(max(1.0 / p.tau_slow_bins, 1.0 / (r.levels + 0.0)))
    now = closed % LAGS
    nodes = r.pair_nodes
    for k in range(LAGS + 1):
        if k and not r.linked >> (k - 1) & 1:
            continue
        # A lag of LAGS bins is what the slot holds until this bin overwrites it.
        then = r.history[(closed - k) % LAGS]
        for g in range(NODES + 1):
            old = np.float32(z[g]) if k == 0 else then[g]
            r.auto[k, g] += weight * (old * np.float32(z[g]) - r.auto[k, g])
        for a in range(4):
            seen_old = np.float32(z[nodes[a]]) if k == 0 else then[nodes[a]]
            seen_now = np.float32(z[nodes[a]])
            for b in range(4):
                told_now = np.float32(z[nodes[4 + b]])
                r.cross[LAGS + k, a, b] += weight * (seen_old * told_now - r.cross[LAGS + k, a, b])
                if k:
                    told_old = then[nodes[4 + b]]
                    r.cross[LAGS - k, a, b] += weight * (
                        seen_now * told_old - r.cross[LAGS - k, a, b]
                    )
        for g in range(NODES):
            old = np.float32(z[g]) if k == 0 else then[g]
            level_now = np.float32(z[LEVEL])
            r.with_level[LAGS + k, g] += weight * (old * level_now - r.with_level[LAGS + k, g])
            if k:
                r.with_level[LAGS - k, g] += weight * (
                    np.float32(z[g]) * then[LEVEL] - r.with_level[LAGS - k, g]
                )
    for g in range(NODES + 1):
        r.history[now, g] = np.float32(z[g])


@njit(cache=True, nogil=True)
def _rho(auto, k, g):  # type: ignore[no-untyped-def]
    """Give the autocorrelation at lag k."""
    if auto[0, g] <= 1e-12:
        return 0.0
    return min(max(auto[k, g] / auto[0, g], -1.0), 1.0)


@njit(cache=True, nogil=True)
def effective(auto, a, b, n):  # type: ignore[no-untyped-def]
    """Give Bartlett's effective sample size n / sum over k of rho_a(k) rho_b(k), 4 to n.

    Behind the last lag kept, both autocorrelations go on geometrically.
    """
    total = 1.0
    for k in range(1, LAGS + 1):
        total += 2.0 * _rho(auto, k, a) * _rho(auto, k, b)
    last = max(_rho(auto, LAGS, a), 0.0) * max(_rho(auto, LAGS, b), 0.0)
    if last > 0.0:
        ratio = min(last ** (1.0 / LAGS), 0.99)
        total += 2.0 * last * ratio / (1.0 - ratio)
    return min(max(n / max(total, 1.0), 4.0), n)


@njit(cache=True, nogil=True)
def _significance(product, auto, a, b, n):  # type: ignore[no-untyped-def]
    """Give the correlation and its two-sided p by Fisher's z."""
    scale = math.sqrt(np.float64(auto[0, a]) * np.float64(auto[0, b]))
    if scale <= 1e-12 or n <= 4.0:
        return 0.0, 1.0
    rho = min(max(product / scale, -0.999999), 0.999999)
    z = abs(math.atanh(rho)) * math.sqrt(max(n - 3.0, 0.0))
    return rho, math.erfc(z / math.sqrt(2.0))


@njit(cache=True, nogil=True)
def survivors(p, rate):  # type: ignore[no-untyped-def]
    """Give the largest p that Benjamini & Hochberg's procedure rejects at this rate, -1 for none.

    The largest k with at least k values up to rate k / m is the fixed point met from k = m down.
    """
    m = p.size
    k = m
    while k > 0:
        met = 0
        for value in p.flat:
            met += value <= rate * k / m
        if met == k:
            return rate * k / m
        k = met
    return -1.0


@njit(cache=True, nogil=True)
def kinds(r):  # type: ignore[no-untyped-def]
    """Give the masks of the nodes of what is seen and of what is reported; mixed: in neither."""
    seen, told = np.int64(r.seen_nodes), np.int64(r.told_nodes)
    return seen & ~told, told & ~seen


@njit(cache=True, nogil=True)
def pair_tests(r, p, rho, chance):  # type: ignore[no-untyped-def]
    """Fill correlation and p of what is seen with what is reported at lags -8 to 8.

    Args:
        r: the source's row.
        p: parameters.
        rho: float64 (17, 4, 4), by `pair_nodes`; 0 where a node is not purely of its kind.
        chance: the same, two-sided p; 1 there.
    """
    n = min(np.float64(r.levels), 2.0 * p.tau_slow_bins - 1.0)
    seen, told = kinds(r)
    rho[:] = 0.0
    chance[:] = 1.0
    for a in range(4):
        one = np.int64(r.pair_nodes[a])
        for b in range(4):
            other = np.int64(r.pair_nodes[4 + b])
            if not (seen >> one & 1 and told >> other & 1):
                continue
            size = effective(r.auto, one, other, n)
            for k in range(2 * LAGS + 1):
                value, probability = _significance(r.cross[k, a, b], r.auto, one, other, size)
                rho[k, a, b] = value
                chance[k, a, b] = probability


@njit(cache=True, nogil=True)
def level_tests(r, p, rho, chance):  # type: ignore[no-untyped-def]
    """Fill correlation and p of every node with the level at lags -8 to 8, float64 (17, 8)."""
    n = min(np.float64(r.levels), 2.0 * p.tau_slow_bins - 1.0)
    for g in range(NODES):
        size = effective(r.auto, g, np.int64(LEVEL), n)
        for k in range(2 * LAGS + 1):
            value, probability = _significance(r.with_level[k, g], r.auto, g, np.int64(LEVEL), size)
            rho[k, g] = value
            chance[k, g] = probability


@njit(cache=True, nogil=True)
def summarise(r, p, s):  # type: ignore[no-untyped-def]
    """Keep the strongest surviving correlation of each kind in the row, 0 where none survives."""
    _summarise_level(r, p, s)
    _summarise_pairs(r, p, s)


@njit(cache=True, nogil=True)
def _summarise_level(r, p, s):  # type: ignore[no-untyped-def]
    level_tests(r, p, s.level_rho, s.level_p)
    limit = survivors(s.level_p, FALSE_DISCOVERY)
    seen, told = kinds(r)
    strongest_seen = 0.0
    strongest_told = 0.0
    for k in range(2 * LAGS + 1):
        for g in range(NODES):
            value = s.level_rho[k, g]
            if s.level_p[k, g] > limit:
                continue
            if seen >> g & 1 and abs(value) > abs(strongest_seen):
                strongest_seen = value
            if told >> g & 1 and abs(value) > abs(strongest_told):
                strongest_told = value
    r.seen_correlation = strongest_seen
    r.told_correlation = strongest_told


@njit(cache=True, nogil=True)
def _summarise_pairs(r, p, s):  # type: ignore[no-untyped-def]
    pair_tests(r, p, s.pair_rho, s.pair_p)
    limit = survivors(s.pair_p, FALSE_DISCOVERY)
    best = 0.0
    r.pair = 0
    r.pair_lag = 0
    r.pair_p = 1.0
    r.pair_samples = 0.0
    for k in range(2 * LAGS + 1):
        for a in range(4):
            for b in range(4):
                value = s.pair_rho[k, a, b]
                if s.pair_p[k, a, b] <= limit and abs(value) > abs(best):
                    best = value
                    r.pair = 4 * a + b
                    r.pair_lag = k - LAGS
                    r.pair_p = s.pair_p[k, a, b]
    r.pair_correlation = best
    if best != 0.0:
        one, other = r.pair_nodes[r.pair >> 2], r.pair_nodes[4 + (r.pair & 3)]
        n = min(np.float64(r.levels), 2.0 * p.tau_slow_bins - 1.0)
        r.pair_samples = effective(r.auto, np.int64(one), np.int64(other), n)
