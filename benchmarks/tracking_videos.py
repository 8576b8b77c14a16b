"""Detections of YOLOv9t on real videos, made once and kept, and how long tracks on them are."""

from __future__ import annotations

import hashlib
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.records import Detections

_LOWEST_CONFIDENCE = 0.1
_LONG_SIDE_PX = 640


@dataclass(frozen=True, slots=True)
class Lengths:
    """Lengths in frames.

    Attributes:
        tracks: how many there are.
        mean: frames in which a track is seen.
        median: the same.
        weighted: length of the track that an average box belongs to.
        boxes: how many boxes the tracks have in all.
        fragments: gaps within tracks.
    """

    tracks: int
    mean: float
    median: float
    weighted: float
    boxes: int
    fragments: int


def lengths(ids_by_frame: Iterable[Sequence[int]]) -> Lengths:
    """Say how long the tracks are of which the ids are seen, frame by frame."""
    seen: dict[int, list[int]] = defaultdict(list)
    for frame, ids in enumerate(ids_by_frame):
        for track_id in ids:
            seen[track_id].append(frame)
    count = np.array([len(frames) for frames in seen.values()] or [0])
    gaps = sum(int((np.diff(frames) > 1).sum()) for frames in seen.values())
    boxes = int(count.sum())
    return Lengths(len(seen), float(count.mean()), float(np.median(count)),
                   float((count**2).sum() / max(boxes, 1)), boxes, gaps)  # fmt: skip


def detections(video: Path, weights: Path, confidence: float) -> list[Detections]:
    """Give what YOLOv9t finds in each frame from `confidence` (at least 0.1) on."""
    mark = hashlib.sha256(video.read_bytes() + weights.read_bytes()).hexdigest()[:16]
    cache = Path(tempfile.gettempdir()) / f"tracking-{video.stem}-{mark}.npy"
    if not cache.exists():
        np.save(cache, _detect_all(video, weights))
    rows: NDArray[np.float32] = np.load(cache)
    frames = int(rows[-1, 0]) + 1  # the last row is a marker without confidence
    rows = rows[rows[:, 5] >= confidence]
    return [_as_detections(rows[rows[:, 0] == frame]) for frame in range(frames)]


def _as_detections(rows: NDArray[np.float32]) -> Detections:
    rows = rows[np.argsort(-rows[:, 5], kind="stable")]
    return Detections(rows[:, 1:5].copy(), rows[:, 5].copy(), rows[:, 6].astype(np.int32))


def _detect_all(video: Path, weights: Path) -> NDArray[np.float32]:
    """Give rows of frame, x1, y1, x2, y2, confidence, class."""
    import torch
    from ultralytics.nn.tasks import load_checkpoint
    from ultralytics.utils.nms import non_max_suppression

    load: Callable[[str], tuple[Any, Any]] = load_checkpoint
    network = load(str(weights))[0].float().eval()
    capture, frame = cv2.VideoCapture(str(video)), 0
    rows: list[list[float]] = []
    while True:
        more, image = capture.read()
        if not more:
            break
        canvas, scale, offset = _letterbox(np.asarray(image, np.uint8))
        pixels = torch.from_numpy(canvas[..., ::-1].transpose(2, 0, 1)[None].copy()).float() / 255
        with torch.inference_mode():
            found = non_max_suppression(network(pixels), _LOWEST_CONFIDENCE, 0.7)[0].numpy()
        found[:, :4] = (found[:, :4] - offset) / scale
        height, width = image.shape[:2]
        found[:, :4] = found[:, :4].clip(0, [width, height, width, height])
        rows.extend([frame, *box] for box in found)
        frame += 1
    capture.release()
    return np.array([*rows, [frame - 1, 0, 0, 0, 0, 0, 0]], np.float32)


def _letterbox(
    image: NDArray[np.uint8],
) -> tuple[NDArray[np.uint8], float, NDArray[np.float64]]:
    height, width = image.shape[:2]
    scale = _LONG_SIDE_PX / max(height, width)
    high, wide = round(height * scale), round(width * scale)
    canvas = np.full((-(-high // 32) * 32, -(-wide // 32) * 32, 3), 114, np.uint8)
    top, left = (canvas.shape[0] - high) // 2, (canvas.shape[1] - wide) // 2
    canvas[top : top + high, left : left + wide] = cv2.resize(image, (wide, high))
    return canvas, scale, np.array([left, top, left, top], np.float64)
