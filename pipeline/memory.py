"""What the score stage remembers of a source, and the blob that keeps it in Redis."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgpack

from pipeline.sequence import SeenNumbers

VERSION = 1
SEEN_MS = 3_600_000
"""A producer's numbers are remembered for an hour after its last one."""


@dataclass(slots=True)
class Memory:
    """One source between two inputs.

    Attributes:
        slot: of the engine.
        count: inputs scored so far, the `n` of its newest score entry.
        late: stragglers and events too late for the window.
        tracker: saved tracker state; empty before the first frame.
        tracks: objects followed in the newest frame.
        newest_frame: per stream the id of the newest frame that moved the tracker.
        producers: numbers seen, and when the last one came, by producer.
        heard_ms: Redis's clock at its newest input.
        newest_ms: its newest `ts`.
        shown: level and phase of the newest score entry.
    """

    slot: int
    count: int = 0
    frames: int = 0
    events: int = 0
    late: int = 0
    tracker: bytes = b""
    tracks: int = 0
    newest_frame: dict[str, bytes] = field(default_factory=dict)
    producers: dict[str, tuple[SeenNumbers, int]] = field(default_factory=dict)
    heard_ms: int = 0
    newest_ms: int = 0
    shown: tuple[float, str] = (0.0, "dormant")
    model: str = ""

    def hear(self, inputs: int, added_ms: int, ts_ms: int, *, is_frame: bool) -> None:
        """Count inputs; the times are those of the newest."""
        self.count += inputs
        self.heard_ms = max(self.heard_ms, added_ms)
        self.newest_ms = max(self.newest_ms, ts_ms)
        if is_frame:
            self.frames += inputs
        else:
            self.events += inputs

    def accept(self, producer: str | None, seq: int | None, now_ms: int) -> bool:
        """Remember a publisher's number; False when the input is a duplicate."""
        if producer is None or seq is None:
            return True
        numbers, last_ms = self.producers.get(producer, (None, 0))
        if numbers is None or now_ms - last_ms > SEEN_MS:
            numbers = SeenNumbers()
        accepted = numbers.accept(seq)
        self.producers[producer] = (numbers, now_ms)
        return accepted

    def pack(self, engine: bytes) -> bytes:
        """Give the blob; `engine` is the engine's own."""
        self.producers = {
            name: (numbers, last_ms)
            for name, (numbers, last_ms) in self.producers.items()
            if self.heard_ms - last_ms <= SEEN_MS
        }
        producers = {n: [*seen.to_row(), ms] for n, (seen, ms) in self.producers.items()}
        counts = [self.count, self.frames, self.events, self.late, self.tracks]
        counts += [self.heard_ms, self.newest_ms]
        row = [VERSION, engine, counts, self.tracker, self.newest_frame, producers]
        packed: bytes = msgpack.packb([*row, list(self.shown), self.model])
        return packed

    @classmethod
    def unpack(cls, slot: int, blob: list[Any]) -> Memory:
        """Read what `read_blob` gave; the engine's part is restored by the caller."""
        _, _, counts, tracker, newest_frame, producers, shown, model = blob
        count, frames, events, late, tracks, heard_ms, newest_ms = counts
        return cls(
            slot,
            count,
            frames,
            events,
            late,
            tracker,
            tracks,
            newest_frame,
            {n: (SeenNumbers.from_row(row[:2]), row[2]) for n, row in producers.items()},
            heard_ms,
            newest_ms,
            (shown[0], shown[1]),
            model,
        )


def read_blob(data: bytes) -> list[Any]:
    """Open a blob; its second element is the engine's state.

    Raises:
        ValueError: it is damaged or of an unknown version.
    """
    blob = msgpack.unpackb(data, strict_map_key=False)
    if type(blob) is not list or len(blob) != 8 or blob[0] != VERSION:
        raise ValueError(f"source memory: expected version {VERSION}, got {str(blob)[:40]}")
    return blob
