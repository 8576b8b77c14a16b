"""Frames and events on their way out: built from what a publisher gives, and checked like inputs.

Whatever is made here would be taken by the workers, because their own reader has looked at it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import NamedTuple

from pipeline import wire
from pipeline.errors import EntryError, Reason
from pipeline.image_header import probe
from pipeline.partition import Keys, is_source, partition_of
from pipeline.records import Image

Meta = Mapping[str, object]
Place = tuple[str, int]
"""A stream's name and a partition."""

_OVERHEAD_BYTES = 128
"""What an entry takes in Redis beside its fields, about."""


class Frame(NamedTuple):
    """One picture to publish.

    Attributes:
        source: name of the camera or file it comes from.
        image: JPEG, PNG or WebP bytes, or uint8 (height, width, 3) BGR, to be sent as JPEG.
        live: to `frames`, where the newest count; else to `recordings`, where every one does.
        ts_ms: when it was taken, Unix ms; None for the time Redis receives it.
        meta: msgpack map of at most 4 KiB, echoed in results.
        traceparent: W3C trace context, echoed in results.
    """

    source: str
    image: bytes | Image
    live: bool = False
    ts_ms: int | None = None
    meta: Meta | None = None
    traceparent: str | None = None


class Event(NamedTuple):
    """One observation to publish; the last four as in `Frame`.

    Attributes:
        source: name of what was observed.
        values: channel -> finite number.
        kind: a label of 1 to 64 characters.
    """

    source: str
    values: Mapping[str, float]
    ts_ms: int | None = None
    kind: str | None = None
    meta: Meta | None = None
    traceparent: str | None = None


@dataclass(slots=True)
class Draft:
    """An entry that is ready but for its number.

    Attributes:
        stream: `frames`, `recordings` or `events`.
        partition: of the source.
        fields: name, value and so on, flat.
        at_ms: when it was given to us, Redis's clock.
        has_ts: it carries a time of its own.
        size_bytes: about what it takes in memory.
    """

    stream: str
    partition: int
    source: str
    fields: list[bytes]
    at_ms: int
    has_ts: bool
    size_bytes: int

    @property
    def place(self) -> Place:
        """Where it goes."""
        return self.stream, self.partition


def draft_frame(frame: Frame, image: bytes, keys: Keys, now_ms: int) -> Draft:
    """Build the entry of a frame; `image` is `frame.image`, encoded.

    Raises:
        EntryError: names the field that is wrong.
    """
    fields = _common(frame.source, frame.ts_ms, frame.meta, frame.traceparent)
    if not isinstance(image, (bytes, bytearray, memoryview)):
        raise _bad(f"image: expected bytes or an array, got {type(image).__name__}")
    fields[b"image"] = bytes(image)
    partition = partition_of(frame.source, keys.partitions)
    wire.read_frame(b"%d-0" % now_ms, fields, partition, keys.partitions)
    probe(fields[b"image"])
    stream = "frames" if frame.live else "recordings"
    return _draft(stream, partition, frame.source, fields, now_ms)


def draft_event(event: Event, keys: Keys, now_ms: int) -> Draft:
    """Build the entry of an event.

    Raises:
        EntryError: names the field that is wrong.
    """
    fields = _common(event.source, event.ts_ms, event.meta, event.traceparent)
    if event.kind is not None:
        fields[b"kind"] = _encoded(event.kind, "kind")
    values = _numbers(event.values)
    if values or event.kind != "heartbeat":
        fields[b"values"] = wire.pack(values)
    partition = partition_of(event.source, keys.partitions)
    wire.read_event(b"%d-0" % now_ms, fields, partition, keys.partitions)
    return _draft("events", partition, event.source, fields, now_ms)


def _draft(
    stream: str, partition: int, source: str, fields: dict[bytes, bytes], now_ms: int
) -> Draft:
    flat = [part for field in fields.items() for part in field]
    size_bytes = sum(map(len, flat)) + _OVERHEAD_BYTES
    return Draft(stream, partition, source, flat, now_ms, b"ts" in fields, size_bytes)


def _common(
    source: str, ts_ms: int | None, meta: Meta | None, traceparent: str | None
) -> dict[bytes, bytes]:
    if not isinstance(source, str) or not is_source(source):
        raise _bad(
            f"source: {str(source)[:140]!r} is not 1 to 128 characters of A-Z a-z 0-9 . _ : -"
        )
    fields = {b"source": source.encode()}
    if ts_ms is not None:
        if isinstance(ts_ms, bool) or not isinstance(ts_ms, int):
            raise _bad(f"ts: expected whole Unix milliseconds, got {ts_ms!r}")
        fields[b"ts"] = b"%d" % ts_ms
    if meta is not None:
        fields[b"meta"] = _packed(meta)
    if traceparent is not None:
        fields[b"traceparent"] = _encoded(traceparent, "traceparent")
    return fields


def _packed(meta: Meta) -> bytes:
    if not isinstance(meta, Mapping):
        raise _bad(f"meta: expected a map, got {type(meta).__name__}")
    try:
        return wire.pack(dict(meta))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise _bad(f"meta: {error}") from error


def _encoded(text: str, name: str) -> bytes:
    if not isinstance(text, str):
        raise _bad(f"{name}: expected text, got {type(text).__name__}")
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise _bad(f"{name}: {error}") from error


def _numbers(values: Mapping[str, float]) -> dict[str, float]:
    """Give plain numbers for those of numpy; anything else is left to the check."""
    if not isinstance(values, Mapping):
        raise _bad(f"values: expected a map of channel to number, got {type(values).__name__}")
    plain = {
        name: number if type(number) in _PLAIN else _plain(number)
        for name, number in values.items()
    }
    return wire.check_values(plain)


_PLAIN = (bool, int, float)


def _plain(number: object) -> object:
    return float(number) if isinstance(number, Real) else number


def _bad(message: str) -> EntryError:
    return EntryError(Reason.BAD_FIELD, message)
