"""Integration: stochastic interaction of every subset of nodes, its weakest cut, the main complex.

Phi_SI(A|B) = h(A) + h(B) - h(A u B) with h(M) = 1/2 ln det Sigma(y_M | x_M), x one bin before y
(Ay 2001; Barrett & Seth 2011); all 247 subsets and 3025 bipartitions of 8 nodes are searched.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from numba import njit

from pipeline.scoring.parameters import NODES

LANES = 8
"""Subsets of the last three nodes, eliminated side by side."""
_DEEP = 5
_SUBSETS = 1 << NODES
_ALL = _SUBSETS - 1
RIDGE = 1e-3


def _lesser(subset: int, part: int) -> int:
    return min(part.bit_count(), (subset ^ part).bit_count())


def bipartitions() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """List the subsets of two and more nodes and every way to cut each in two.

    Returns:
        subsets: (247,) masks, the largest first; starts: (248,) into parts; parts: (3025,), the
        part that holds the subset's lowest node, cuts that split off least first.
    """
    subsets: list[int] = []
    starts, parts = [0], list[int]()
    for subset in sorted(range(_SUBSETS), key=int.bit_count, reverse=True):
        if subset.bit_count() < 2:
            break
        first = len(parts)
        lowest = subset & -subset
        part = subset
        while part := (part - 1) & subset:
            if part & lowest:
                parts.append(part)
        parts[first:] = sorted(parts[first:], key=partial(_lesser, subset))
        subsets.append(subset)
        starts.append(len(parts))
    return (np.array(subsets), np.array(starts), np.array(parts))


def layout(width: int) -> tuple[np.ndarray, np.ndarray]:
    """Place the matrices that remain after eliminating each subset of the first five nodes.

    Returns:
        offsets: int64 (32,) row of the buffer; sizes: int64 (33,) side of the matrix, and the
        rows of the whole buffer last.
    """
    offsets, sizes, at = [], [], 0
    for subset in range(1 << _DEEP):
        side = (_DEEP - subset.bit_length()) * width
        offsets.append(at)
        sizes.append(side)
        at += side * side
    return np.array(offsets), np.array([*sizes, at])


@njit(cache=True, nogil=True, inline="always")
def _base(cov, width, first, full, det):  # type: ignore[no-untyped-def]
    """Eliminate each subset of the last three nodes from the matrix, one lane each."""
    begin = first * width
    side = NODES * width
    for i in range(begin, side):
        for j in range(begin, side):
            full[0, i, j] = cov[i, j]
    det[0, 0] = 1.0
    for lane in range(1, LANES):
        top = 2 if lane >= 4 else (1 if lane >= 2 else 0)
        parent = lane - (1 << top)
        at = width * (_DEEP + top)
        product = det[0, parent]
        source = parent
        for p in range(at, at + width):
            pivot = full[source, p, p]
            product *= pivot
            inverse = 1.0 / pivot
            for i in range(begin, side):
                if width * _DEEP <= i <= p:  # eliminated, or needed no more
                    continue
                factor = full[source, i, p] * inverse
                for j in range(begin, side):
                    full[lane, i, j] = full[source, i, j] - factor * full[source, p, j]
            source = lane
        det[0, lane] = product


@njit(cache=True, nogil=True, inline="always")
def _descend_pairs(buf, first, det, offsets, sizes, lane):  # type: ignore[no-untyped-def]
    """Eliminate every subset of the first five nodes, two rows (x, y) a node, in all lanes."""
    for subset in range(1 << first, 1 << _DEEP, 1 << first):
        top = 4 if subset >= 16 else (3 if subset >= 8 else (2 if subset >= 4 else subset >> 1))
        parent = subset - (1 << top)
        side = sizes[subset]
        wide = sizes[parent]
        x = wide - side - 2
        x_row = offsets[parent] + x * wide
        y_row = x_row + wide
        for k in range(LANES):
            pivot = buf[x_row + x, k]
            skew = buf[x_row + x + 1, k] / pivot
            other = buf[y_row + x + 1, k] - skew * buf[x_row + x + 1, k]
            det[subset, k] = det[parent, k] * pivot * other
            lane[0, k] = 1.0 / pivot
            lane[1, k] = skew
            lane[2, k] = 1.0 / other
        row = x_row + x + 2
        row2 = y_row + x + 2
        for i in range(side):
            for k in range(LANES):
                a = buf[row + i, k]
                b = (buf[row2 + i, k] - lane[1, k] * a) * lane[2, k]
                lane[3, k] = a * lane[0, k] - b * lane[1, k]
                lane[4, k] = b
            source = offsets[parent] + (x + 2 + i) * wide + x + 2
            target = offsets[subset] + i * side
            for j in range(i, side):
                for k in range(LANES):
                    buf[target + j, k] = (
                        buf[source + j, k]
                        - lane[3, k] * buf[row + j, k]
                        - lane[4, k] * buf[row2 + j, k]
                    )


@njit(cache=True, nogil=True, inline="always")
def _descend_singles(buf, first, det, offsets, sizes, lane):  # type: ignore[no-untyped-def]
    """Eliminate every subset of the first five nodes, one row (x) a node, in all lanes."""
    for subset in range(1 << first, 1 << _DEEP, 1 << first):
        top = 4 if subset >= 16 else (3 if subset >= 8 else (2 if subset >= 4 else subset >> 1))
        parent = subset - (1 << top)
        side = sizes[subset]
        wide = sizes[parent]
        x = wide - side - 1
        x_row = offsets[parent] + x * wide
        for k in range(LANES):
            det[subset, k] = det[parent, k] * buf[x_row + x, k]
            lane[0, k] = 1.0 / buf[x_row + x, k]
        row = x_row + x + 1
        for i in range(side):
            for k in range(LANES):
                lane[1, k] = buf[row + i, k] * lane[0, k]
            source = offsets[parent] + (x + 1 + i) * wide + x + 1
            target = offsets[subset] + i * side
            for j in range(i, side):
                for k in range(LANES):
                    buf[target + j, k] = buf[source + j, k] - lane[1, k] * buf[row + j, k]


@njit(cache=True, nogil=True, inline="always")
def _eliminate(cov, width, first, full, buf, det, offsets, sizes, lane):  # type: ignore[no-untyped-def]
    _base(cov, width, first, full, det)
    side = sizes[0]
    for i in range(first * width, side):
        for j in range(i, side):
            for k in range(LANES):
                buf[i * side + j, k] = full[k, i, j]
    if width == 2:
        _descend_pairs(buf, first, det, offsets, sizes, lane)
    else:
        _descend_singles(buf, first, det, offsets, sizes, lane)


@njit(cache=True, nogil=True)
def minors(cov, width, first, full, buf, det, offsets, sizes, lane):  # type: ignore[no-untyped-def]
    """Give det[low, high]: determinant of the nodes low (of 0-4) and high (of 5-7).

    Args:
        cov: float64, symmetric, positive; node g has rows width*g to width*(g+1).
        width: rows of a node, 1 or 2.
        first: the lowest node that is looked at, 0 to 5; `low` is of the nodes from there on.
        full: float64 (8, 16, 16) scratch.
        buf: float64 (sizes[-1], 8) scratch.
        det: float64 (32, 8), the result.
        offsets: of `layout(width)`.
        sizes: of `layout(width)`.
        lane: float64 (5, 8) scratch.
    """
    if first == 0:  # a literal lets the compiler unroll
        _eliminate(cov, width, 0, full, buf, det, offsets, sizes, lane)
    else:
        _eliminate(cov, width, first, full, buf, det, offsets, sizes, lane)


@njit(cache=True, nogil=True, inline="always")
def _close_ranks(cov, alive, s):  # type: ignore[no-untyped-def]
    """Put the nodes of a mask at the end of s.joint and s.now, so that others cost nothing.

    Returns:
        the place of the first node, 8 if there is none; what is before it holds nothing, but the
        last three places are filled in any case.
    """
    place = NODES
    for g in range(NODES - 1, -1, -1):
        if alive >> g & 1:
            place -= 1
            s.node_at[place] = g
    first = place
    while place > _DEEP:  # the last three are eliminated in any case
        place -= 1
        s.node_at[place] = -1
    for p in range(place, NODES):
        for q in range(place, NODES):
            g, k = s.node_at[p], s.node_at[q]
            apart = g < 0 or k < 0
            for i in range(2):
                for j in range(2):
                    identity = 1.0 if p == q and i == j else 0.0
                    s.joint[2 * p + i, 2 * q + j] = identity if apart else cov[2 * g + i, 2 * k + j]
            s.now[p, q] = s.joint[2 * p, 2 * q]
    return first


@njit(cache=True, nogil=True)
def entropies(cov, alive, bias, s, t):  # type: ignore[no-untyped-def]
    """Fill s.h: h(M) = 1/2 ln det Sigma(y_M | x_M) - bias(|M|) for all subsets M of a mask.

    s.det_now gets the minors of the equal-time covariance, det_now[M & 31, M >> 5]. What both hold
    of other subsets is of windows before.

    Args:
        cov: float64 (16, 16); rows 2g and 2g+1 are x and y of node g, one bin apart.
        alive: mask of the nodes.
        bias: float64 (9,), what the estimate of h exceeds the truth by, by size.
        s: scratch.
        t: tables.
    """
    double, single = t.size[3], t.size[1]  # not literals: one compilation serves both
    first = _close_ranks(cov, alive, s)
    deep = min(first, t.size[31])
    minors(s.joint, double, deep, s.full, s.buf, s.det_joint, t.offsets2, t.sizes2, s.lane)
    minors(s.now, single, deep, s.full, s.buf, s.det, t.offsets1, t.sizes1, s.lane)
    step = 1 << first
    s.mask_of[0] = 0
    for p in range(first, NODES):
        for at in range(0, 1 << p, step):
            s.mask_of[at + (1 << p)] = s.mask_of[at] | 1 << s.node_at[p]
    for high in range(0, LANES, max(1, step >> _DEEP)):
        for low in range(0, 1 << _DEEP, min(step, 1 << _DEEP)):
            m = s.mask_of[low | high << _DEEP]
            now = s.det[low, high]
            s.det_now[m & 31, m >> 5] = now
            s.h[m] = 0.5 * math.log(s.det_joint[low, high] / now) - bias[t.size[m]]


@njit(cache=True, nogil=True)
def main_complex(h, alive, declared, above, t):  # type: ignore[no-untyped-def]
    """Find the subset with the largest coverage x informational correlation of its weakest cut.

    Args:
        h: float64 (256,), `entropies`.
        alive: mask of the nodes that vary.
        declared: number of nodes that the source's channel map can feed.
        above: a score that does not exceed this is not looked for; 0 for the best there is.
        t: tables.

    Returns:
        score in [0, 1], Phi of the subset (nats), its mask; `above`, 0 and 0 if none exceeds that.
    """
    best_phi = 0.0
    best_score = above
    core = np.int64(0)
    for k in range(t.subsets.size):
        subset = t.subsets[k]
        if subset & ~alive:
            continue
        share = t.size[subset] / declared
        whole = h[subset]
        # 1 - e^-u <= u: a cut this weak leaves the subset no chance, the others need no look
        hopeless = whole + 0.5 * (best_score / share) ** 2
        least = np.inf
        for p in range(t.starts[k], t.starts[k + 1]):
            part = t.parts[p]
            value = h[part] + h[subset ^ part]
            if value < least:
                least = value
                if least <= hopeless:
                    break
        phi = least - whole
        if least <= hopeless or phi <= 0.0:
            continue
        score = share * math.sqrt(1.0 - math.exp(-2.0 * phi))
        if score > best_score:
            best_score, best_phi, core = score, phi, np.int64(subset)
    return best_score, best_phi, core


@njit(cache=True, nogil=True, inline="always")
def weakest_cut(h, subset):  # type: ignore[no-untyped-def]
    """Give the minimum information bipartition of a subset: its Phi (nats) and one part."""
    lowest = subset & -subset
    least = np.inf
    cut = 0
    part = (subset - 1) & subset
    while part:
        if part & lowest:
            value = h[part] + h[subset ^ part]
            if value < least:
                least = value
                cut = part
        part = (part - 1) & subset
    return least - h[subset], cut


@njit(cache=True, nogil=True, inline="always")
def equal_time(det_now, subset, size):  # type: ignore[no-untyped-def]
    """Give total correlation and dual total correlation (nats) of a subset, no bias removed.

    Args:
        det_now: float64 (32, 8), minors of the equal-time covariance.
        subset: mask of nodes.
        size: how many nodes.
    """
    whole = 0.5 * math.log(det_now[subset & 31, subset >> 5])
    total = -whole
    dual = (1 - size) * whole
    for g in range(NODES):
        if subset >> g & 1:
            one = 1 << g
            rest = subset ^ one
            total += 0.5 * math.log(det_now[one & 31, one >> 5])
            dual += 0.5 * math.log(det_now[rest & 31, rest >> 5])
    return total, dual


@njit(cache=True, nogil=True, inline="always")
def neural_complexity(det_now, subset, size, t):  # type: ignore[no-untyped-def]
    """Give C_N = sum over k <= n/2 of <MI(X_k; rest)> (Tononi, Sporns & Edelman 1994), nats.

    For even n every half is met from both sides and the k = n/2 term counts whole.
    """
    whole = 0.5 * math.log(det_now[subset & 31, subset >> 5])
    total = 0.0
    part = (subset - 1) & subset
    while part:
        k = t.size[part]
        if 2 * k <= size:
            rest = subset ^ part
            mi = 0.5 * math.log(det_now[part & 31, part >> 5] * det_now[rest & 31, rest >> 5])
            ways = 1.0
            for i in range(k):
                ways = ways * (size - i) / (i + 1)
            total += (mi - whole) / ways
        part = (part - 1) & subset
    return total


@njit(cache=True, nogil=True, inline="always")
def complexity_bias(bias, size):  # type: ignore[no-untyped-def]
    """Give what an estimate of C_N exceeds the truth by, from the bias of entropies by size."""
    total = 0.0
    for k in range(1, size // 2 + 1):
        total += bias[k] + bias[size - k] - bias[size]
    return total


@njit(cache=True, nogil=True, inline="always")
def integrated(score, null, redundancy):  # type: ignore[no-untyped-def]
    """Give I in [0, 1]: what exceeds the null, discounted by redundancy."""
    return max(0.0, (score - null) / (1.0 - null)) * (1.0 - max(0.0, redundancy))
