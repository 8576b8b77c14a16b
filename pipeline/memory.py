"""What the score stage remembers of a source, and how it is kept in Redis.

A hash of three fields: `state`, the engine's, written now and then; `journal`, what the engine was
given since; `facts`, everything else. A state is a few kilobytes, a journal a few hundred bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from sys import intern
from typing import Any, Final, NamedTuple

import msgpack

from pipeline.sequence import SeenNumbers
from pipeline.wire import pack

VERSION = 3
AT_REST = (0.0, "dormant")
"""Level and phase of a source that silence changes no more, once its window is empty."""
SEEN_MS = 3_600_000
"""A producer's numbers are remembered for an hour after its last new one."""


# Shared by sources that send no frames; a table of its own would take each 80 bytes.
_NO_LABELS: Final[Mapping[int, str]] = {}


class Publisher(SeenNumbers):
    """Numbers seen of one publisher of a source, and when the last one came, in Redis's time."""

    __slots__ = ("last_ms", "name")

    def __init__(self, name: str, last_ms: int, highest: int = -1, seen: int = 0) -> None:
        super().__init__(highest, seen)
        self.name = name
        self.last_ms = last_ms


class Remembered(NamedTuple):
    """What Redis holds of a source."""

    state: bytes
    journal: bytes
    facts: bytes


@dataclass(slots=True)
class Written:
    """What the newest writes of a source hold, so that the next needs to add little.

    Attributes:
        assignment: the engine's, when its state was written; None before.
        journal_bytes: what the engine was given since is so long.
        level_ts: of the evaluation that the state hash shows; None before.
        counts: sum of the frames and stragglers that it shows.
        fresh_ms: when everything was written anew, in Redis's time.
    """

    assignment: object = None
    journal_bytes: int = 0
    level_ts: int | None = None
    counts: int = 0
    fresh_ms: int = 0


@dataclass(slots=True)
class Memory:
    """One source between two inputs.

    Attributes:
        slot: of the engine.
        frames: frames scored so far.
        events: events scored so far.
        late: stragglers and events too late for the window.
        tracker: saved tracker state; empty before the first frame.
        tracks: objects followed in the newest frame.
        newest_frame: stream and id of the newest frame that came in its turn, of each stream.
        labels: of the classes of its tracks; not changed in place.
        publishers: those that number what they send.
        heard_ms: Redis's clock at its newest input.
        newest_ms: its newest `ts`.
        level: that the newest score entry shows.
        phase: that it shows.
        written: what Redis has of it.
        rests_ms: until it has been silent for so long, silence changes nothing that is shown.
    """

    slot: int
    frames: int = 0
    events: int = 0
    late: int = 0
    tracker: bytes = b""
    tracks: int = 0
    newest_frame: tuple[tuple[str, bytes], ...] = ()
    labels: Mapping[int, str] = field(default_factory=lambda: _NO_LABELS)
    publishers: tuple[Publisher, ...] = ()
    heard_ms: int = 0
    newest_ms: int = 0
    level: float = AT_REST[0]
    phase: str = AT_REST[1]
    model: str = ""
    written: Written = field(default_factory=Written)
    rests_ms: int = 0

    @property
    def count(self) -> int:
        """Inputs scored so far, the `n` of its newest score entry."""
        return self.frames + self.events

    @property
    def shown(self) -> tuple[float, str]:
        """Level and phase of the newest score entry."""
        return self.level, self.phase

    def show(self, level: float, phase: str) -> None:
        """Note what a new score entry shows."""
        self.level, self.phase = level, phase

    def hear(self, inputs: int, added_ms: int, ts_ms: int, *, is_frame: bool) -> None:
        """Count inputs; the times are those of the newest."""
        self.heard_ms = max(self.heard_ms, added_ms)
        self.newest_ms = max(self.newest_ms, ts_ms)
        self.rests_ms = 0
        if is_frame:
            self.frames += inputs
        else:
            self.events += inputs

    def has_seen(self, producer: str | None, seq: int | None, now_ms: int) -> bool:
        """Tell whether an input is a duplicate, by its publisher's number.

        A duplicate prolongs nothing: it is counted, and nothing else of it is written.
        """
        if producer is None or seq is None:
            return False
        known = self._publisher(producer, now_ms)
        return known is not None and known.has_seen(seq)

    def accept(self, producer: str | None, seq: int | None, now_ms: int) -> None:
        """Remember a publisher's number that has not been seen."""
        if producer is None or seq is None:
            return
        known = self._publisher(producer, now_ms)
        if known is None:
            known = Publisher(producer, now_ms)
            others = (each for each in self.publishers if each.name != producer)
            self.publishers = (*others, known)
        known.accept(seq)
        known.last_ms = now_ms

    def _publisher(self, name: str, now_ms: int) -> Publisher | None:
        """Give a publisher unless it is new or was silent for too long."""
        for known in reversed(self.publishers):  # who sends now came last, mostly
            if known.name == name:
                return None if now_ms - known.last_ms > SEEN_MS else known
        return None

    def facts(self) -> bytes:
        """Give all but the engine's state, packed."""
        producers = {}
        if self.publishers:
            self._forget_publishers()
            producers = {known.name: [*known.to_row(), known.last_ms] for known in self.publishers}
        counts = [self.count, self.frames, self.events, self.late, self.tracks]
        counts += [self.heard_ms, self.newest_ms]
        row = [VERSION, counts, self.tracker, dict(self.newest_frame), producers]
        return pack([*row, self.shown, self.model, self.labels])

    def _forget_publishers(self) -> None:
        gone_ms = self.heard_ms - SEEN_MS
        if any(known.last_ms < gone_ms for known in self.publishers):
            self.publishers = tuple(k for k in self.publishers if k.last_ms >= gone_ms)

    @classmethod
    def of(cls, slot: int, facts: bytes) -> Memory:
        """Read what `facts` gave.

        Raises:
            ValueError: it is damaged or of an unknown version.
        """
        _, counts, tracker, newest_frame, producers, shown, model, labels = _row(facts)
        _, frames, events, late, tracks, heard_ms, newest_ms = counts
        return cls(
            slot,
            frames,
            events,
            late,
            tracker,
            tracks,
            tuple((intern(stream), frame) for stream, frame in newest_frame.items()),
            labels or _NO_LABELS,
            tuple(_read_publisher(name, row) for name, row in producers.items()),
            heard_ms,
            newest_ms,
            shown[0],
            shown[1],
            model,
        )


def _read_publisher(name: str, row: list[Any]) -> Publisher:
    numbers = SeenNumbers.from_row(row[:2])
    return Publisher(name, row[2], numbers.highest, numbers.seen)


def is_at_rest(facts: bytes, faded_ms: int) -> bool:
    """Tell of a source's `facts` whether silence changes it no more; False if they are damaged.

    Args:
        facts: as `Memory.facts` gives them.
        faded_ms: the window of a source that was last heard before is empty.
    """
    try:
        row = _row(facts)
    except ValueError:
        return False
    heard_ms, (level, phase) = row[1][5], row[5]
    return (level, phase) == AT_REST and heard_ms < faded_ms


def _row(facts: bytes) -> list[Any]:
    row = msgpack.unpackb(facts, strict_map_key=False)
    if type(row) is list and len(row) == 7 and row[0] == VERSION - 1:
        row.append({})
    elif type(row) is not list or len(row) != 8 or row[0] != VERSION:
        raise ValueError(f"source memory: expected version {VERSION}, got {str(row)[:40]}")
    return row
