"""The compiled step: apply inputs in order, close bins, evaluate windows, keep snapshots."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from pipeline.scoring.correlation import follow_level, follow_pairs, summarise
from pipeline.scoring.dynamics import (
    EMERGENT,
    FRESH_NULL_BINS,
    compose,
    direction,
    dirichlet_surprise,
    follow_activity,
    follow_nodes,
    follow_surprise,
    follow_workspace,
    rest_workspace,
    restore,
    select,
    transform,
)
from pipeline.scoring.integration import (
    entropies,
    equal_time,
    integrated,
    main_complex,
    neural_complexity,
    weakest_cut,
)
from pipeline.scoring.lz import differentiation
from pipeline.scoring.parameters import CHANNELS, LAGS, MIN_PAIRS, NODES, WINDOW
from pipeline.scoring.state import CLASSES, NEVER
from pipeline.scoring.window import (
    from_half,
    lag_covariance,
    read_window,
    standardise,
    surrogate_null,
    to_half,
)

EVENT, FRAME, HEARTBEAT, TICK = 0, 1, 2, 3
MEAN = 16
"""Added to a channel's place: its values of one bin are averaged, not added."""
CLASS = 32
"""Added to a class bucket: the value counts objects of that bucket in a frame."""
SURPRISE = 64
"""Added to a place: the frame's class surprise goes there, whatever the value."""
DISPLACED = 128
"""Added to the number of a vision channel that has no place."""
ON_TIME, PATCHED, TOO_LATE = 0, 1, 2
_LARGEST = 1e30


@njit(cache=True, nogil=True)
def bin_of(r, p, ts):  # type: ignore[no-untyped-def]
    """Give the source's bin of a time."""
    return (ts + r.phase_ms) // p.delta_ms


@njit(cache=True, nogil=True)
def _nodes_of(channels):  # type: ignore[no-untyped-def]
    nodes = 0
    for g in range(NODES):
        if channels >> (2 * g) & 3:
            nodes |= 1 << g
    return nodes


@njit(cache=True, nogil=True)
def _write_column(r, s):  # type: ignore[no-untyped-def]
    """Write the open bin to the ring as halves; give the activity of what was written."""
    column = r.bin & (WINDOW - 1)
    sampled = 0
    activity = 0.0
    s.node[:] = 0.0
    for c in range(CHANNELS):
        s.raw[c] = 0.0
        if not r.declared >> c & 1:
            r.ring[column, c] = 0
            continue
        value = np.float64(r.sum[c])
        if r.mean_kind >> c & 1:
            if r.count[c]:
                value /= r.count[c]
                r.held[c] = value
                sampled |= 1 << c
            value = np.float64(r.held[c])
        y = transform(value)
        half = to_half(y - r.offset[c])
        r.ring[column, c] = half
        y = np.float64(r.offset[c]) + np.float64(from_half(half))
        s.raw[c] = value
        s.node[c >> 1] += y
        activity += abs(y)
        r.sum[c] = 0.0
        r.count[c] = 0
    r.sampled[column] = sampled
    return activity


@njit(cache=True, nogil=True)
def _anchor(r, c, value):  # type: ignore[no-untyped-def]
    """Let a mean channel's ring count from its first sample, where halves are finest."""
    if not r.anchored >> c & 1:
        r.anchored |= 1 << c
        r.offset[c] = transform(value)
        r.held[c] = value


@njit(cache=True, nogil=True)
def _put(r, code, value):  # type: ignore[no-untyped-def]
    """Add one value to the open bin."""
    c = code & (CHANNELS - 1)
    r.declared |= 1 << c
    if code & MEAN:
        r.mean_kind |= 1 << c
        _anchor(r, c, value)
        if r.count[c] < 65535:
            r.sum[c] += np.float32(value)
            r.count[c] += 1
    else:
        r.sum[c] += np.float32(value)
    r.sum[c] = min(max(r.sum[c], -_LARGEST), _LARGEST)


@njit(cache=True, nogil=True)
def _patch(r, code, value, late_bin):  # type: ignore[no-untyped-def]
    """Add one value to a closed column: a sum grows, a held mean becomes measured.

    A measured mean and a late sample count half each: how many there were is not kept.
    """
    c = code & (CHANNELS - 1)
    column = late_bin & (WINDOW - 1)
    r.declared |= 1 << c
    if code & MEAN:
        r.mean_kind |= 1 << c
        _anchor(r, c, value)
    before = restore(np.float64(r.offset[c]) + np.float64(from_half(r.ring[column, c])))
    after = before + value
    if code & MEAN:
        measured = r.sampled[column] >> c & 1
        after = 0.5 * after if measured else value
        r.sampled[column] |= 1 << c
    after = min(max(after, -_LARGEST), _LARGEST)
    r.ring[column, c] = to_half(transform(after) - r.offset[c])


