"""Scored inputs as entries of `scores` and fields of `state` (CONTRACT 4). Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pipeline.records import Track
from pipeline.wire import Envelope, pack, unpack
from pipeline.wire_results import VERSION

Field = bytes | str | int
EVENT, FRAME, TICK = "event", "frame", "tick"
COMPONENTS = ("arousal", "differentiation", "integration", "workspace", "novelty")


class Outcome(NamedTuple):
    """What the engine said of an input.

    Attributes:
        level: as of the last evaluated bin.
        level_ts: end of that bin, Unix ms.
        phases: before and after the input.
        snapshot: builds the score part of `data`; called once an entry, not once an input.
    """

    level: float
    level_ts: int
    phases: tuple[str, str]
    snapshot: Callable[[], dict[str, Any]]


@dataclass(slots=True)
class Scored:
    """One input after the engine has applied it.

    Attributes:
        entry_id: of the event, or of the frame (not of its detections); empty for a tick.
        count: the source's `n` after it.
        envelope: of the event or detections entry; None for a tick.
    """

    kind: str
    source: str
    entry_id: bytes
    ts_ms: int
    count: int
    outcome: Outcome
    envelope: Envelope | None = None
    is_late: bool = False
    tracks: Sequence[dict[str, Any]] | None = None

    @property
    def is_alone(self) -> bool:
        """Whether it needs an entry of its own."""
        head, phases = self.envelope, self.outcome.phases
        return (
            self.kind != EVENT
            or phases[0] != phases[1]
            or head is None
            or head.meta is not None
            or head.traceparent is not None
        )

    def may_follow(self, other: Scored) -> bool:
        """Whether it may share the entry of the input before it."""
        if self.is_alone or other.is_alone or self.is_late != other.is_late:
            return False
        mine, its = self.envelope, other.envelope
        return mine is not None and its is not None and mine.producer == its.producer


def group(scored: Iterable[Scored]) -> list[list[Scored]]:
    """Group consecutive inputs of a source that may share an entry; order within it is kept."""
    groups: list[list[Scored]] = []
    last: dict[str, list[Scored]] = {}
    for one in scored:
        open_group = last.get(one.source)
        if open_group is not None and one.may_follow(open_group[-1]):
            open_group.append(one)
            continue
        last[one.source] = [one]
        groups.append(last[one.source])
    return groups


def score_fields(inputs: Sequence[Scored], now_ms: int) -> list[Field]:
    """Build the fields of one score entry, flat; all inputs are of one source and kind."""
    first, last = inputs[0], inputs[-1]
    count = 0 if last.kind == TICK else len(inputs)
    fields: list[Field] = ["v", VERSION, "source", last.source, "kind", last.kind]
    fields += ["inputs", count, "n", last.count]
    data, phases = last.outcome.snapshot(), last.outcome.phases
    if last.kind != TICK:
        fields += ["first", first.entry_id, "last", last.entry_id]
        data["latency_ms"] = max(0, now_ms - int(last.entry_id.partition(b"-")[0]))
    fields += _numbers(inputs)
    fields += ["ts", last.ts_ms, "level", f"{last.outcome.level:.4f}", "phase", phases[1]]
    if phases[0] != phases[1]:
        fields += ["transition", f"{phases[0]}>{phases[1]}"]
    if last.is_late:
        fields += ["late", 1]
    if last.tracks is not None:
        data["tracks"] = list(last.tracks)
    head = last.envelope
    if head is not None and head.meta is not None:
        data["meta"] = unpack(head.meta, "meta")
    if head is not None and head.traceparent is not None:
        data["traceparent"] = head.traceparent.decode()
    return [*fields, "data", pack(data)]


def _numbers(inputs: Sequence[Scored]) -> list[Field]:
    head = inputs[-1].envelope
    if head is None or head.producer is None:
        return []
    numbers = [one.envelope.seq for one in inputs if one.envelope is not None]
    known = [number for number in numbers if number is not None]
    if not known:
        return []
    return ["producer", head.producer, "seq_first", known[0], "seq_last", known[-1]]


def track_values(track: Track, label: str) -> dict[str, Any]:
    """Give a track as readers see it."""
    return {
        "id": track.track_id,
        "label": label,
        "confidence": round(track.confidence, 4),
        "box": [round(edge, 2) for edge in track.xyxy],
        "age_ms": track.age_ms,
        "velocity": [round(speed, 2) for speed in track.velocity_px_s],
    }


def state_fields(
    level: float, phase: str, data: dict[str, Any], facts: Sequence[tuple[str, Field]]
) -> tuple[list[Field], list[str]]:
    """Give the fields of a state hash, flat, and the names of those that are unknown now.

    Args:
        level: of the source.
        phase: of the source.
        data: score part of an entry's `data`.
        facts: further fields.
    """
    fields: list[Field] = ["v", VERSION, "level", f"{level:.4f}", "phase", phase]
    absent: list[str] = []
    for name in COMPONENTS:
        value = data["components"][name]
        if value is None:
            absent.append(name)
        else:
            fields += [name, f"{value:.4f}"]
    fields += ["confidence", f"{data['confidence']:.4f}", "map_version", data["map_version"]]
    fields += ["engine_version", data["engine_version"]]
    for name, fact in facts:
        fields += [name, fact]
    return fields, absent
