"""The compiled step: apply inputs in order, close bins, evaluate windows, keep snapshots."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from pipeline.scoring.correlation import follow_level, follow_pairs, summarise
from pipeline.scoring.dynamics import (
    dirichlet_surprise,
    follow_activity,
    follow_nodes,
    follow_surprise,
    follow_workspace,
    rest_workspace,
    restore,
    transform,
)
from pipeline.scoring.evaluation import evaluate, nodes_of
from pipeline.scoring.parameters import CHANNELS, LAGS, NODES, WINDOW
from pipeline.scoring.state import CLASSES, NEVER
from pipeline.scoring.window import from_half, to_half

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
MOST_GRACE = LAGS
"""Bins that A, N, W and the correlations wait for frames at most."""
_LARGEST = 1e30


@njit(cache=True, nogil=True, inline="always")
def bin_of(r, ts):  # type: ignore[no-untyped-def]
    """Give the source's bin of a time."""
    return (ts + r.phase_ms) // r.delta_ms


@njit(cache=True, nogil=True, inline="always")
def _write_column(r, s):  # type: ignore[no-untyped-def]
    """Write the open bin to the ring as halves; give the activity of what was written."""
    column = r.bin & (WINDOW - 1)
    sampled = 0
    activity = 0.0
    s.node.fill(0.0)
    for c in range(CHANNELS):
        s.raw[c] = 0.0
        if not r.used >> c & 1:
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
def _read_column(r, s, b):  # type: ignore[no-untyped-def]
    """Read a closed bin from the ring as `_write_column` leaves one; give its activity."""
    column = b & (WINDOW - 1)
    activity = 0.0
    s.node.fill(0.0)
    for c in range(CHANNELS):
        s.raw[c] = 0.0
        if not r.used >> c & 1:
            continue
        y = np.float64(r.offset[c]) + np.float64(from_half(r.ring[column, c]))
        s.raw[c] = restore(y)
        s.node[c >> 1] += y
        activity += abs(y)
    return activity


@njit(cache=True, nogil=True)
def _anchor(r, c, value):  # type: ignore[no-untyped-def]
    """Let a mean channel's ring count from its first sample, where halves are finest."""
    if not r.anchored >> c & 1:
        r.anchored |= 1 << c
        r.offset[c] = transform(value)
        r.held[c] = value


@njit(cache=True, nogil=True, inline="always")
def _put(r, code, value):  # type: ignore[no-untyped-def]
    """Add one value to the open bin."""
    c = code & (CHANNELS - 1)
    r.used |= 1 << c
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
def _hold(r, c, late_bin, value):  # type: ignore[no-untyped-def]
    """Let the bins after a late sample of a mean channel hold it, up to the next sample."""
    half = r.ring[late_bin & (WINDOW - 1), c]
    for b in range(late_bin + 1, r.bin):
        column = b & (WINDOW - 1)
        if r.sampled[column] >> c & 1:
            return
        r.ring[column, c] = half
    r.held[c] = value


@njit(cache=True, nogil=True)
def _patch(r, code, value, late_bin):  # type: ignore[no-untyped-def]
    """Add one value to a closed column: a sum grows, a held mean becomes measured.

    A measured mean and a late sample count half each: how many there were is not kept. Bins that
    have been followed go on holding what they held.
    """
    c = code & (CHANNELS - 1)
    column = late_bin & (WINDOW - 1)
    r.used |= 1 << c
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
    if code & MEAN and r.bin - late_bin <= r.unfollowed:
        _hold(r, c, late_bin, after)


@njit(cache=True, nogil=True)
def _follow(r, p, s, closed, valid, activity):  # type: ignore[no-untyped-def]
    """Update A, N, W and the standardised nodes with a closed bin, whose column is in s."""
    if not valid:
        rest_workspace(r, p)
        return
    follow_activity(r, p, activity)
    follow_surprise(r, p, s.raw, r.used)
    follow_nodes(r, p, s.node, s.bin_z)
    follow_workspace(r, p, s.bin_z, nodes_of(r.used), closed)
    r.valid_bins += 1


@njit(cache=True, nogil=True)
def _correlate(r, p, s, closed, valid):  # type: ignore[no-untyped-def]
    """Update the correlations with a bin that has just been followed."""
    if valid:
        s.bin_z[NODES] = follow_level(r, p, np.float64(r.level))
        follow_pairs(r, p, s.bin_z, closed)
    r.linked = (r.linked << 1 | valid) & 0xFF


