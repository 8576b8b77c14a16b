"""The gate of a still camera: a frame that looks like the last detected one takes its detections.

Pure but for a lock: the caller brings the thumbnail and the clock.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.answers import Answer

Thumbnail = NDArray[np.uint8]
"""uint8 (h, w), grey."""

MAX_SOURCES = 4096
"""Sources remembered, the longest undetected forgotten first: about 6 KB each."""
MAX_AGE_S = 60.0
"""Nothing is said of a frame from one detected longer ago, which is forgotten."""


def difference(one: Thumbnail, other: Thumbnail) -> int:
    """Give the largest difference of two cells, grey levels; 256 when the shapes differ.

    The largest and not the mean: something small that moves changes few cells, but those by much.
    """
    if one.shape != other.shape:
        return 256
    return int(np.abs(one.astype(np.int16) - other).max(initial=0))


@dataclass(slots=True)
class _Reference:
    """The newest detected frame of a source.

    Attributes:
        run: frames in a row that took its answer.
        is_renewing: one more frame that looks the same is with the network.
    """

    thumbnail: Thumbnail
    answer: Answer
    frame: tuple[int, int]
    detected_s: float
    run: int = 0
    is_renewing: bool = False


class StillGate:
    """Remembers the newest detected frame of every source; any thread may call.

    Frames are compared with one that was detected, never with one that was let through, so that
    what changes slowly adds up until it counts.

    Args:
        threshold: a frame whose thumbnail differs by less looks the same, grey levels.
        longest_run: most frames in a row that take the answer of one. From half of it on one
            frame is detected although it looks the same, so that no run ends with a batch of
            frames which all have to be.
        max_sources: remembered at a time.
    """

    def __init__(self, threshold: float, longest_run: int, max_sources: int = MAX_SOURCES) -> None:
        self._threshold = threshold
        self._longest_run = longest_run
        self._renew_at = max(1, longest_run // 2)
        self._max_sources = max_sources
        self._references: OrderedDict[str, _Reference] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._references)

    def recall(
        self, source: str, thumbnail: Thumbnail, size_wh: tuple[int, int], now_s: float
    ) -> Answer | None:
        """Give the answer that a frame may take, and count it; None when it is to be detected.

        Args:
            source: whose frame it is.
            thumbnail: of the frame.
            size_wh: of the full frame, pixels: boxes of another size are of no use.
            now_s: monotonic.
        """
        with self._lock:
            last = self._references.get(source)
            if last is None or now_s - last.detected_s > MAX_AGE_S:
                return None
            if last.run >= self._longest_run or size_wh != (last.answer.width, last.answer.height):
                return None
            if difference(last.thumbnail, thumbnail) >= self._threshold:
                return None
            if last.run >= self._renew_at and not last.is_renewing:
                last.is_renewing = True
                return None
            last.run += 1
            return last.answer

    def note(
        self,
        source: str,
        thumbnail: Thumbnail,
        answer: Answer,
        frame: tuple[int, int],
        now_s: float,
    ) -> None:
        """Remember a detected frame, unless a newer one of its source is.

        Args:
            source: whose frame it is.
            thumbnail: of the frame.
            answer: what was found in it.
            frame: its entry id as numbers.
            now_s: monotonic.
        """
        with self._lock:
            last = self._references.get(source)
            if last is not None and last.frame > frame:
                return
            self._references.pop(source, None)
            self._references[source] = _Reference(thumbnail, answer, frame, now_s)
            self._forget(now_s)

    def _forget(self, now_s: float) -> None:
        """Let go of what is too old to be taken, and of the oldest beyond the limit."""
        while (
            len(self._references) > self._max_sources
            or now_s - next(iter(self._references.values())).detected_s > MAX_AGE_S
        ):
            self._references.popitem(last=False)
