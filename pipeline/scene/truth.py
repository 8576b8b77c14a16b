"""What can be seen on a frame of the scene, and how a detector's answer compares to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One object of one frame, as far as it can be seen.

    Attributes:
        id: unique over the life of the scene, never reused.
        class_id: index into SCENE_LABELS.
        label: its name.
        xyxy: float32 (4,); tight extent of the visible pixels, right and bottom edge exclusive.
        visible: share of its pixels that is neither covered nor outside the frame, in (0, 1].
        ignore: too little to see; detecting it is neither right nor wrong.
    """

    id: int
    class_id: int
    label: str
    xyxy: NDArray[np.float32]
    visible: float
    ignore: bool


def match_truth(
    truth: Sequence[SceneObject],
    xyxy: NDArray[np.float32],
    class_id: NDArray[np.integer],
    iou: float = 0.5,
) -> tuple[int, int, int]:
    """Count what a detector got right on one frame, best overlap first.

    Args:
        truth: what can be seen, ignored objects included.
        xyxy: (n, 4) detected boxes in pixels.
        class_id: (n,) their kinds.
        iou: overlap from which a box of the same kind counts as the object.

    Returns:
        True positives, false positives and misses. A box of which most lies on an ignored
        object is none of them.
    """
    wanted = [seen for seen in truth if not seen.ignore]
    overlap = box_iou(_boxes(wanted), xyxy)
    kinds = np.array([seen.class_id for seen in wanted], np.int64)
    overlap[kinds[:, None] != np.asarray(class_id)[None, :]] = 0
    free_rows, free_columns = set(range(len(wanted))), set(range(len(xyxy)))
    for flat in np.argsort(-overlap, axis=None, kind="stable"):
        row, column = divmod(int(flat), len(xyxy))
        if overlap[row, column] < iou or overlap[row, column] == 0:
            break
        if row in free_rows and column in free_columns:
            free_rows.remove(row)
            free_columns.remove(column)
    hits = len(wanted) - len(free_rows)
    excused = _mostly_on(xyxy, _boxes([seen for seen in truth if seen.ignore]))
    return hits, sum(not excused[column] for column in free_columns), len(free_rows)


def box_iou(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    """Compare (n, 4) with (m, 4) boxes: float64 (n, m), each in [0, 1]."""
    common = _intersection(first, second)
    union = _area(first)[:, None] + _area(second)[None, :] - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def _boxes(objects: Sequence[SceneObject]) -> NDArray[np.float32]:
    return np.array([seen.xyxy for seen in objects], np.float32).reshape(-1, 4)


def _area(boxes: NDArray[np.float32]) -> NDArray[np.float64]:
    sides = np.maximum(boxes[:, 2:].astype(np.float64) - boxes[:, :2], 0)
    return np.asarray(sides[:, 0] * sides[:, 1])


def _intersection(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    return np.asarray(np.maximum(high.astype(np.float64) - low, 0).prod(axis=2))


def _mostly_on(boxes: NDArray[np.float32], ignored: NDArray[np.float32]) -> NDArray[np.bool_]:
    if not len(ignored):
        return np.zeros(len(boxes), np.bool_)
    return np.asarray(_intersection(boxes, ignored).max(axis=1) > 0.5 * _area(boxes))
