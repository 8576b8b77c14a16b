"""The window of a source: ring of halves, valid bins, detrending, lag covariance, surrogates."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from pipeline.scoring.integration import RIDGE, entropies, main_complex
from pipeline.scoring.parameters import CHANNELS, NODES, SURROGATES, WINDOW

SEGMENT = 10
"""Shortest segment that detrending cuts, bins; at most four segments."""
_LARGEST_HALF = 65504.0
_DOWN = np.float32(2.0**-112)
_UP = np.float32(2.0**112)
_SIGN = np.uint32(0x8000)
_MAGNITUDE = np.uint32(0x7FFFFFFF)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@njit(cache=True, nogil=True)
def to_half(x):  # type: ignore[no-untyped-def]
    """Round a number to the bits of an IEEE half, clipped to its range."""
    x = min(max(x, -_LARGEST_HALF), _LARGEST_HALF)
    bits = np.float32(np.float32(x) * _DOWN).view(np.uint32)
    sign = np.uint32(np.uint32(bits >> np.uint32(16)) & _SIGN)
    bits = np.uint32(bits & _MAGNITUDE)
    odd = np.uint32(np.uint32(bits >> np.uint32(13)) & np.uint32(1))
    return np.uint16(sign | np.uint32((bits + np.uint32(0xFFF) + odd) >> np.uint32(13)))


@njit(cache=True, nogil=True)
def from_half(bits):  # type: ignore[no-untyped-def]
    """Widen the bits of an IEEE half."""
    low = np.uint32(np.uint32(bits & np.uint16(0x7FFF)) << np.uint32(13))
    value = np.float32(low.view(np.float32) * _UP)
    return -value if bits & np.uint16(0x8000) else value


@njit(cache=True, nogil=True)
def read_window(r, s):  # type: ignore[no-untyped-def]
    """Copy the valid bins of a row, oldest first: values, activity, adjacency, means.

    Returns:
        how many bins are valid, and the mask of the channels that vary over them.
    """
    rows = 0
    newest = r.bin - 1
    last = -2
    for k in range(WINDOW - 1, -1, -1):
        if not (r.valid >> np.uint64(k)) & np.uint64(1):
            continue
        column = (newest - k) & (WINDOW - 1)
        total = 0.0
        for c in range(CHANNELS):
            if not r.used >> c & 1:
                s.y[rows, c] = 0.0
                continue
            y = np.float64(r.offset[c]) + np.float64(from_half(r.ring[column, c]))
            s.y[rows, c] = y
            total += abs(y)
        s.activity[rows] = total
        s.adjacent[rows] = last == k + 1
        last = k
        rows += 1
    active = 0
    for c in range(CHANNELS):
        s.mean[c] = 0.0
        if rows == 0 or not r.used >> c & 1:
            continue
        low = s.y[0, c]
        high = low
        total = 0.0
        for t in range(rows):
            total += s.y[t, c]
            low = min(low, s.y[t, c])
            high = max(high, s.y[t, c])
        s.mean[c] = total / rows
        if high > low:
            active |= 1 << c
    return rows, active


@njit(cache=True, nogil=True)
def _strongest_split(x, start, stop):  # type: ignore[no-untyped-def]
    """Give the largest squared two-sample t of splitting x[start:stop], and where."""
    size = stop - start
    middle = 0.0
    for i in range(start, stop):
        middle += x[i] / size
    squares = 0.0
    for i in range(start, stop):
        squares += (x[i] - middle) ** 2
    strongest = 0.0
    where = start
    left = 0.0
    for i in range(start, stop - SEGMENT):
        left += x[i] - middle
        a = i + 1 - start
        between = left * left * size / (a * (size - a))
        if a < SEGMENT or between < 1e-12:
            continue
        within = max(squares - between, 1e-9 * squares)
        statistic = between * (size - 2) / within
        if statistic > strongest:
            strongest = statistic
            where = i + 1
    return strongest, where


@njit(cache=True, nogil=True)
def change_points(x, n, threshold, cuts):  # type: ignore[no-untyped-def]
    """Split x[:n] where the means on both sides differ by a two-sample t above the threshold.

    Binary segmentation: the strongest split of all segments first, at most three splits.

    Returns:
        the number of segments; cuts[:segments + 1] are their bounds, ascending.
    """
    cuts[0] = 0
    cuts[1] = n
    segments = 1
    while segments < 4:
        strongest = threshold * threshold
        where = -1
        for k in range(segments):
            if cuts[k + 1] - cuts[k] < 2 * SEGMENT:
                continue
            statistic, at = _strongest_split(x, cuts[k], cuts[k + 1])
            if statistic > strongest:
                strongest = statistic
                where = at
        if where < 0:
            break
        k = segments
        while cuts[k] > where:
            cuts[k + 1] = cuts[k]
            k -= 1
        cuts[k + 1] = where
        segments += 1
    return segments


@njit(cache=True, nogil=True)
def standardise(s, rows, active, threshold):  # type: ignore[no-untyped-def]
    """Sum channels to nodes, take out steps of the total activity, z-score.

    Args:
        s: scratch, filled by `read_window`.
        rows: valid bins.
        active: mask of the channels that vary.
        threshold: of a change point.

    Returns:
        the mask of the nodes that vary; s.z[:rows] holds them, 0 for the others.
    """
    segments = change_points(s.activity, rows, threshold, s.cuts)
    alive = 0
    for g in range(NODES):
        if not active >> 2 * g & 3:
            s.z[:rows, g] = 0.0
            continue
        squares = 0.0
        scale = 0.0
        for k in range(segments):
            total = 0.0
            for t in range(s.cuts[k], s.cuts[k + 1]):
                total += s.y[t, 2 * g] + s.y[t, 2 * g + 1]
            middle = total / (s.cuts[k + 1] - s.cuts[k])
            scale = max(scale, abs(middle))
            for t in range(s.cuts[k], s.cuts[k + 1]):
                d = s.y[t, 2 * g] + s.y[t, 2 * g + 1] - middle
                s.z[t, g] = d
                squares += d * d
        deviation = math.sqrt(squares / rows)
        if deviation > 1e-7 * max(scale, 1e-3):
            alive |= 1 << g
            for t in range(rows):
                s.z[t, g] /= deviation
        else:
            for t in range(rows):
                s.z[t, g] = 0.0
    return alive


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _gram(series, alive, cov):  # type: ignore[no-untyped-def]
    """Fill cov with the products of the rows of the nodes of a mask; the same every time.

    Sums are reordered.
    """
    for i in range(2 * NODES):
        for j in range(i + 1):
            total = 0.0
            if alive >> (i >> 1) & alive >> (j >> 1) & 1:
                for t in range(WINDOW):
                    total += series[i, t] * series[j, t]
            cov[i, j] = total
            cov[j, i] = total


@njit(cache=True, nogil=True)
def lag_covariance(z, adjacent, rows, alive, s, cov):  # type: ignore[no-untyped-def]
    """Fill cov (16, 16): x and y of every node, interleaved, over pairs of neighbouring bins.

    Nodes that do not vary get the identity, so that every determinant exists.

    Returns:
        the number of pairs.
    """
    pairs = 0
    for g in range(NODES):
        x_sum = 0.0
        y_sum = 0.0
        if alive >> g & 1:
            pairs = 0
            for t in range(1, rows):
                if not adjacent[t]:
                    continue
                x, y = z[t - 1, g], z[t, g]
                s.pairs[2 * g, pairs] = x
                s.pairs[2 * g + 1, pairs] = y
                x_sum += x
                y_sum += y
                pairs += 1
            s.pairs[2 * g, pairs:] = 0.0
            s.pairs[2 * g + 1, pairs:] = 0.0
        s.sums[2 * g] = x_sum
        s.sums[2 * g + 1] = y_sum
    if alive == 0:
        for t in range(1, rows):
            pairs += adjacent[t]
    if pairs == 0:
        return 0
    _gram(s.pairs, alive, cov)
    for i in range(2 * NODES):
        for j in range(2 * NODES):
            cov[i, j] = (cov[i, j] - s.sums[i] * s.sums[j] / pairs) / pairs
        cov[i, i] = cov[i, i] + RIDGE if alive >> (i >> 1) & 1 else 1.0
    return pairs


@njit(cache=True, nogil=True)
def _random(state):  # type: ignore[no-untyped-def]
    """Step splitmix64: the new state and 64 random bits."""
    state = np.uint64(state + _GOLDEN)
    x = state
    x = np.uint64((x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9))
    x = np.uint64((x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB))
    return state, np.uint64(x ^ (x >> np.uint64(31)))


@njit(cache=True, nogil=True)
def surrogate_null(rows, alive, declared, seed, bias, s, t):  # type: ignore[no-untyped-def]
    """Give the largest main-complex score of 19 copies whose nodes are shifted circularly.

    The nodes are dealt out over eight slots of rows / 8 bins in random order and start anywhere
    in theirs, so that hardly any two keep their relation in time (Theiler et al. 1992).

    Args:
        rows: valid bins in s.z.
        alive: mask of the nodes that vary.
        declared: nodes that the map can feed.
        seed: uint64; the same seed and window give the same null.
        bias: float64 (9,).
        s: scratch.
        t: tables.
    """
    slot = rows // NODES
    state = np.uint64(seed)
    largest = 0.0
    for _ in range(SURROGATES):
        for g in range(NODES):
            s.shift[g] = g
        for g in range(NODES - 1, 0, -1):
            state, word = _random(state)
            k = np.int64((word >> np.uint64(33)) % np.uint64(g + 1))
            s.shift[g], s.shift[k] = s.shift[k], s.shift[g]
        for g in range(NODES):
            state, word = _random(state)
            if not alive >> g & 1:
                continue
            jitter = np.int64((word >> np.uint64(33)) % np.uint64(slot))
            at = s.shift[g] * slot + jitter
            for i in range(rows):
                s.shifted[i, g] = s.z[at, g]
                at += 1
                if at == rows:
                    at = 0
        lag_covariance(s.shifted, s.adjacent, rows, alive, s, s.cov)
        entropies(s.cov, alive, bias, s, t)
        largest, _phi, _core = main_complex(s.h, alive, declared, largest, t)
    return largest
