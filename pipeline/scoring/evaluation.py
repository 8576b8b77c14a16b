"""Evaluate a window: differentiation, integration, level, phase and adaptation into the row."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from pipeline.scoring.dynamics import (
    EMERGENT,
    FRESH_NULL_BINS,
    compose,
    direction,
    diversity,
    restore,
    select,
)
from pipeline.scoring.integration import (
    complexity_bias,
    entropies,
    equal_time,
    integrated,
    main_complex,
    neural_complexity,
    weakest_cut,
)
from pipeline.scoring.lz import differentiation
from pipeline.scoring.parameters import CHANNELS, MIN_PAIRS, NODES, WINDOW
from pipeline.scoring.state import NEVER
from pipeline.scoring.window import lag_covariance, read_window, standardise, surrogate_null


@njit(cache=True, nogil=True)
def nodes_of(channels):  # type: ignore[no-untyped-def]
    """Give the mask of the nodes that a mask of channels touches."""
    nodes = 0
    for g in range(NODES):
        if channels >> (2 * g) & 3:
            nodes |= 1 << g
    return nodes


@njit(cache=True, nogil=True, inline="always")
def _describe(r, s, t, core, alive, bias):  # type: ignore[no-untyped-def]
    """Fill the by-products: coupling of each node, cut, redundancy, C_N, the whole less its parts.

    `bias` is that of equal-time entropies, float64 (9,), by size.
    """
    for g in range(NODES):
        one = 1 << g
        if alive & one:
            phi = s.h[one] + s.h[alive ^ one] - s.h[alive]
            r.coupling[g] = math.sqrt(1.0 - math.exp(-2.0 * max(0.0, phi)))
    if core == 0:
        return
    r.phi_whole = max(0.0, weakest_cut(s.h, alive)[0])
    cut = weakest_cut(s.h, core)[1]
    r.cut = cut
    total, dual = equal_time(s.det_now, core, t.size[core])
    if total + dual > 1e-12:
        r.o_ratio = (total - dual) / (total + dual)
    size = t.size[core]
    r.c_n = neural_complexity(s.det_now, core, size, t) - complexity_bias(bias, size)
    rest = core ^ cut
    whole = 0.5 * math.log(s.det_now[core & 31, core >> 5]) - bias[size]
    parts = 0.5 * math.log(s.det_now[cut & 31, cut >> 5] * s.det_now[rest & 31, rest >> 5])
    parts -= bias[t.size[cut]] + bias[t.size[rest]]
    r.phi_wms = (whole - s.h[core]) - (parts - s.h[cut] - s.h[rest])


@njit(cache=True, nogil=True)
def _integrate(r, p, s, t, rows):  # type: ignore[no-untyped-def]
    """Fill phi, core, null, coupling and I of the row from the window in s.

    Returns:
        whether integration is known.
    """
    declared = t.size[nodes_of(r.used)]
    alive = 0
    pairs = 0
    if rows > MIN_PAIRS:
        alive = standardise(s, rows, r.active, p.change_threshold)
        pairs = lag_covariance(s.z, s.adjacent, rows, alive, s, s.cov)
    r.core = 0
    r.cut = 0
    r.phi = 0.0
    r.phi_whole = 0.0
    r.phi_wms = 0.0
    r.o_ratio = 0.0
    r.c_n = 0.0
    for g in range(NODES):
        r.coupling[g] = 0.0
    if pairs < MIN_PAIRS:
        r.integration = np.nan
        r.null = np.nan
        return False
    bias = t.bias[pairs]
    entropies(s.cov, alive, bias, s, t)
    nodes = t.size[alive]
    score, phi, core = main_complex(s.h, alive, declared, 0.0, t)
    floor = p.null_floor
    if nodes >= 2:
        floor = max(floor, t.floor[pairs, nodes] * nodes / declared)
        _describe(r, s, t, core, alive, t.equal_bias[pairs])
    r.phi = phi
    r.core = core
    if p.surrogates and r.null_due and score > floor:
        seed = np.uint64(r.seed) << np.uint64(32) ^ np.uint64(r.bin)
        r.null_score = surrogate_null(rows, alive, declared, seed, bias, s, t)
        r.null_bin = r.bin - 1
        r.null_due = 0
    null = floor
    if p.surrogates and r.null_bin != NEVER:
        null = max(null, np.float64(r.null_score))
    null = min(null, 0.999)
    r.null = null
    r.integration = integrated(score, null, np.float64(r.o_ratio))
    return True


@njit(cache=True, nogil=True)
def _weigh(r, p, known, filled):  # type: ignore[no-untyped-def]
    """Compose the level from the row's components."""
    if not known:
        return 0.0
    return compose(
        p,
        np.float64(r.arousal),
        np.float64(r.differentiation),
        np.float64(r.integration),
        np.float64(r.workspace),
        np.float64(r.novelty),
        filled,
    )


