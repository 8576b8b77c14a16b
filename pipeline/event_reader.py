"""Entries of `events` into columns, a page at a time.

Nearly every event has the same few fields, a source and channels that were seen before; those are
read here without an object an event. Everything else goes through `wire.read_event`, which alone
knows the rules: what is taken here is what it would have given.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable

from pipeline.errors import EntryError
from pipeline.score_inputs import Input, Inputs
from pipeline.stream import Raw
from pipeline.wire import MAX_AHEAD_MS, id_key, read_event, unpack

_KNOWN = 16_384
"""Names of sources remembered as sound."""
_OTHERS = 4096
"""Names of publishers and sets of channels remembered as sound."""
_DIGITS = 15
_FLOATS = frozenset((float,))
_INFINITY = float("inf")


class EventReader:
    """Reads the events of one partition."""

    def __init__(self, partition: int, partitions: int) -> None:
        self._partition = partition
        self._partitions = partitions
        self._sources: dict[bytes, str] = {}
        self._producers: dict[bytes, str] = {}
        self._channels: set[tuple[str, ...]] = set()

    @property
    def sources(self) -> Collection[str]:
        """Sources that are remembered."""
        return self._sources.values()

    def forget(self, sources: Iterable[str]) -> None:
        """Drop sources that are gone."""
        for source in sources:
            self._sources.pop(source.encode(), None)

    def take(
        self,
        waiting: deque[Raw],
        into: Inputs,
        room: int,
        most_sources: int,
        before: tuple[int, int] | None = None,
    ) -> bool:
        """Move entries into a batch, oldest first.

        Args:
            waiting: entries as read; what is taken is removed.
            into: the batch.
            room: most inputs it may hold.
            most_sources: most sources it may hold, unless the first input alone has more.
            before: id at which to stop, None for no bound.

        Returns:
            False when the batch can hold no more.
        """
        sources = into.sources
        while waiting:
            if len(into.entry_id) >= room:
                return False
            entry_id, fields = waiting[0]
            if before is not None and id_key(entry_id) >= before:
                return True
            name = self._sources.get(fields.get(b"source", b""))
            if name not in sources and len(sources) >= most_sources:
                return False
            waiting.popleft()
            if name is None or not self._read_plain(entry_id, fields, name, into):
                self._read_any(entry_id, fields, into)
        return len(into.entry_id) < room

    def _read_plain(
        self, entry_id: bytes, fields: dict[bytes, bytes], source: str, into: Inputs
    ) -> bool:
        """Append an event of known names, values and numbers only; False if it is anything else."""
        get = fields.get
        raw_ts, producer, seq = get(b"ts"), get(b"producer"), get(b"seq")
        added_ms = ts_ms = int(entry_id[: entry_id.index(b"-")])
        rest = len(fields) - 2
        if raw_ts is not None:
            ts_ms = _small(raw_ts)
            rest -= 1
        name = number = None
        if producer is not None and seq is not None:
            name, number = self._producers.get(producer), _small(seq)
            rest -= 2
            if name is None or number < 0:
                return False
        values = self._known_values(get(b"values"))
        if rest or values is None or not 0 <= ts_ms <= added_ms + MAX_AHEAD_MS:
            return False
        into.entry_id.append(entry_id)
        into.fields.append(fields)
        into.source.append(source)
        into.added_ms.append(added_ms)
        into.ts_ms.append(ts_ms)
        into.values.append(values)
        into.producer.append(name)
        into.seq.append(number)
        into.sources[source] = None
        return True

    def _known_values(self, packed: bytes | None) -> dict[str, float] | None:
        """Give finite values of channels seen together before; None for anything else."""
        if packed is None:
            return None
        try:
            values = unpack(packed, "values")
        except EntryError:
            return None
        if type(values) is not dict or tuple(values) not in self._channels:
            return None
        numbers = values.values()
        if not _FLOATS.issuperset(map(type, numbers)) or not -_INFINITY < sum(numbers) < _INFINITY:
            return None
        return values

    def _read_any(self, entry_id: bytes, fields: dict[bytes, bytes], into: Inputs) -> None:
        """Append an event by the rules, and remember what was sound in it."""
        try:
            event = read_event(entry_id, fields, self._partition, self._partitions)
        except EntryError as error:
            into.add(Input("events", entry_id, fields, error))
            return
        into.add(Input("events", entry_id, fields, event))
        head = event.envelope
        bounds = (_KNOWN, self._sources), (_OTHERS, self._producers), (_OTHERS, self._channels)
        for most, known in bounds:
            if len(known) >= most:
                known.clear()
        self._sources[fields[b"source"]] = head.source
        if head.producer is not None:
            self._producers[fields[b"producer"]] = head.producer
        if event.values:
            self._channels.add(tuple(event.values))


def _small(raw: bytes) -> int:
    """Give a whole number of few digits; -1 for anything else."""
    return int(raw) if len(raw) <= _DIGITS and raw.isdigit() else -1
