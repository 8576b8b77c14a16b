"""Results as entries and back: detections, dead letters, and what readers see (CONTRACT 4)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.errors import EntryError, Reason
from pipeline.records import Detections
from pipeline.wire import (
    Envelope,
    Fields,
    FrameEntry,
    bad_field,
    pack,
    read_envelope,
    shown,
    source_of,
    unpack,
)

VERSION = 1


@dataclass(slots=True)
class DetectionEntry:
    """The detections of one frame as the score stage reads them.

    Attributes:
        envelope: of the frame; `entry_id` is the id of the detections entry.
        frame: entry id of the frame.
        stream: `frames` or `recordings`.
        width: pixels of the full frame.
        height: pixels of the full frame.
        labels: name of each object, in the order of `detections`.
    """

    envelope: Envelope
    frame: bytes
    stream: str
    model: str
    width: int
    height: int
    detections: Detections
    labels: tuple[str, ...]


def count_labels(labels: Sequence[str]) -> str:
    """Give `car:3,person:1`, most frequent first."""
    counts: dict[str, int] = {}
    for label in labels:
        counts[label] = counts.get(label, 0) + 1
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ",".join(f"{label}:{count}" for label, count in ordered)


def detection_fields(
    frame: FrameEntry,
    stream: str,
    detections: Detections,
    labels: Sequence[str],
    facts: Mapping[str, object],
) -> list[bytes | str | int]:
    """Build the fields of a detections entry, flat.

    Args:
        frame: the entry that was detected.
        stream: `frames` or `recordings`.
        detections: what was found.
        labels: the model's class names.
        facts: `model`, `width`, `height`, `cached`, `timing`.
    """
    names = [labels[class_id] for class_id in detections.class_id.tolist()]
    objects = [
        {"class_id": class_id, "label": name, "confidence": round(confidence, 4), "box": box}
        for class_id, name, confidence, box in zip(
            detections.class_id.tolist(),
            names,
            detections.confidence.tolist(),
            np.round(detections.xyxy.astype(np.float64), 2).tolist(),
            strict=True,
        )
    ]
    head = frame.envelope
    fields: list[bytes | str | int] = ["v", VERSION, "source", head.source, "frame", head.entry_id]
    fields += ["stream", stream, "ts", head.ts_ms, *head.echo(), "labels", count_labels(names)]
    return [*fields, "data", pack({**facts, "objects": objects})]


def read_detection(entry_id: bytes, fields: Fields, partition: int, parts: int) -> DetectionEntry:
    """Read an entry of `detections`.

    Raises:
        EntryError: bad_version, bad_field or wrong_partition.
    """
    version = fields.get(b"v")
    if version != b"1":
        raise EntryError(Reason.BAD_VERSION, f"v: expected 1, got {shown(version or b'')}")
    envelope = read_envelope(entry_id, fields, partition, parts)
    frame, stream = fields.get(b"frame", b""), fields.get(b"stream", b"").decode(errors="replace")
    if not re.match(rb"\d+-\d+\Z", frame):
        raise bad_field(f"frame: not an entry id: {shown(frame)}")
    if stream not in ("frames", "recordings"):
        raise bad_field(f"stream: frames or recordings, got {stream[:40]!r}")
    data = unpack(fields.get(b"data", b""), "data")
    try:
        objects = data["objects"]
        found = Detections(
            np.array([o["box"] for o in objects], np.float32).reshape(-1, 4),
            np.array([o["confidence"] for o in objects], np.float32),
            np.array([o["class_id"] for o in objects], np.int32),
        )
        labels = tuple(str(o["label"]) for o in objects)
        width, height, model = int(data["width"]), int(data["height"]), str(data["model"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise bad_field(f"data: {type(error).__name__}: {error}") from error
    finite = np.isfinite(found.xyxy).all() and np.isfinite(found.confidence).all()
    if not finite or width < 1 or height < 1:
        raise bad_field("data: boxes and confidences must be finite, width and height positive")
    return DetectionEntry(envelope, frame, stream, model, width, height, found, labels)


def read_result(fields: Fields) -> dict[str, Any]:
    """Give a result (detections or scores) as readers see it: text decoded, `data` merged in."""
    result: dict[str, Any] = {}
    for raw_name, raw in fields.items():
        name = raw_name.decode()
        if name == "data":
            result.update(unpack(raw, name))
        elif name == "meta":
            result[name] = unpack(raw, name)
        elif name in _INTEGERS:
            result[name] = int(raw)
        else:
            result[name] = float(raw) if name == "level" else raw.decode(errors="replace")
    return result


_INTEGERS = frozenset(("v", "ts", "seq", "inputs", "n", "seq_first", "seq_last", "late"))


MAX_DEAD_ENTRY_BYTES = 2**20


def dead_fields(
    stream: str,
    entry_id: bytes,
    fields: Fields,
    error: EntryError,
    deliveries: int,
) -> list[bytes | str | int]:
    """Build a dead letter; of an entry over 1 MiB it keeps sizes and the image's SHA-256."""
    flat: list[bytes | str | int] = ["stream", stream, "id", entry_id]
    source = source_of(fields)
    if source is not None:
        flat += ["source", source]
    flat += ["reason", error.reason.value, "error", str(error)[:1000], "deliveries", deliveries]
    kept: dict[bytes, object] = dict(fields)
    if sum(map(len, fields.keys())) + sum(map(len, fields.values())) > MAX_DEAD_ENTRY_BYTES:
        kept = {name: len(value) for name, value in fields.items()}
        image = fields.get(b"image", b"")
        kept[b"image_sha256"] = hashlib.sha256(image).hexdigest()
    return [*flat, "entry", pack(kept)]