@njit(cache=True, nogil=True)
def _smoothed(before, p, level):  # type: ignore[no-untyped-def]
    smooth = before + p.smoothing * (level - before)
    return smooth if smooth > 1e-5 else 0.0


@njit(cache=True, nogil=True, inline="always")
def _publish(r):  # type: ignore[no-untyped-def]
    """Copy what runs on between evaluations to where readers look."""
    r.arousal = r.arousal_now
    r.workspace = r.workspace_now
    r.novelty = r.novelty_now
    r.ignitions = r.ignition_count
    r.late = r.late_count
    r.too_late = r.too_late_count
    r.grace = r.grace_now
    r.declared = r.used
    r.displaced = r.unplaced
    r.seen = r.seen_nodes
    r.told = r.told_nodes
    r.stability = 1.0 - math.sqrt(np.float64(r.level_variance))


@njit(cache=True, nogil=True)
def _remember_recent(r, p, s, rows):  # type: ignore[no-untyped-def]
    """Keep what a bin brought lately on each channel, for readers; the level does not use it."""
    first = max(0, rows - p.hop_bins)
    for c in range(CHANNELS):
        total = 0.0
        for t in range(first, rows):
            total += restore(s.y[t, c])
        r.recent[c] = total / max(1, rows - first)


@njit(cache=True, nogil=True, inline="always")
def _waits(r, p, way):  # type: ignore[no-untyped-def]
    """Tell whether the next phase is emergent and W too low for it, or no null computed."""
    next_is_emergent = way > 0 and r.phase + 1 == EMERGENT
    return next_is_emergent and (r.workspace <= 0.5 or not p.surrogates)


@njit(cache=True, nogil=True, inline="always")
def _move(r, p, way):  # type: ignore[no-untyped-def]
    """Step the phase once `dwell` evaluations in a row wanted it.

    The step to emergent also waits for the workspace, however long the level stays.
    """
    if way == 0:
        r.pending = 0
        r.agreed = 0
        return
    if way == r.pending:
        r.agreed = min(r.agreed + 1, p.dwell)
    else:
        r.pending = way
        r.agreed = 1
    if r.agreed >= p.dwell and not _waits(r, p, way):
        r.phase += way
        r.pending = 0
        r.agreed = 0


@njit(cache=True, nogil=True, inline="always")
def _adapt(r, p, s, known):  # type: ignore[no-untyped-def]
    """Let the replicator select among the nodes; nothing is selected while I is unknown."""
    r.adaptation_rate = 0.0
    if not known:
        return
    moved, fitness = select(r.share, r.coupling, p.selection_pressure, p.mutation_rate, s.before)
    r.adaptation_rate = moved
    r.generation += 1
    if fitness > r.fitness:
        r.adaptations += 1
    r.fitness = fitness
    r.diversity = diversity(r.share)


@njit(cache=True, nogil=True, inline="always")
def evaluate(r, p, s, t):  # type: ignore[no-untyped-def]
    """Evaluate the window that ends with the bin just closed; r.bin is the next one."""
    _publish(r)
    rows, active = read_window(r, s)
    _remember_recent(r, p, s, rows)
    filled = rows / WINDOW
    r.bins = rows
    r.active = active
    channels = 0
    alive = 0
    for c in range(CHANNELS):
        channels += r.used >> c & 1
        alive += active >> c & 1
    channels += t.size[r.unplaced]
    r.confidence = filled * alive / channels if channels else 0.0
    r.differentiation = np.nan
    if rows:
        r.differentiation = differentiation(s.y, rows, active, s.mean, t.shuffled, s.bits, s.words)
    known = _integrate(r, p, s, t, rows)
    level = _weigh(r, p, known, filled)
    before = np.float64(r.smooth)
    smooth = _smoothed(before, p, level)
    way = direction(r.phase, smooth)
    ready = (way == r.pending and r.agreed + 1 >= p.dwell) or p.dwell == 1
    stale = r.null_bin < r.bin - 1 - FRESH_NULL_BINS
    if way > 0 and ready and stale and p.surrogates and known and not _waits(r, p, way):
        r.null_due = 1
        _integrate(r, p, s, t, rows)
        level = _weigh(r, p, known, filled)
        smooth = _smoothed(before, p, level)
        way = direction(r.phase, smooth)
    r.level = level
    r.smooth = smooth
    r.trend = smooth - r.level_mean if rows else 0.0
    _move(r, p, way)
    _adapt(r, p, s, known)
    r.evaluated = 1
    r.level_ts = r.bin * r.delta_ms - r.phase_ms
    age = r.bin - 1 - r.null_bin
    r.null_age = 65535 if not known or r.null_bin == NEVER or age > 65535 else age
