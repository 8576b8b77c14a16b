"""What a frame's detections say to the score: tracks, and the values of the vision channels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from sys import intern
from typing import Any

from pipeline.memory import Memory
from pipeline.score_entries import track_values
from pipeline.scoring.vision import PEOPLE, FrameValues, VisionChannels, place_of
from pipeline.tracker import Parameters, TrackerState, step
from pipeline.wire import id_key, id_ms
from pipeline.wire_results import DetectionEntry

_TRACKING = Parameters()
_MOST_SHARED = 4096


@dataclass(frozen=True, slots=True)
class Seen:
    """One frame after tracking.

    Attributes:
        is_late: a straggler, behind the newest frame by id in its stream or by `ts`; it has moved
            no track.
        tracks: as readers see them; none of a frame with the `ts` of the newest, which moves none.
        values: for the engine.
    """

    is_late: bool
    tracks: list[dict[str, Any]]
    values: FrameValues


class FrameTracker:
    """Follows the objects of every source of a partition; their tracks are in its memory."""

    def __init__(self) -> None:
        self._labels: dict[str, dict[int, str]] = {}
        """By model, as far as they were seen."""
        self._vision: dict[str, VisionChannels] = {}
        self._shared: dict[tuple[tuple[int, str], ...], dict[int, str]] = {}
        """Labels that sources have alike, so that they are kept once."""

    def see(self, frame: DetectionEntry, memory: Memory) -> Seen:
        """Follow the objects of a frame, unless it comes too late for that."""
        known = dict(memory.newest_frame)
        newest = known.get(frame.stream, b"0-0")
        saved = memory.tracker
        tracker = TrackerState.from_bytes(saved) if saved else TrackerState()
        ts_ms = frame.envelope.ts_ms
        is_late = id_key(frame.frame) <= id_key(newest) or tracker.has_seen(ts_ms + 1)
        is_first_of_its_time = not tracker.has_seen(ts_ms)
        vision = self._know(frame)
        if not is_late:
            known[intern(frame.stream)] = frame.frame
            memory.newest_frame = tuple(known.items())
        moves = is_first_of_its_time and not is_late
        moved = self._track(tracker, frame, memory) if moves else None
        tracks, changes, motion = moved or ([], None, None)
        values = vision.measure(
            frame.detections,
            frame.width,
            frame.height,
            people_changes=changes,
            motion=motion,
        )
        return Seen(is_late, tracks, values)

    def _know(self, frame: DetectionEntry) -> VisionChannels:
        """Give the vision channels of the frame's model, as far as its labels were seen."""
        labels = self._labels.setdefault(frame.model, {})
        pairs = zip(frame.detections.class_id.tolist(), frame.labels, strict=True)
        fresh = {class_id: label for class_id, label in pairs if class_id not in labels}
        if fresh or frame.model not in self._vision:
            labels.update(fresh)
            self._vision[frame.model] = VisionChannels(labels)
        return self._vision[frame.model]

    def _track(
        self, state: TrackerState, frame: DetectionEntry, memory: Memory
    ) -> tuple[list[dict[str, Any]], int, float]:
        fresh = zip(frame.detections.class_id.tolist(), frame.labels, strict=True)
        labels = {**memory.labels, **dict(fresh)}
        found = step(
            state,
            frame.detections,
            frame.envelope.ts_ms,
            parameters=_TRACKING,
            first_id=max(1, id_ms(frame.frame)),
        )
        memory.tracker = state.to_bytes()
        memory.model, memory.tracks = intern(frame.model), len(found.tracks)
        tracks = [track_values(t, labels.get(t.class_id, str(t.class_id))) for t in found.tracks]
        changed = (*found.born, *found.ended)
        changes = sum(place_of(labels.get(c, ""), c).channel == PEOPLE for c in changed)
        memory.labels = self._share(
            (c, labels[c]) for c in set(state.class_ids.tolist()) if c in labels
        )
        diagonal = float(frame.width**2 + frame.height**2) ** 0.5
        return tracks, changes, found.displacement_px / diagonal

    def _share(self, labels: Iterable[tuple[int, str]]) -> Mapping[int, str]:
        key = tuple(sorted(labels))
        if len(self._shared) >= _MOST_SHARED:
            self._shared.clear()  # who has some keeps them
        return self._shared.setdefault(key, dict(key))
