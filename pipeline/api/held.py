"""Results held in memory: each encoded once, the newest of every source within a budget."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.api.encoding import decode, encode_kept
from pipeline.results import KINDS, Kind, Position, Result, Stream, write_cursor

PER_SOURCE = 1000
DETECTIONS, SCORES = 0, 1
_OVERHEAD_BYTES = 600
_SOURCE_BYTES = 2000
"""What a source takes beside its results."""
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
    """One source.

    Attributes:
        seen: per kind the newest result that tells of a frame.
        sights: what is to be drawn by them, read from them when somebody asks; None before.
        touched_ms: when something was last put.
    """

    rings: dict[int, Ring] = field(default_factory=dict)
    seen: list[Item | None] = field(default_factory=lambda: [None, None])
    sights: tuple[Sight | None, Sight | None] | None = None
    touched_ms: int = 0

    def items(self) -> Iterator[Item]:
        """Give all that is held of it; what was seen may come twice."""
        for ring in self.rings.values():
            yield from ring.items
        yield from (item for item in self.seen if item is not None)


class Held:
    """The newest results of every source.

    Args:
        per_source: most results of a kind and source.
        most_bytes: of all; beyond it the fullest sources lose their oldest, then the quietest.
        quiet_ms: a source of which nothing was put for so long is gone.
    """

    def __init__(self, per_source: int = PER_SOURCE, *, most_bytes: int, quiet_ms: int) -> None:
        self._per_source = per_source
        self._most_bytes = most_bytes
        self._quiet_ms = quiet_ms
        self._now_ms = 0
        self._sources: OrderedDict[str, _Source] = OrderedDict()
        """The quietest first."""
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
        if held is None:
            return None, None
        if held.sights is None:
            detected, tracked = held.seen
            held.sights = _detected(detected), _tracked(tracked)
        return held.sights

    def put(self, item: Item, fields: Mapping[str, Any]) -> None:
        """Add the newest result of a source; `fields` are the result's."""
        self._now_ms = max(self._now_ms, item.position[0])
        held = self._touch(item.source)
        ring = held.rings.get(item.stream[1])
        if ring is None:
            ring = held.rings[item.stream[1]] = Ring(self.floors.get(item.stream, _START))
        self._append(ring, item)
        self._see(held, item, fields)
        if self.size_bytes > self._most_bytes:
            self._shrink()

    def fill(self, source: str, kind: int, older: Sequence[Item], floor: Position) -> Ring:
        """Put what Redis had before the oldest held, oldest first."""
        held = self._touch(source)
        ring = held.rings.setdefault(kind, Ring(floor))
        room = max(0, self._per_source - len(ring.items))
        kept = list(older)[-room:] if room else []
        ring.items.extendleft(reversed(kept))
        ring.is_filled = True
        ring.floor = floor if len(kept) == len(older) else older[-len(kept) - 1].position
        self.size_bytes += sum(map(_size_bytes, kept))
        if held.seen[kind] is None:
            for item in kept[-_LOOKED_AT:]:
                self._see(held, item, decode(item.body))
        return ring

    def _touch(self, source: str) -> _Source:
        """Give a source, a new one if there is none; those that are quiet go."""
        held = self._sources.get(source)
        if held is None:
            held = self._sources[source] = _Source()
            self.size_bytes += _SOURCE_BYTES
        held.touched_ms = self._now_ms
        self._sources.move_to_end(source)
        since_ms = self._now_ms - self._quiet_ms
        while (quietest := next(iter(self._sources.items())))[1].touched_ms < since_ms:
            self._leave(quietest[0])
        return held

    def _see(self, held: _Source, item: Item, fields: Mapping[str, Any]) -> None:
        """Note what is to be drawn."""
        kind = item.stream[1]
        if kind == DETECTIONS or fields.get("kind") == "frame":
            before = held.seen[kind]
            self.size_bytes += _size_bytes(item) - (_size_bytes(before) if before else 0)
            held.seen[kind], held.sights = item, None

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
        while self.size_bytes > aim and self._sources:
            self._leave(next(iter(self._sources)))

    def _leave(self, source: str) -> None:
        """Let go of a source; what Redis has of it is looked up when somebody asks."""
        held = self._sources.pop(source)
        self.size_bytes -= _SOURCE_BYTES + sum(map(_size_bytes, held.items()))
        for ring in held.rings.values():
            for last in list(ring.items)[-1:]:
                self.floors[last.stream] = max(self.floors[last.stream], last.position)

    def _rings(self) -> Iterator[Ring]:
        for held in self._sources.values():
            yield from held.rings.values()


def _size_bytes(item: Item) -> int:
    return _OVERHEAD_BYTES + len(item.body)


def _detected(item: Item | None) -> Sight | None:
    if item is None:
        return None
    fields = decode(item.body)
    return Sight(str(fields.get("frame")), _boxes(fields, "objects"), _int(fields))


def _tracked(item: Item | None) -> Sight | None:
    if item is None:
        return None
    fields = decode(item.body)
    level, phase = fields.get("level"), fields.get("phase")
    return Sight(str(fields.get("last")), _boxes(fields, "tracks"), 0, level, phase)


def _boxes(fields: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    found = fields.get(name)
    return found if isinstance(found, list) else ()


def _int(fields: Mapping[str, Any]) -> int:
    width = fields.get("width")
    return width if isinstance(width, int) else 0
