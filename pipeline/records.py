"""The values that travel through the pipeline: frozen, checked when made, numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
"""uint8 (height, width, 3), BGR."""


@dataclass(frozen=True, slots=True)
class Detections:
    """What the detector found in one frame, one row per object, highest confidence first.

    Attributes:
        xyxy: float32 (n, 4); corners x1, y1, x2, y2 in pixels of the full frame.
        confidence: float32 (n,), each in [0, 1].
        class_id: int32 (n,), index into the model's labels.

    Raises:
        ValueError: a shape or dtype differs from the above.
    """

    xyxy: NDArray[np.float32]
    confidence: NDArray[np.float32]
    class_id: NDArray[np.int32]

    def __post_init__(self) -> None:
        rows = len(self.xyxy)
        expected: Sequence[tuple[str, tuple[int, ...], type[np.generic]]] = (
            ("xyxy", (rows, 4), np.float32),
            ("confidence", (rows,), np.float32),
            ("class_id", (rows,), np.int32),
        )
        for name, shape, dtype in expected:
            array = getattr(self, name)
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(
                    f"{name}: expected {np.dtype(dtype)} {shape}, got {array.dtype} {array.shape}"
                )

    def __len__(self) -> int:
        return len(self.xyxy)

    @classmethod
    def empty(cls) -> Detections:
        """Give the record of a frame in which nothing was found."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))


@dataclass(frozen=True, slots=True)
class Track:
    """One object followed over the frames of one source.

    Attributes:
        track_id: unique within the source, never reused.
        class_id: index into the labels.
        confidence: of the newest matched detection, in [0, 1].
        xyxy: x1, y1, x2, y2 in pixels of the full frame.
        age_ms: time since the track's first frame.
        velocity_px_s: (vx, vy) of the box centre, pixels per second.
    """

    track_id: int
    class_id: int
    confidence: float
    xyxy: tuple[float, float, float, float]
    age_ms: int
    velocity_px_s: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded frame, possibly at reduced scale.

    Attributes:
        image: uint8 (h, w, 3) BGR, at the scale it was decoded.
        width: pixels of the full frame.
        height: pixels of the full frame.
    """

    image: Image
    width: int
    height: int
