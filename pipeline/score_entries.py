"""Scored inputs as entries of `scores` and fields of `state` (CONTRACT 4). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pipeline.records import Track
from pipeline.scoring.parameters import WINDOW
from pipeline.scoring.state import NEVER
from pipeline.wire import Envelope, pack, unpack
from pipeline.wire_results import VERSION

Field = bytes | str | int
EVENT, FRAME, TICK = "event", "frame", "tick"
_LATENCY = pack("latency_ms")
COMPONENTS = ("arousal", "differentiation", "integration", "workspace", "novelty")


class MapBody(NamedTuple):
    """The pairs of a msgpack map without its header, so that maps can be put together."""

    pairs: int
    packed: bytes

    @classmethod
    def of(cls, values: dict[str, Any]) -> MapBody:
        """Encode a map of fewer than 65,536 names."""
        return cls(len(values), pack(values)[1 if len(values) < 16 else 3 :])


def join(one: MapBody, other: MapBody) -> bytes:
    """Give one msgpack map with the pairs of both."""
    pairs = one.pairs + other.pairs
    header = bytes((0x80 | pairs,)) if pairs < 16 else b"\xde" + pairs.to_bytes(2, "big")
    return header + one.packed + other.packed


class Evaluation(NamedTuple):
    """What one evaluation of a source's window shows, ready to be written.

    Attributes:
        level: of the source, as it is compared between ticks.
        phase: of the source.
        level_ts: end of the evaluated bin, Unix ms; NEVER before the first.
        data: score part of an entry's `data`.
        state: its fields of the state hash, flat.
        absent: fields of the state hash that are unknown now.
    """

    level: float
    phase: str
    level_ts: int
    data: MapBody
    state: list[Field]
    absent: list[str]


def describe(level: float, phase: str, level_ts: int, data: dict[str, Any]) -> Evaluation:
    """Prepare what the entries and the state of a source say until its next evaluation.

    Args:
        level: of the source.
        phase: of the source.
        level_ts: end of the evaluated bin, Unix ms.
        data: score part of an entry's `data`.
    """
    fields: list[Field] = ["level", f"{level:.4f}", "phase", phase]
    absent: list[str] = []
    for name in COMPONENTS:
        value = data["components"][name]
        if value is None:
            absent.append(name)
        else:
            fields += [name, f"{value:.4f}"]
    fields += ["confidence", f"{data['confidence']:.4f}", "map_version", data["map_version"]]
    fields += ["engine_version", data["engine_version"], "bins", data["bins"]]
    if note := _note(data):
        fields += ["note", note]
    else:
        absent.append("note")
    if level_ts != NEVER:
        fields += ["level_ts", level_ts]
    return Evaluation(level, phase, level_ts, MapBody.of(data), fields, absent)


def _note(data: dict[str, Any]) -> str:
    """Say why a level may be low for other reasons than what the source does."""
    notes, vary = [], [count for count in data["populations"]["active_neurons"] if count]
    if len(vary) == 1 or len(data["populations"]["population_id"]) == 1:
        what = "node" if sum(vary) > 1 else "channel"
        notes.append(f"one {what} alone always scores 0")
    if data["bins"] < WINDOW:
        notes.append(f"the window holds {data['bins']} of {WINDOW} bins")
    return "; ".join(notes)


@dataclass(slots=True)
class Scored:
    """Inputs of one source that share a score entry, after the engine has applied them.

    Attributes:
        inputs: how many; 0 for a tick.
        count: the source's `n` after them.
        first: id of the first event, or of the frame (not of its detections); empty for a tick.
        last: of the last.
        ts_ms: of the last.
        was: phase of the source before the last of them.
        shown: the source's newest evaluation.
        numbers: of a publisher that numbers: its name, the first and the last number.
        echo: envelope of an input with `meta` or `traceparent`.
    """

    kind: str
    source: str
    inputs: int
    count: int
    first: bytes
    last: bytes
    ts_ms: int
    was: str
    shown: Evaluation
    is_late: bool = False
    numbers: tuple[str, int | None, int | None] | None = None
    echo: Envelope | None = None
    tracks: Sequence[dict[str, Any]] | None = None


def score_fields(scored: Scored, now_ms: int) -> list[Field]:
    """Build the fields of one score entry, flat."""
    shown = scored.shown
    fields: list[Field] = ["v", VERSION, "source", scored.source, "kind", scored.kind]
    fields += ["inputs", scored.inputs, "n", scored.count]
    if scored.kind != TICK:
        fields += ["first", scored.first, "last", scored.last]
    if scored.numbers is not None:
        producer, first, last = scored.numbers
        fields += ["producer", producer, "seq_first", first or 0, "seq_last", last or 0]
    fields += ["ts", scored.ts_ms, *shown.state[:4]]
    if scored.was != shown.phase:
        fields += ["transition", f"{scored.was}>{shown.phase}"]
    if scored.is_late:
        fields += ["late", 1]
    return [*fields, "data", join(shown.data, _more(scored, now_ms))]


def _more(scored: Scored, now_ms: int) -> MapBody:
    """Give what `data` holds beside the score; of most inputs that is one number."""
    if scored.kind == TICK:
        return MapBody(0, b"")
    latency_ms = max(0, now_ms - int(scored.last.partition(b"-")[0]))
    if scored.tracks is None and scored.echo is None:
        return MapBody(1, _LATENCY + pack(latency_ms))
    more: dict[str, Any] = {"latency_ms": latency_ms}
    if scored.tracks is not None:
        more["tracks"] = list(scored.tracks)
    if scored.echo is not None:
        if scored.echo.meta is not None:
            more["meta"] = unpack(scored.echo.meta, "meta")
        if scored.echo.traceparent is not None:
            more["traceparent"] = scored.echo.traceparent.decode()
    return MapBody.of(more)


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
