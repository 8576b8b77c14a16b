"""Frames of a source in their order again, after many workers have finished them in any order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pipeline.wire import id_key, id_ms
from pipeline.wire_results import DetectionEntry

Waiting = tuple[bytes, DetectionEntry]
"""Id of the detections entry, and what it holds."""


class Reorder:
    """Detections of one partition that wait until no earlier frame of their source can come.

    Pure: the caller brings the clock. An earlier frame can come as long as one with a smaller id
    is to be detected; `patience_ms` bounds the wait.
    """

    def __init__(self, patience_ms: int) -> None:
        self._patience_ms = patience_ms
        self._waiting: dict[bytes, DetectionEntry] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def ids(self) -> list[bytes]:
        """Ids of the detections entries that wait, oldest first."""
        return sorted(self._waiting, key=id_key)

    def oldest_ms(self, stream: str) -> int | None:
        """Give when the oldest frame of a stream that waits was added, None when none waits."""
        frames = [d.frame for d in self._waiting.values() if d.stream == stream]
        return min(map(id_ms, frames), default=None)

    def add(self, waiting: Iterable[Waiting]) -> None:
        """Hold detections back until `release` lets them go."""
        self._waiting.update(waiting)

    def release(self, pending: Mapping[str, bytes | None], now_ms: int) -> list[Waiting]:
        """Let go what needs to wait no longer, in frame order.

        Args:
            pending: of `frames` and `recordings` an id that no frame is before that is still to
                be detected, None when there is none. It must have been read before the detections
                were, and these to their end; otherwise pass `0-0` for both: then only patience
                counts.
            now_ms: Redis's clock, or while a backlog is read the time of the newest entry read.

        Whatever lets a frame go lets go the earlier ones of its source that wait as well.
        """
        floors = {stream: id_key(floor) for stream, floor in pending.items() if floor is not None}
        free = [
            (entry_id, detection)
            for entry_id, detection in self._waiting.items()
            if now_ms - id_ms(entry_id) >= self._patience_ms
            or detection.stream not in floors
            or id_key(detection.frame) < floors[detection.stream]
        ]
        if not free:
            return []
        newest: dict[tuple[str, str], tuple[int, int]] = {}
        for _, detection in free:
            place, frame = _place(detection), id_key(detection.frame)
            newest[place] = max(newest.get(place, frame), frame)
        free = [
            (entry_id, detection)
            for entry_id, detection in self._waiting.items()
            if id_key(detection.frame) <= newest.get(_place(detection), (-1, -1))
        ]
        for entry_id, _ in free:
            del self._waiting[entry_id]
        return sorted(free, key=lambda waiting: id_key(waiting[1].frame))


def _place(detection: DetectionEntry) -> tuple[str, str]:
    return detection.envelope.source, detection.stream