@njit(cache=True, nogil=True)
def _catch_up(r, p, s):  # type: ignore[no-untyped-def]
    """Follow closed bins until no more are left than frames are waited for; r.bin is the next."""
    while r.unfollowed > r.grace_now:
        valid = np.int64(r.valid >> np.uint64(r.unfollowed - 1)) & 1
        closed = r.bin - r.unfollowed
        activity = _read_column(r, s, closed)
        _follow(r, p, s, closed, valid, activity)
        _correlate(r, p, s, closed, valid)
        r.unfollowed -= 1


@njit(cache=True, nogil=True, inline="always")
def close_bin(r, p, s, t):  # type: ignore[no-untyped-def]
    """Close the open bin; evaluate if its index says so.

    A, N, W and the correlations follow it at once, or where frames come behind events as many bins
    later as they needed, of late, to be there.

    Returns:
        whether the window was evaluated.
    """
    closed = r.bin
    valid = np.int64(closed - r.heard <= r.stale_bins)
    activity = _write_column(r, s)
    r.valid = (r.valid << np.uint64(1)) | np.uint64(valid)
    is_prompt = r.grace_now == 0 and r.unfollowed == 0
    if is_prompt:
        _follow(r, p, s, closed, valid, activity)
    r.bin = closed + 1
    if not is_prompt:
        r.unfollowed += 1
        _catch_up(r, p, s)
    if closed % WINDOW == 0:
        r.null_due = 1
        r.grace_now = r.needed
        r.needed = 0
        summarise(r, p, s)
    evaluated = closed % p.hop_bins == 0
    if evaluated:
        evaluate(r, p, s, t)
    if is_prompt:
        _correlate(r, p, s, closed, valid)
    return evaluated


@njit(cache=True, nogil=True, inline="always")
def at_rest(r):  # type: ignore[no-untyped-def]
    """Tell whether another missing bin would change nothing but the bin's index."""
    return (
        r.valid == 0
        and r.workspace_now == 0.0
        and r.workspace == 0.0
        and r.smooth == 0.0
        and r.level == 0.0
        and r.phase == 0
        and r.pending == 0
        and r.bins == 0
        and r.linked == 0
        and r.evaluated == 1
        and r.grace_now == 0
        and r.needed == 0
        and r.unfollowed == 0
    )


@njit(cache=True, nogil=True, inline="always")
def advance(r, p, s, t, target):  # type: ignore[no-untyped-def]
    """Close every bin before the target; a long absence costs no more than a short one.

    Returns:
        how often the window was evaluated.
    """
    evaluated = 0
    while r.bin < target:
        if r.bin - r.heard > r.stale_bins and at_rest(r):
            last = (target - 1) // p.hop_bins * p.hop_bins
            if last >= r.bin:
                r.level_ts = (last + 1) * r.delta_ms - r.phase_ms
                evaluated += 1
            if (target - 1) // WINDOW * WINDOW >= r.bin:
                r.null_due = 1
            r.bin = target
            break
        evaluated += close_bin(r, p, s, t)
    return evaluated


@njit(cache=True, nogil=True, inline="always")
def _put_surprise(r, p, s, late_bin, place, classes):  # type: ignore[no-untyped-def]
    """Put or patch a frame's class surprise and let the prior learn its classes, if it has any."""
    surprise = 0.0
    if classes:
        surprise = dirichlet_surprise(r.class_alpha, s.classes)
    for k in range(CLASSES):
        seen = s.classes[k] if classes else 0.0
        r.class_alpha[k] = 1.0 + p.class_forgetting * (r.class_alpha[k] - 1.0) + seen
    if late_bin == NEVER:
        _put(r, place, surprise)
    else:
        _patch(r, place, surprise, late_bin)


@njit(cache=True, nogil=True, inline="always")
def _receive(r, p, s, late_bin, lateness, codes, values, first, last):  # type: ignore[no-untyped-def]
    """Put or patch the values codes[first:last] and, for a frame in time, its class surprise.

    Returns:
        mask of the nodes fed.
    """
    classes = 0
    fed = np.int64(0)
    place = np.int64(-1)
    for k in range(first, last):
        code = np.int64(codes[k])
        given = np.float64(values[k])
        value = 0.0 if math.isnan(given) else min(max(given, -_LARGEST), _LARGEST)
        if code & DISPLACED:
            r.unplaced |= 1 << (code & 7)
            continue
        if code & CLASS:
            if classes == 0:
                s.classes.fill(0.0)
            s.classes[code & (CLASSES - 1)] += value
            classes += 1
            continue
        if code & SURPRISE:
            place = code & (CHANNELS | (CHANNELS - 1))
            continue
        fed |= 1 << ((code & (CHANNELS - 1)) >> 1)
        if late_bin == NEVER:
            _put(r, code, value)
        else:
            _patch(r, code, value, late_bin)
    if place >= 0 and lateness == ON_TIME:
        fed |= 1 << ((place & (CHANNELS - 1)) >> 1)
        _put_surprise(r, p, s, late_bin, place, classes)
    return fed


