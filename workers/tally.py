"""What the demo counts while it runs: rates, latencies, levels, and recall against the truth."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.scene import SceneObject, match_truth

KEPT = 100_000
RATE_WINDOW_MS = 5000


def percentiles_ms(values: Sequence[float]) -> dict[str, float | None]:
    """Give p50, p95 and p99 in ms, None where nothing was measured."""
    if not values:
        return {"p50": None, "p95": None, "p99": None}
    found = np.percentile(np.asarray(values), (50, 95, 99))
    return {name: round(float(v), 1) for name, v in zip(("p50", "p95", "p99"), found, strict=True)}


@dataclass(slots=True)
class SourceView:
    """The newest of one source."""

    level: float = 0.0
    phase: str = "dormant"
    labels: str = ""
    tracks: int = 0
    levels: deque[float] = field(default_factory=lambda: deque(maxlen=60))


@dataclass(slots=True)
class Tally:
    """Counts results as they come; `truth` holds what a frame really showed, by entry id."""

    sources: dict[str, SourceView] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    frame_ms: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    event_ms: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    truth: dict[str, list[SceneObject]] = field(default_factory=dict)
    _recent: deque[int] = field(default_factory=deque)
    _first_ms: int | None = None
    _last_ms: int = 0

    def detection(self, entry_ms: int, fields: Mapping[str, Any]) -> None:
        """Count one frame's detections; latency is what the two entry ids tell."""
        self.counts["detected"] += 1
        self.counts["objects"] += len(fields["objects"])
        frame_ms = int(fields["frame"].partition("-")[0])
        self.frame_ms.append(entry_ms - frame_ms)
        self._recent.append(entry_ms)
        self._first_ms = self._first_ms or entry_ms
        self._last_ms = entry_ms
        self._view(fields).labels = fields.get("labels", "")
        if (truth := self.truth.pop(fields["frame"], None)) is not None:
            self._compare(truth, fields["objects"])

    def _compare(self, truth: list[SceneObject], objects: Sequence[Mapping[str, Any]]) -> None:
        boxes = np.array([o["box"] for o in objects], np.float32).reshape(-1, 4)
        classes = np.array([o["class_id"] for o in objects], np.int32)
        hits, false_alarms, misses = match_truth(truth, boxes, classes)
        self.counts.update(hits=hits, false_alarms=false_alarms, misses=misses)

    def score(self, entry_ms: int, fields: Mapping[str, Any]) -> None:
        """Count one score entry; an entry for several events counts each of them."""
        view = self._view(fields)
        view.level, view.phase = fields["level"], fields["phase"]
        view.levels.append(view.level)
        self.counts["scored"] += fields["inputs"]
        if fields["kind"] == "event":
            first_ms = int(fields["first"].partition("-")[0])
            self.event_ms.append(entry_ms - first_ms)
        elif fields["kind"] == "frame":
            view.tracks = len(fields.get("tracks", ()))

    def _view(self, fields: Mapping[str, Any]) -> SourceView:
        return self.sources.setdefault(fields["source"], SourceView())

    def fps(self) -> float:
        """Frames detected a second, over the last five seconds of results."""
        while self._recent and self._recent[-1] - self._recent[0] > RATE_WINDOW_MS:
            self._recent.popleft()
        span_ms = self._recent[-1] - self._recent[0] if len(self._recent) > 1 else 0
        return (len(self._recent) - 1) / span_ms * 1000 if span_ms else 0.0

    def mean_fps(self) -> float:
        """Frames detected a second, from the first result to the last."""
        span_ms = self._last_ms - (self._first_ms or self._last_ms)
        return (self.counts["detected"] - 1) / span_ms * 1000 if span_ms else 0.0

    def recall(self) -> float | None:
        """Share of the scene's objects that were found; None without a truth."""
        known = self.counts["hits"] + self.counts["misses"]
        return self.counts["hits"] / known if known else None

    def precision(self) -> float | None:
        """Share of what was found that is there; None without a truth."""
        found = self.counts["hits"] + self.counts["false_alarms"]
        return self.counts["hits"] / found if found else None