@njit(cache=True, nogil=True)
def _integrate(r, p, s, t, rows, null_wanted):  # type: ignore[no-untyped-def]
    """Fill phi, core, null, coupling and I of the row from the window in s.

    Returns:
        whether integration is known.
    """
    declared = t.size[_nodes_of(r.declared)]
    alive = 0
    pairs = 0
    if rows > MIN_PAIRS:
        alive = standardise(s, rows, p.change_threshold)
        pairs = lag_covariance(s.z, s.adjacent, rows, alive, s, s.cov)
    r.core = 0
    r.cut = 0
    r.phi = 0.0
    r.phi_whole = 0.0
    r.phi_wms = 0.0
    r.o_ratio = 0.0
    r.c_n = 0.0
    r.coupling[:] = 0.0
    if pairs < MIN_PAIRS:
        r.integration = np.nan
        r.null = np.nan
        return False
    bias = t.bias[pairs]
    entropies(s.cov, bias, s, t)
    nodes = t.size[alive]
    score, phi, core = main_complex(s.h, alive, declared, t)
    floor = p.null_floor
    if nodes >= 2:
        floor = max(floor, t.floor[pairs, nodes] * nodes / declared)
        _describe(r, s, t, core, alive)
    r.phi = phi
    r.core = core
    due = r.null_due or null_wanted
    if p.surrogates and due and score > floor:
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
def _describe(r, s, t, core, alive):  # type: ignore[no-untyped-def]
    """Fill the by-products: coupling of each node, cut, redundancy, C_N."""
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
    r.c_n = neural_complexity(s.det_now, core, t.size[core], t)
    rest = core ^ cut
    whole = 0.5 * math.log(s.det_now[core & 31, core >> 5])
    parts = 0.5 * math.log(s.det_now[cut & 31, cut >> 5] * s.det_now[rest & 31, rest >> 5])
    r.phi_wms = (whole - s.h[core]) - (parts - s.h[cut] - s.h[rest])


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


@njit(cache=True, nogil=True)
def evaluate(r, p, s, t):  # type: ignore[no-untyped-def]
    """Evaluate the window that ends with the bin just closed; r.bin is the next one."""
    rows, active = read_window(r, s)
    filled = rows / WINDOW
    r.bins = rows
    r.active = active
    channels = 0
    alive = 0
    for c in range(CHANNELS):
        channels += r.declared >> c & 1
        alive += active >> c & 1
    channels += t.size[r.displaced]
    r.confidence = filled * alive / channels if channels else 0.0
    r.differentiation = np.nan
    if rows:
        r.differentiation = differentiation(s.y, rows, active, s.mean, t.shuffled, s.bits, s.words)
    known = _integrate(r, p, s, t, rows, False)
    level = _weigh(r, p, known, filled)
    before = np.float64(r.smooth)
    smooth = _smoothed(before, p, level)
    way = direction(r.phase, smooth, np.float64(r.workspace))
    ready = way == r.pending and r.agreed + 1 >= p.dwell or p.dwell == 1
    stale = r.null_bin < r.bin - 1 - FRESH_NULL_BINS
    if way > 0 and ready and stale and p.surrogates and known:
        _integrate(r, p, s, t, rows, True)
        level = _weigh(r, p, known, filled)
        smooth = _smoothed(before, p, level)
        way = direction(r.phase, smooth, np.float64(r.workspace))
    r.level = level
    r.smooth = smooth
    _move(r, p, way)
    _adapt(r, p, s, known)
    r.evaluated = 1
    r.level_ts = r.bin * p.delta_ms - r.phase_ms
    age = r.bin - 1 - r.null_bin
    r.null_age = 65535 if not known or r.null_bin == NEVER or age > 65535 else age


@njit(cache=True, nogil=True)
def _move(r, p, way):  # type: ignore[no-untyped-def]
    """Step the phase once `dwell` evaluations in a row wanted it."""
    if way == 0:
        r.pending = 0
        r.agreed = 0
        return
    if way == r.pending:
        r.agreed += 1
    else:
        r.pending = way
        r.agreed = 1
    if r.agreed >= p.dwell:
        r.phase += way
        r.pending = 0
        r.agreed = 0


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def close_bin(r, p, s, t):  # type: ignore[no-untyped-def]
    """Close the open bin; evaluate if its index says so.

    Returns:
        whether the window was evaluated.
    """
    closed = r.bin
    valid = closed - r.heard <= p.stale_bins
    activity = _write_column(r, s)
    r.valid = (r.valid << np.uint64(1)) | np.uint64(valid)
    if valid:
        follow_activity(r, p, activity)
        follow_surprise(r, p, s.raw, r.declared)
        follow_nodes(r, p, s.node, s.bin_z)
        follow_workspace(r, p, s.bin_z, _nodes_of(r.declared))
        r.seen += 1
    else:
        rest_workspace(r, p)
    r.bin = closed + 1
    if closed % WINDOW == 0:
        r.null_due = 1
    evaluated = closed % p.hop_bins == 0
    if evaluated:
        evaluate(r, p, s, t)
    if valid:
        s.bin_z[NODES] = follow_level(r, p, np.float64(r.level))
        follow_pairs(r, p, s.bin_z, closed)
    r.linked = (r.linked << 1 | valid) & 0xFF
    if closed % WINDOW == 0:
        summarise(r, p, s)
    return evaluated