@njit(cache=True, nogil=True, inline="always")
def _declare(r, codes, first, last):  # type: ignore[no-untyped-def]
    """Note the places of an input whose values come too late: its names have them all the same."""
    for k in range(first, last):
        code = np.int64(codes[k])
        if code & DISPLACED:
            r.unplaced |= 1 << (code & 7)
        elif not code & CLASS:
            r.used |= 1 << (code & (CHANNELS - 1))


@njit(cache=True, nogil=True, inline="always")
def _admit_late(r, b, kind):  # type: ignore[no-untyped-def]
    """Make a closed bin valid for an input that joins it; a frame makes later ones waited for.

    Returns:
        ON_TIME where A, N and W have not followed the bin, else PATCHED.
    """
    behind = r.bin - b
    r.valid |= np.uint64(1) << np.uint64(behind - 1)
    lateness = ON_TIME
    if behind > r.unfollowed:
        lateness = PATCHED
        r.late_count += 1
    if kind == FRAME:
        r.needed = max(r.needed, min(behind, MOST_GRACE))
        r.grace_now = max(r.grace_now, r.needed)
    return lateness


@njit(cache=True, nogil=True, inline="always")
def apply(r, p, s, t, kind, ts, codes, values, first, last):  # type: ignore[no-untyped-def]
    """Apply one input to a source.

    Returns:
        how often the window was evaluated, and ON_TIME, PATCHED or TOO_LATE.
    """
    if kind == TICK and not r.started:
        return 0, ON_TIME
    b = bin_of(r, ts)
    if not r.started:
        r.started = 1
        r.bin = b
        r.ts = ts
    r.ts = max(r.ts, ts)
    late_bin = b
    evaluated = 0
    lateness = ON_TIME
    if b >= r.bin:
        evaluated = advance(r, p, s, t, b)
        late_bin = NEVER
    if kind == TICK:
        return evaluated, ON_TIME
    if r.bin - b > WINDOW:
        r.too_late_count += 1
        _declare(r, codes, first, last)
        return evaluated, TOO_LATE
    r.heard = max(r.heard, b)
    if late_bin != NEVER:
        lateness = _admit_late(r, b, kind)
    fed = _receive(r, p, s, late_bin, lateness, codes, values, first, last)
    if kind == FRAME:
        r.seen_nodes |= fed
    else:
        r.told_nodes |= fed
    return evaluated, lateness


@njit(cache=True, nogil=True)
def step(  # type: ignore[no-untyped-def]
    rows, row_bytes, slots, times, kinds, starts, codes, values, records, out, mark, number
):
    """Apply a batch in order.

    Args:
        rows: ROW (capacity,).
        row_bytes: the same memory as uint8 (capacity, itemsize).
        slots: this and the next five are the columns of `batch.InputBatch`.
        times: ts_ms.
        kinds: kind.
        starts: start.
        codes: code.
        values: value.
        records: one element each of PARAMETERS, SCRATCH and TABLES.
        out: tuple of `batch.Output`, per-input columns and the snapshots' bytes.
        mark: int64 (capacity, 2); number of the last step that touched a slot, its snapshot.
        number: this step's number.

    Returns:
        snapshots written, evaluations made.
    """
    p = records[0][0]
    s = records[1][0]
    t = records[2][0]
    level, level_ts, phase, phase_before, lateness, snapshot, kept = out
    snapshots = 0
    evaluations = 0
    size = kept.shape[1]
    for i in range(slots.size):
        slot = slots[i]
        r = rows[slot]
        before = r.phase
        evaluated, late = apply(
            r, p, s, t, kinds[i], times[i], codes, values, starts[i], starts[i + 1]
        )
        if evaluated or mark[slot, 0] != number:
            mark[slot, 0] = number
            mark[slot, 1] = snapshots
            for k in range(size):
                kept[snapshots, k] = row_bytes[slot, k]
            snapshots += 1
            evaluations += evaluated
        level[i] = r.level
        level_ts[i] = r.level_ts
        phase[i] = r.phase
        phase_before[i] = before
        lateness[i] = late
        snapshot[i] = mark[slot, 1]
    return snapshots, evaluations
