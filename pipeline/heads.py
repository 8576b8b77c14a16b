"""From a detection network's output to objects: thresholds and non-maximum suppression.

Pure numpy. Networks end in one of three ways, told apart by shape:
    raw    (n, 4 + classes, anchors), or its transpose: centre x, y, width, height, class scores
    rows   (n, k, 6): x1, y1, x2, y2, confidence, class; suppression done in the network
    flat   (k, 7): picture, x1, y1, x2, y2, class, confidence; suppression done in the network
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SettingsError
from pipeline.records import Detections

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

MAX_CANDIDATES = 30_000


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What counts as an object.

    Attributes:
        confidence: objects at or below it are dropped.
        iou: of two objects of a class that overlap more, the weaker is dropped.
        classes: class ids to keep, None for all.
        max_objects: most objects of one picture.
        every_label: let one anchor give an object for each class above `confidence` rather than
            for its best (how mAP is evaluated; two labels on one object otherwise).
    """

    confidence: float
    iou: float
    classes: tuple[int, ...] | None = None
    max_objects: int = 300
    every_label: bool = False


def read_output(
    output: Floats, pictures: int, classes: int, thresholds: Thresholds
) -> Iterator[Detections]:
    """Give the objects of each of `pictures` pictures, boxes in pixels of the network's input.

    Raises:
        SettingsError: the shape is none of a detection network with that many classes.
    """
    if output.ndim == 2 and output.shape[1] == 7:
        return _read_flat(output, pictures, thresholds)
    if output.ndim == 3 and output.shape[0] == pictures:
        if output.shape[1] == 4 + classes:
            return _read_raw(output, thresholds)
        if output.shape[2] == 4 + classes and output.shape[1] > output.shape[2]:
            return _read_raw(np.ascontiguousarray(output.transpose(0, 2, 1)), thresholds)
        if output.shape[2] == 6:
            return (_pick(row[:, :4], row[:, 4], row[:, 5], thresholds) for row in output)
    raise SettingsError(
        f"the network's output {output.shape} is not that of a detector of {classes} classes:"
        f" expected ({pictures}, {4 + classes}, anchors), or rows of 6 with suppression built in"
    )


def suppress(xyxy: Floats, confidence: Floats, class_id: Ints, iou: float, limit: int) -> Ints:
    """Choose objects greedily, strongest first, dropping those of a class that overlap one chosen.

    Args:
        xyxy: (n, 4) corners.
        confidence: (n,).
        class_id: (n,).
        iou: overlap above which the weaker goes.
        limit: stop after so many.

    Returns:
        Indices of the chosen, strongest first (ties: first in the input).
    """
    order = np.argsort(-confidence, kind="stable")
    x1, y1, x2, y2 = xyxy[order].T
    area = (x2 - x1) * (y2 - y1)
    kind = class_id[order]
    left = np.arange(len(order))
    chosen: list[int] = []
    while len(left) and len(chosen) < limit:
        best, left = left[0], left[1:]
        chosen.append(order[best])
        width = np.minimum(x2[best], x2[left]) - np.maximum(x1[best], x1[left])
        height = np.minimum(y2[best], y2[left]) - np.maximum(y1[best], y1[left])
        overlap = np.maximum(width, 0) * np.maximum(height, 0)
        union = area[best] + area[left] - overlap
        left = left[(overlap <= iou * union) | (kind[left] != kind[best])]
    return np.array(chosen, np.int32)


def matches(expected: Detections, found: Detections, iou: float) -> NDArray[np.bool_]:
    """Tell for each expected object whether `found` has one of its class over that overlap.

    Each object of `found` stands for one of the expected, the strongest choose first.
    """
    matched = np.zeros(len(expected), bool)
    free = np.ones(len(found), bool)
    for index in np.argsort(-expected.confidence, kind="stable") if len(found) else ():
        overlap = overlaps(expected.xyxy[index], found.xyxy)
        overlap[~free | (found.class_id != expected.class_id[index])] = -1
        best = int(overlap.argmax())
        if overlap[best] >= iou:
            matched[index], free[best] = True, False
    return matched


def overlaps(box: Floats, others: Floats) -> Floats:
    """Give the intersection over union of one box (4,) with each of (n, 4), all corners."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=1)
    area = np.prod(box[2:] - box[:2]) + np.prod(others[:, 2:] - others[:, :2], axis=1)
    result: Floats = (common / np.maximum(area - common, 1e-9)).astype(np.float32)
    return result


def _read_raw(output: Floats, thresholds: Thresholds) -> Iterator[Detections]:
    best = output[:, 4:].max(axis=1)
    for columns, strongest in zip(output, best, strict=True):
        candidates = columns[:, strongest > thresholds.confidence]
        if not candidates.shape[1]:
            yield Detections.empty()
            continue
        scores = candidates[4:]
        if thresholds.every_label:
            class_id, anchor = np.nonzero(scores > thresholds.confidence)
        else:
            class_id, anchor = scores.argmax(axis=0), np.arange(scores.shape[1])
        confidence = scores[class_id, anchor]
        xyxy = _corners(candidates[:4, anchor])
        yield _suppressed(xyxy, confidence, class_id.astype(np.int32), thresholds)


def _suppressed(
    xyxy: Floats, confidence: Floats, class_id: Ints, thresholds: Thresholds
) -> Detections:
    if thresholds.classes is not None:
        wanted = np.isin(class_id, thresholds.classes)
        xyxy, confidence, class_id = xyxy[wanted], confidence[wanted], class_id[wanted]
    if len(confidence) > MAX_CANDIDATES:
        strongest = np.argpartition(-confidence, MAX_CANDIDATES)[:MAX_CANDIDATES]
        xyxy, confidence, class_id = xyxy[strongest], confidence[strongest], class_id[strongest]
    keep = suppress(xyxy, confidence, class_id, thresholds.iou, thresholds.max_objects)
    return Detections(xyxy[keep], confidence[keep], class_id[keep])


def _corners(xywh: Floats) -> Floats:
    x, y, width, height = xywh
    half_w, half_h = width / 2, height / 2
    return np.stack((x - half_w, y - half_h, x + half_w, y + half_h), axis=1)


def _read_flat(output: Floats, pictures: int, thresholds: Thresholds) -> Iterator[Detections]:
    for index in range(pictures):
        rows = output[output[:, 0] == index]
        yield _pick(rows[:, 1:5], rows[:, 6], rows[:, 5], thresholds)


def _pick(xyxy: Floats, confidence: Floats, kind: Floats, thresholds: Thresholds) -> Detections:
    class_id = kind.astype(np.int32)
    wanted = confidence > thresholds.confidence
    if thresholds.classes is not None:
        wanted &= np.isin(class_id, thresholds.classes)
    order = np.nonzero(wanted)[0]
    order = order[np.argsort(-confidence[order], kind="stable")][: thresholds.max_objects]
    return Detections(xyxy[order], confidence[order], class_id[order])
