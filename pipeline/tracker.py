"""Follows objects over the frames of one source: ByteTrack's two-stage association on IoU.

Pure, and the whole memory is a `TrackerState`. scipy's assignment solver is used here only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from pipeline.records import Detections, Track
from pipeline.tracks import (
    Floats,
    Parameters,
    Rows,
    Seen,
    TrackerState,
    begin,
    confirm,
    correct,
    predict,
    report,
)  # fmt: skip

__all__ = ["Parameters", "StepResult", "TrackerState", "step"]

_MAX_COORDINATE_PX = 1e6
_DEFAULTS = Parameters()


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a frame changed.

    Attributes:
        tracks: confirmed tracks seen in this frame, oldest id first.
        born: class of every track confirmed at this frame.
        ended: class of every confirmed track given up at this frame.
        displacement_px: mean path of the centres of `tracks` since each was last seen; 0 if none.
    """

    tracks: list[Track]
    born: tuple[int, ...] = ()
    ended: tuple[int, ...] = ()
    displacement_px: float = 0.0

    @property
    def births(self) -> int:
        """Number of tracks confirmed at this frame."""
        return len(self.born)

    @property
    def deaths(self) -> int:
        """Number of confirmed tracks given up at this frame."""
        return len(self.ended)


def step(
    state: TrackerState,
    detections: Detections,
    ts_ms: int,
    *,
    parameters: Parameters = _DEFAULTS,
    first_id: int,
) -> StepResult:
    """Follow the objects of a source into its next frame.

    Args:
        state: of this source; changed in place.
        detections: of the frame. Boxes under a pixel, not finite or beyond a million pixels are
            ignored; their order does not matter.
        ts_ms: time of the frame. One not newer than the newest changes nothing.
        parameters: how to decide; the same over the life of a state.
        first_id: id of the first track if the state is new, at least 1.

    Returns:
        Equal results for equal arguments.
    """
    if first_id < 1:
        raise ValueError(f"first_id {first_id}: at least 1")
    if state.has_seen(ts_ms):
        return StepResult([])
    state.next_id = state.next_id or first_id
    ended = _give_up(state, ts_ms - parameters.lost_ms)
    seen = _select(detections, parameters)
    rows = cols = np.zeros(0, np.intp)
    if len(state):
        predict(state, ts_ms, parameters)
        rows, cols = _associate(state, seen, parameters)
    result = StepResult([], ended=ended)
    if len(rows):
        matched = seen.take(cols)
        path_px = correct(state, rows, matched, ts_ms, parameters)
        born = confirm(state, rows)
        tracks = report(state, rows, matched.confidence)
        result = StepResult(tracks, born, ended, float(path_px.sum()) / len(rows))
    _drop_unconfirmed(state, ts_ms)
    if len(cols) < len(seen):
        left = _starters(seen, cols, parameters)[: max(parameters.max_tracks - len(state), 0)]
        begin(state, seen.take(left), ts_ms, parameters)
    state.newest_ms = ts_ms
    return result


def _give_up(state: TrackerState, oldest_ms: int) -> tuple[int, ...]:
    old = state.last_ms < oldest_ms
    if not np.count_nonzero(old):
        return ()
    ended = state.class_ids[old & (state.ids > 0)].tolist()
    state.keep(~old)
    return tuple(ended)


def _drop_unconfirmed(state: TrackerState, ts_ms: int) -> None:
    kept = (state.ids > 0) | (state.last_ms == ts_ms)
    if np.count_nonzero(kept) < len(kept):
        state.keep(kept)


def _select(detections: Detections, parameters: Parameters) -> Seen:
    xyxy, confidence, class_id = detections.xyxy.T, detections.confidence, detections.class_id
    with np.errstate(invalid="ignore", over="ignore"):
        usable = confidence >= parameters.low_confidence
        usable &= np.logical_and.reduce(np.abs(xyxy) < _MAX_COORDINATE_PX)
        usable &= np.logical_and.reduce(xyxy[2:] - xyxy[:2] >= 1)
    order = np.lexsort((class_id, *xyxy, -confidence))
    return Seen(xyxy, confidence, class_id).take(order[usable[order]])


def _overlap(first: Floats, second: Floats, grow_px: Floats) -> Floats:
    """Give the IoU of (4, n) and (4, m) corners, both grown by `grow_px` (n,) on every side."""
    low = np.maximum(first[:2, :, None], second[:2, None, :])
    high = np.minimum(first[2:, :, None], second[2:, None, :])
    grow = 2 * grow_px[:, None]
    common = np.maximum(high - low + grow, 0)
    sides = (first[2:] - first[:2])[:, :, None] + grow
    others = (second[2:] - second[:2])[:, None, :] + grow
    shared = common[0] * common[1]
    overlap: Floats = shared / (sides[0] * sides[1] + others[0] * others[1] - shared)
    return overlap


def _associate(state: TrackerState, seen: Seen, parameters: Parameters) -> tuple[Rows, Rows]:
    """Pair tracks with detections: confirmed with strong ones, then weak ones, tentative last."""
    score = _overlap(state.corners(), seen.xyxy, state.doubt_px())
    score -= parameters.class_penalty * (state.class_ids[:, None] != seen.class_id)
    confirmed, strong = state.ids > 0, seen.confidence >= parameters.high_confidence
    rows_free, cols_free = np.ones(len(state), bool), np.ones(len(seen), bool)
    pairs: list[tuple[Rows, Rows]] = []
    for rows_of_stage, cols_of_stage, floor in (
        (confirmed, strong, parameters.overlap_floor),
        (confirmed, ~strong, parameters.overlap_floor),
        (~confirmed, strong, parameters.tentative_floor),
    ):
        rows, cols = rows_of_stage & rows_free, cols_of_stage & cols_free
        if np.count_nonzero(rows) and np.count_nonzero(cols):
            pairs.append(_assign((score - floor) * (rows[:, None] & cols)))
            if len(pairs[-1][0]) == min(len(rows), len(cols)):
                return pairs[-1]
            rows_free[pairs[-1][0]] = cols_free[pairs[-1][1]] = False
    if not pairs:
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    return np.concatenate([pair[0] for pair in pairs]), np.concatenate([pair[1] for pair in pairs])


def _assign(gain: Floats) -> tuple[Rows, Rows]:
    """Give the pairing with the largest sum of gains; a pair without gain is left out."""
    gain = np.maximum(gain, 0)
    rows, cols = linear_sum_assignment(gain, maximize=True)
    kept = gain[rows, cols] > 0
    return rows[kept], cols[kept]


def _starters(seen: Seen, matched: Rows, parameters: Parameters) -> Rows:
    """Choose the sure detections that are left, twins of better ones apart."""
    taken = np.zeros(len(seen), bool)
    taken[matched] = True
    new = np.flatnonzero(~taken & (seen.confidence >= parameters.start_confidence))
    better = taken | (np.arange(len(seen)) < new[:, None])
    twins = _overlap(seen.xyxy[:, new], seen.xyxy, np.zeros(len(new), np.float32))
    return new[~((twins > parameters.twin_overlap) & better).any(axis=1)]