@njit(cache=True, nogil=True)
def at_rest(r):  # type: ignore[no-untyped-def]
    """Tell whether another missing bin would change nothing but the bin's index."""
    return (
        r.valid == 0
        and r.workspace == 0.0
        and r.smooth == 0.0
        and r.level == 0.0
        and r.phase == 0
        and r.pending == 0
        and r.bins == 0
        and r.linked == 0
        and r.evaluated == 1
    )


@njit(cache=True, nogil=True)
def advance(r, p, s, t, target):  # type: ignore[no-untyped-def]
    """Close every bin before the target; a long absence costs no more than a short one.

    Returns:
        how often the window was evaluated.
    """
    evaluated = 0
    while r.bin < target:
        if r.bin - r.heard > p.stale_bins and at_rest(r):
            last = (target - 1) // p.hop_bins * p.hop_bins
            if last >= r.bin:
                r.level_ts = (last + 1) * p.delta_ms - r.phase_ms
                evaluated += 1
            if (target - 1) // WINDOW * WINDOW >= r.bin:
                r.null_due = 1
            r.bin = target
            break
        evaluated += close_bin(r, p, s, t)
    return evaluated


@njit(cache=True, nogil=True)
def _receive(r, p, s, late_bin, codes, values, first, last):  # type: ignore[no-untyped-def]
    """Put or patch the values codes[first:last] and, for a frame, its class surprise."""
    classes = 0
    place = -1
    for k in range(first, last):
        code = np.int64(codes[k])
        value = np.float64(values[k])
        value = 0.0 if math.isnan(value) else min(max(value, -_LARGEST), _LARGEST)
        if code & DISPLACED:
            r.displaced |= 1 << (code & 7)
        elif code & SURPRISE:
            place = code & (CHANNELS | (CHANNELS - 1))
        elif code & CLASS:
            if classes == 0:
                s.classes[:] = 0.0
            s.classes[code & (CLASSES - 1)] += value
            classes += 1
        elif late_bin == NEVER:
            _put(r, code, value)
        else:
            _patch(r, code, value, late_bin)
    if place >= 0 and late_bin == NEVER:
        surprise = 0.0
        if classes:
            surprise = dirichlet_surprise(r.class_alpha, s.classes)
        for k in range(CLASSES):
            seen = s.classes[k] if classes else 0.0
            r.class_alpha[k] = 1.0 + p.class_forgetting * (r.class_alpha[k] - 1.0) + seen
        _put(r, place, surprise)


@njit(cache=True, nogil=True)
def apply(r, p, s, t, kind, ts, codes, values, first, last):  # type: ignore[no-untyped-def]
    """Apply one input to a source.

    Returns:
        how often the window was evaluated, and ON_TIME, PATCHED or TOO_LATE.
    """
    if kind == TICK and not r.started:
        return 0, ON_TIME
    b = bin_of(r, p, ts)
    if not r.started:
        r.started = 1
        r.bin = b
        r.ts = ts
    r.ts = max(r.ts, ts)
    if b >= r.bin:
        evaluated = advance(r, p, s, t, b)
        if kind != TICK:
            r.heard = b
            _receive(r, p, s, NEVER, codes, values, first, last)
        return evaluated, ON_TIME
    if kind == TICK:
        return 0, ON_TIME
    if r.bin - b > WINDOW:
        r.too_late += 1
        return 0, TOO_LATE
    r.late += 1
    r.valid |= np.uint64(1) << np.uint64(r.bin - 1 - b)
    r.heard = max(r.heard, b)
    _receive(r, p, s, b, codes, values, first, last)
    return 0, PATCHED


@njit(cache=True, nogil=True)
def step(  # type: ignore[no-untyped-def]
    rows, row_bytes, slots, times, kinds, starts, codes, values, p, s, t, out, mark, number
):
    """Apply a batch in order.

    Args:
        rows: ROW (capacity,). row_bytes: the same memory as uint8 (capacity, itemsize).
        slots, times, kinds, starts, codes, values: the batch, see `engine.InputBatch`.
        p, s, t: parameters, scratch, tables.
        out: `engine.Output`: per-input columns and the snapshots' bytes.
        mark: int64 (capacity, 2); number of the last step that touched a slot, its snapshot.
        number: this step's number.

    Returns:
        snapshots written, evaluations made.
    """
    snapshots = 0
    evaluations = 0
    size = out.snapshots.shape[1]
    for i in range(slots.size):
        slot = slots[i]
        r = rows[slot]
        before = r.phase
        evaluated, lateness = apply(
            r, p, s, t, kinds[i], times[i], codes, values, starts[i], starts[i + 1]
        )
        if evaluated or mark[slot, 0] != number:
            mark[slot, 0] = number
            mark[slot, 1] = snapshots
            for k in range(size):
                out.snapshots[snapshots, k] = row_bytes[slot, k]
            snapshots += 1
            evaluations += evaluated
        out.level[i] = r.level
        out.level_ts[i] = r.level_ts
        out.phase[i] = r.phase
        out.phase_before[i] = before
        out.lateness[i] = lateness
        out.snapshot[i] = mark[slot, 1]
    return snapshots, evaluations
