"""Results held in memory: each encoded once, the newest of every source within a budget."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.api.encoding import decode, encode_kept
from pipeline.results import KINDS, Kind, Position, Result, Stream, write_cursor

PER_SOURCE = 1000
DETECTIONS, SCORES = 0, 1
_OVERHEAD_BYTES = 600
_LOOKED_AT = 50
_START: Position = (0, 0, 0)


@dataclass(slots=True)
class Item:
    """One result, encoded.

    Attributes:
        stream: its partition, and its kind as index in `KINDS`.
        position: which entry of its stream it is.
        body: its JSON.
        positions: of all streams once it had been read; None when it is no longer recent.
    """

    source: str
    id: str
    stream: Stream
    position: Position
    body: bytes
    positions: Mapping[Stream, Position] | None = None
    _cursor: str | None = None
    _event: bytes | None = None
    _message: str | None = None

    @property
    def kind(self) -> Kind:
        """Its kind in words."""
        return KINDS[self.stream[1]]

    @property
    def cursor(self) -> str:
        """Where reading goes on after it; empty when it is no longer recent."""
        if self._cursor is None:
            self._cursor = "" if self.positions is None else write_cursor(self.positions)
        return self._cursor

    def as_event(self) -> bytes:
        """Give it as a Server-Sent Event."""
        if self._event is None:
            self._event = write_event(self.kind, self.cursor, self.body)
        return self._event

    def as_message(self) -> str:
        """Give it as a message of a WebSocket."""
        if self._message is None:
            self._message = write_message(self.kind, self.cursor, self.body).decode()
        return self._message

    def age(self) -> None:
        """Free what only recent items need."""
        self.positions = self._cursor = self._event = self._message = None


def write_event(name: str, cursor: str, body: bytes) -> bytes:
    """Write a Server-Sent Event."""
    return b"event: %b\nid: %b\ndata: %b\n\n" % (name.encode(), cursor.encode(), body)


def write_message(name: str, cursor: str, body: bytes) -> bytes:
    """Write a message of a WebSocket: what the event has, as one object."""
    return b'{"event":"%b","cursor":"%b","data":%b}' % (name.encode(), cursor.encode(), body)


def make_item(result: Result, stream: Stream, position: Position) -> Item:
    """Encode a result."""
    body = encode_kept({"result": result.kind, "id": result.id, **result.fields})
    return Item(result.source, result.id, stream, position, body, result.positions or None)


@dataclass(frozen=True, slots=True)
class Sight:
    """What is to be drawn over a frame.

    Attributes:
        frame: its entry id.
        objects: tracks, or what was detected, each with `box`, `label`, `confidence`, maybe `id`.
        width: of the full frame in pixels; 0 where the result does not say.
        level: of the source; None before anything was scored.
    """

    frame: str
    objects: Sequence[Mapping[str, Any]]
    width: int = 0
    level: float | None = None
    phase: str | None = None


@dataclass(slots=True)
class Ring:
    """Newest results of one kind of a source, oldest first.

    Attributes:
        floor: position after which no result of the source is missing here.
        is_filled: what Redis had before that was looked up.
    """

    floor: Position
    items: deque[Item] = field(default_factory=deque)
    is_filled: bool = False


@dataclass(slots=True)
class _Source:
    rings: dict[int, Ring] = field(default_factory=dict)
    detected: Sight | None = None
    tracked: Sight | None = None

    def see(self, kind: int, fields: Mapping[str, Any]) -> None:
        """Note what is to be drawn."""
        if kind == DETECTIONS:
            self.detected = Sight(str(fields.get("frame")), _boxes(fields, "objects"), _int(fields))
        elif fields.get("kind") == "frame":
            level, phase = fields.get("level"), fields.get("phase")
            boxes = _boxes(fields, "tracks")
            self.tracked = Sight(str(fields.get("last")), boxes, 0, level, phase)


class Held:
    """The newest results of every source.

    Args:
        per_source: most results of a kind and source.
        most_bytes: of all; beyond it the fullest sources lose their oldest, then the quietest.
    """

    def __init__(self, per_source: int = PER_SOURCE, *, most_bytes: int) -> None:
        self._per_source = per_source
        self._most_bytes = most_bytes
        self._sources: dict[str, _Source] = {}
        self.floors: dict[Stream, Position] = {}
        """After these positions nothing is missing of a source that has no ring."""
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._sources)

    def ring(self, source: str, kind: int) -> Ring | None:
        """Give the results of a kind; None when none were ever put."""
        held = self._sources.get(source)
        return None if held is None else held.rings.get(kind)

    def floor(self, stream: Stream, ring: Ring | None) -> Position:
        """Give after which position nothing is missing in a ring, or where there is none."""
        return self.floors[stream] if ring is None else ring.floor

    def sights(self, source: str) -> tuple[Sight | None, Sight | None]:
        """Give what was last detected and what was last tracked."""
        held = self._sources.get(source)
        return (None, None) if held is None else (held.detected, held.tracked)

    def put(self, item: Item, fields: Mapping[str, Any]) -> None:
        """Add the newest result of a source; `fields` are the result's."""
        held = self._sources.setdefault(item.source, _Source())
        ring = held.rings.get(item.stream[1])
        if ring is None:
            ring = held.rings[item.stream[1]] = Ring(self.floors.get(item.stream, _START))
        self._append(ring, item)
        held.see(item.stream[1], fields)
        if self.size_bytes > self._most_bytes:
            self._shrink()

    def fill(self, source: str, kind: int, older: Sequence[Item], floor: Position) -> Ring:
        """Put what Redis had before the oldest held, oldest first."""
        held = self._sources.setdefault(source, _Source())
        ring = held.rings.setdefault(kind, Ring(floor))
        room = max(0, self._per_source - len(ring.items))
        kept = list(older)[-room:] if room else []
        ring.items.extendleft(reversed(kept))
        ring.is_filled = True
        ring.floor = floor if len(kept) == len(older) else older[-len(kept) - 1].position
        self.size_bytes += sum(map(_size_bytes, kept))
        if (held.detected, held.tracked)[kind] is None:
            for item in kept[-_LOOKED_AT:]:
                held.see(kind, decode(item.body))
        return ring

    def _append(self, ring: Ring, item: Item) -> None:
        ring.items.append(item)
        self.size_bytes += _size_bytes(item)
        if len(ring.items) > self._per_source:
            self._drop(ring)

    def _drop(self, ring: Ring) -> None:
        gone = ring.items.popleft()
        ring.floor = gone.position
        self.size_bytes -= _size_bytes(gone)

    def _shrink(self) -> None:
        """Free a tenth at once, so that this is rare."""
        aim, most = self._most_bytes * 9 // 10, self._per_source
        while self.size_bytes > aim and most > 1:
            most //= 2
            for ring in self._rings():
                while len(ring.items) > most and self.size_bytes > aim:
                    self._drop(ring)
        quiet = sorted(self._sources, key=lambda name: _newest(self._sources[name]))
        for name in quiet:
            if self.size_bytes <= aim:
                return
            for ring in self._sources.pop(name).rings.values():
                self.size_bytes -= sum(map(_size_bytes, ring.items))
                for last in list(ring.items)[-1:]:
                    self.floors[last.stream] = max(self.floors[last.stream], last.position)

    def _rings(self) -> Iterator[Ring]:
        for held in self._sources.values():
            yield from held.rings.values()


def _size_bytes(item: Item) -> int:
    return _OVERHEAD_BYTES + len(item.body)


def _newest(held: _Source) -> tuple[int, int]:
    ends = [ring.items[-1].position[:2] for ring in held.rings.values() if ring.items]
    return max(ends, default=(0, 0))


def _boxes(fields: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    found = fields.get(name)
    return found if isinstance(found, list) else ()


def _int(fields: Mapping[str, Any]) -> int:
    width = fields.get("width")
    return width if isinstance(width, int) else 0
