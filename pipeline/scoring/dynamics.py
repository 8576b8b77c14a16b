"""Arousal, novelty, workspace, level, phase and adaptation: what follows activity bin by bin."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.scoring.parameters import ENTER, LEAVE, NODES

_LEAST_ALPHA = 0.01
_LARGEST_COUNT = 1e6
_Z_LIMIT = 6.0
EMERGENT = 4
FRESH_NULL_BINS = 16


@njit(cache=True, nogil=True)
def transform(value):  # type: ignore[no-untyped-def]
    """Give sign(x) log1p(|x|)."""
    return math.copysign(math.log1p(abs(value)), value)


@njit(cache=True, nogil=True)
def restore(y):  # type: ignore[no-untyped-def]
    """Undo `transform`."""
    return math.copysign(math.expm1(abs(y)), y)


@njit(cache=True, nogil=True)
def digamma(x):  # type: ignore[no-untyped-def]
    """Give psi(x) for x > 0: recurrence up to 8, then the asymptotic series."""
    total = 0.0
    while x < 8.0:
        total -= 1.0 / x
        x += 1.0
    u = 1.0 / (x * x)
    series = u * (
        1 / 12 - u * (1 / 120 - u * (1 / 252 - u * (1 / 240 - u * (1 / 132 - u * 691 / 32760))))
    )
    return total + math.log(x) - 0.5 / x - series


@njit(cache=True, nogil=True)
def gamma_surprise(alpha, beta, x):  # type: ignore[no-untyped-def]
    """Give KL(Gamma(alpha + x, beta + 1) || Gamma(alpha, beta)), nats (Itti & Baldi 2009)."""
    after = alpha + x
    surprise = alpha * math.log((beta + 1.0) / beta) - after / (beta + 1.0)
    if x > 0.0:
        surprise += x * digamma(after) - math.lgamma(after) + math.lgamma(alpha)
    return max(0.0, surprise)


@njit(cache=True, nogil=True)
def dirichlet_surprise(alpha, counts):  # type: ignore[no-untyped-def]
    """Give KL(Dir(alpha + counts) || Dir(alpha)), nats.

    For one object of class k: ln a0 - ln ak + psi(ak + 1) - psi(a0 + 1).
    """
    before = 0.0
    seen = 0.0
    for k in range(alpha.size):
        before += alpha[k]
        seen += counts[k]
    if seen <= 0.0:
        return 0.0
    after = before + seen
    surprise = math.lgamma(after) - math.lgamma(before) - seen * digamma(after)
    for k in range(alpha.size):
        if counts[k] > 0.0:
            a = np.float64(alpha[k])
            surprise += math.lgamma(a) - math.lgamma(a + counts[k])
            surprise += counts[k] * digamma(a + counts[k])
    return max(0.0, surprise)


@njit(cache=True, nogil=True)
def follow_activity(r, p, activity):  # type: ignore[no-untyped-def]
    """Update the fast and slow means of activity and from them A."""
    fast = max(1.0 / p.tau_fast_bins, 1.0 / (r.valid_bins + 1.0))
    slow = max(1.0 / p.tau_slow_bins, 1.0 / (r.valid_bins + 1.0))
    r.fast += np.float32(fast * (activity - r.fast))
    r.slow += np.float32(slow * (activity - r.slow))
    if r.fast < 1e-9:
        r.fast = np.float32(0.0)
    r.arousal_now = np.float32(r.fast / (r.fast + 0.25 * max(np.float64(r.slow), 0.05)))


@njit(cache=True, nogil=True)
def follow_surprise(r, p, raw, declared):  # type: ignore[no-untyped-def]
    """Update every channel's Gamma prior and from the summed surprise N.

    Args:
        r: the source's row.
        p: parameters.
        raw: float64 (16,), the bin's sums and means, not transformed.
        declared: mask of the channels to look at.
    """
    beta = p.forgetting * r.beta
    total = 0.0
    for c in range(raw.size):
        if not declared >> c & 1:
            continue
        alpha = max(p.forgetting * r.alpha[c], _LEAST_ALPHA)
        x = min(abs(raw[c]), _LARGEST_COUNT)
        total += gamma_surprise(alpha, beta, x)
        r.alpha[c] = np.float32(alpha + x)
    r.beta = np.float32(beta + 1.0)
    usual = np.float64(r.surprise) if r.valid_bins else total
    r.novelty_now = np.float32(total / (total + max(usual, 0.05)))
    weight = max(1.0 / p.tau_slow_bins, 1.0 / (r.valid_bins + 1.0))
    r.surprise = np.float32(usual + weight * (total - usual))


@njit(cache=True, nogil=True)
def follow_nodes(r, p, node, z):  # type: ignore[no-untyped-def]
    """Standardise the bin's nodes by their running mean and deviation, then update those.

    Args:
        r: the source's row.
        p: parameters.
        node: float64 (8,), the bin's node sums.
        z: float64 (8,), the result, within +-6; 0 during the first 8 bins.
    """
    weight = max(1.0 / p.tau_slow_bins, 1.0 / (r.valid_bins + 1.0))
    for g in range(NODES):
        d = node[g] - r.mean[g]
        spread = math.sqrt(np.float64(r.variance[g]))
        if r.valid_bins < 8 or abs(d) <= 1e-7 * max(1.0, abs(node[g])):
            z[g] = 0.0
        else:
            z[g] = min(max(d / max(spread, 1e-6), -_Z_LIMIT), _Z_LIMIT)
        r.mean[g] += np.float32(weight * d)
        r.variance[g] = np.float32((1.0 - weight) * (r.variance[g] + weight * d * d))


@njit(cache=True, nogil=True)
def follow_workspace(r, p, z, nodes, closed):  # type: ignore[no-untyped-def]
    """Update W from the breadth and strength of co-activation, and count ignitions.

    Args:
        r: the source's row.
        p: parameters.
        z: float64 (8,), standardised nodes.
        nodes: mask of the declared nodes.
        closed: index of the bin.
    """
    declared = 0
    shares = 0.0
    for g in range(NODES):
        if nodes >> g & 1:
            declared += 1
            shares += r.share[g]
    total = 0.0
    squares = 0.0
    high = 0
    for g in range(NODES):
        if nodes >> g & 1 and shares > 0.0:
            a = max(0.0, z[g]) * declared * r.share[g] / shares
            total += a
            squares += a * a
            high += z[g] > 1.0
    drive = 0.0
    if squares > 0.0:
        drive = total * total / (declared * squares) * (1.0 - math.exp(-total / declared))
    rate = p.attack if drive > r.workspace_now else p.release
    r.workspace_now += np.float32(rate * (drive - r.workspace_now))
    broad = declared > 0 and 2 * high >= declared
    if r.workspace_now > 0.5 and broad and closed - r.ignition_bin >= p.refractory_bins:
        r.ignition_count += 1
        r.ignition_bin = closed


@njit(cache=True, nogil=True)
def rest_workspace(r, p):  # type: ignore[no-untyped-def]
    """Let W fall during a missing bin; exactly 0 in the end."""
    r.workspace_now -= np.float32(p.release * r.workspace_now)
    if r.workspace_now < 1e-6:
        r.workspace_now = np.float32(0.0)


@njit(cache=True, nogil=True)
def compose(p, a, d, i, w, n, filled):  # type: ignore[no-untyped-def]
    """Give the level in [0, 1]: K + beta K (1 - K), K = A^.20 (D c)^.35 (I c)^.45.

    Args:
        p: parameters.
        a: arousal; it and the next four lie in [0, 1].
        d: differentiation.
        i: integration.
        w: workspace.
        n: novelty.
        filled: c, share of the window that is valid.
    """
    if a <= 0.0 or d <= 0.0 or i <= 0.0 or filled <= 0.0:
        return 0.0
    k = math.exp(
        p.weight_arousal * math.log(a)
        + p.weight_differentiation * math.log(d * filled)
        + p.weight_integration * math.log(i * filled)
    )
    k = min(k, 1.0)
    beta = p.weight_workspace * w + (1.0 - p.weight_workspace) * n
    return k + beta * k * (1.0 - k)


@njit(cache=True, nogil=True)
def direction(phase, smooth):  # type: ignore[no-untyped-def]
    """Tell which way the smoothed level wants the phase to go: -1, 0 or 1."""
    if phase < EMERGENT and smooth >= ENTER[phase + 1]:
        return 1
    if phase > 0 and smooth < LEAVE[phase]:
        return -1
    return 0


@njit(cache=True, nogil=True)
def select(share, fitness, pressure, mutation, before):  # type: ignore[no-untyped-def]
    """Apply one step of the replicator with mutation to the shares.

    Args:
        share: float32 (8,), on the simplex, overwritten.
        fitness: float32 (8,), each in [0, 1].
        pressure: eta.
        mutation: mu.
        before: float64 (8,) scratch.

    Returns:
        KL(new || old) in nats, and the new mean fitness.
    """
    total = 0.0
    for g in range(share.size):
        before[g] = share[g]
        total += before[g] * math.exp(pressure * fitness[g])
    moved = 0.0
    mean = 0.0
    for g in range(share.size):
        grown = before[g] * math.exp(pressure * fitness[g]) / total
        x = (1.0 - mutation) * grown + mutation / share.size
        if x > 0.0 and before[g] > 0.0:
            moved += x * math.log(x / before[g])
        mean += x * fitness[g]
        share[g] = x
    return max(0.0, moved), mean


@njit(cache=True, nogil=True)
def diversity(share):  # type: ignore[no-untyped-def]
    """Give (e^H - 1) / 7 of the shares of eight populations, 0 to 1."""
    entropy = 0.0
    for g in range(NODES):
        if share[g] > 0.0:
            entropy -= share[g] * math.log(share[g])
    return (math.exp(entropy) - 1.0) / (NODES - 1)


def level_of(
    parameters: NDArray[np.void],
    *,
    arousal: float,
    differentiation: float,
    integration: float,
    workspace: float,
    novelty: float,
    filled: float = 1.0,
) -> float:
    """Give the level of known components, as `compose` does."""
    return float(
        compose(parameters[0], arousal, differentiation, integration, workspace, novelty, filled)
    )
