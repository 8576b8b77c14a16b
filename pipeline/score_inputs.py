"""Inputs of one commit in columns: one element per input, in the order in which they are scored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pipeline.errors import EntryError, Reason
from pipeline.wire import Envelope, EventEntry, id_ms, source_of
from pipeline.wire_results import DetectionEntry

Parsed = EventEntry | DetectionEntry | EntryError
NOTHING: Mapping[str, float] = {}


@dataclass(slots=True)
class Input:
    """An entry to score, or what is wrong with it.

    Attributes:
        stream: `events` or `detections`.
        entry_id: in that stream.
        fields: as read, for a dead letter.
    """

    stream: str
    entry_id: bytes
    fields: dict[bytes, bytes]
    value: Parsed

    @property
    def source(self) -> str:
        """The source when the entry is sound, else empty."""
        return "" if isinstance(self.value, EntryError) else self.value.envelope.source

    @property
    def claimed_source(self) -> str | None:
        """The source whose state shows what went wrong, if there is one in this partition."""
        if not isinstance(self.value, EntryError):
            return self.value.envelope.source
        wrong = self.value.reason is Reason.WRONG_PARTITION
        return None if wrong else source_of(self.fields)


@dataclass(slots=True)
class Inputs:
    """Events as numbers in lists; what is rare lies beside them, by index.

    Attributes:
        entry_id: in its stream.
        fields: as read.
        source: empty where an entry is bad.
        added_ms: Redis's clock when the event or the frame was added.
        ts_ms: time of the input.
        values: of an event, empty for a heartbeat; of anything else empty.
        producer: the publisher's run, None when it numbers nothing.
        seq: its number there.
        frames: detections.
        echoes: events with `meta` or `traceparent`.
        bad: entries that become dead letters.
        sources: all sources of sound entries, in order of first appearance.
    """

    entry_id: list[bytes] = field(default_factory=list)
    fields: list[dict[bytes, bytes]] = field(default_factory=list)
    source: list[str] = field(default_factory=list)
    added_ms: list[int] = field(default_factory=list)
    ts_ms: list[int] = field(default_factory=list)
    values: list[Mapping[str, float]] = field(default_factory=list)
    producer: list[str | None] = field(default_factory=list)
    seq: list[int | None] = field(default_factory=list)
    frames: dict[int, DetectionEntry] = field(default_factory=dict)
    echoes: dict[int, Envelope] = field(default_factory=dict)
    bad: dict[int, Input] = field(default_factory=dict)
    sources: dict[str, None] = field(default_factory=dict)

    @classmethod
    def of(cls, inputs: Iterable[Input]) -> Inputs:
        """Collect inputs one by one."""
        batch = cls()
        for one in inputs:
            batch.add(one)
        return batch

    def __len__(self) -> int:
        return len(self.entry_id)

    def is_event(self, index: int) -> bool:
        """Tell whether an input was read from `events`."""
        one = self.bad.get(index)
        return index not in self.frames if one is None else one.stream == "events"

    def events(self) -> list[bytes]:
        """Give the ids of the entries that were read from `events`."""
        if not self.frames and not self.bad:
            return self.entry_id
        return [each for index, each in enumerate(self.entry_id) if self.is_event(index)]

    def has_room(self, source: str, most_sources: int) -> bool:
        """Tell whether an input of a source may join without making the sources too many."""
        return not source or source in self.sources or len(self.sources) < most_sources

    def add(self, one: Input) -> None:
        """Append an input, whatever it is."""
        value, index = one.value, len(self)
        if isinstance(value, EntryError):
            self.bad[index] = one
            self._append(one, Envelope(one.entry_id, 0, "", 0), 0, NOTHING)
            return
        head = value.envelope
        self.sources[head.source] = None
        if isinstance(value, DetectionEntry):
            self.frames[index] = value
            self._append(one, head, id_ms(value.frame), NOTHING)
            return
        if head.meta is not None or head.traceparent is not None:
            self.echoes[index] = head
        self._append(one, head, head.added_ms, value.values)

    def _append(
        self, one: Input, head: Envelope, added_ms: int, values: Mapping[str, float]
    ) -> None:
        self.entry_id.append(one.entry_id)
        self.fields.append(one.fields)
        self.source.append(head.source)
        self.added_ms.append(added_ms)
        self.ts_ms.append(head.ts_ms)
        self.values.append(values)
        self.producer.append(head.producer)
        self.seq.append(head.seq)

    def spoil(self, index: int, error: EntryError) -> Input:
        """Make a dead letter of an input, whatever it was."""
        stream = "events" if self.is_event(index) else "detections"
        self.frames.pop(index, None)
        one = Input(stream, self.entry_id[index], self.fields[index], error)
        self.bad[index], self.source[index] = one, ""
        return one
