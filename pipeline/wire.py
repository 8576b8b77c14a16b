"""Inputs as values: every field of CONTRACT 3, checked; raises `EntryError`, nothing else."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgpack

from pipeline.errors import EntryError, Reason
from pipeline.partition import is_channel, is_source, partition_of, tag_of

MAX_META_BYTES = 4096
MAX_AHEAD_MS = 60_000
MAX_NUMBER = 2**53
_PACKER = msgpack.Packer()
"""One for all threads: it packs without giving the interpreter's lock away."""
Fields = Mapping[bytes, bytes]

_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z")
_DIGITS = re.compile(rb"[0-9]{1,16}\Z")
_COMMON = frozenset((b"source", b"ts", b"seq", b"producer", b"meta", b"traceparent", b"replay_of"))
_FRAME = _COMMON | {b"image"}
_EVENT = _COMMON | {b"values", b"channel", b"value", b"kind"}


@dataclass(slots=True)
class Envelope:
    """What every input carries beside its content.

    Attributes:
        entry_id: id of the entry in its stream, `1234-0`.
        added_ms: when it was added, the time part of the id.
        source: a valid source name of this partition.
        ts_ms: Unix milliseconds; the entry id's time when the publisher gave none.
        producer: the publisher's run, with `seq` its number; None when it numbers nothing.
        meta: the msgpack map as it came, echoed in results.
        traceparent: W3C trace context, echoed in results.
    """

    entry_id: bytes
    added_ms: int
    source: str
    ts_ms: int
    producer: str | None = None
    seq: int | None = None
    meta: bytes | None = None
    traceparent: bytes | None = None

    def echo(self) -> list[bytes | str | int]:
        """Give the optional fields that a result repeats, as a flat field list."""
        fields: list[bytes | str | int] = []
        if self.producer is not None and self.seq is not None:
            fields += ["seq", self.seq, "producer", self.producer]
        if self.meta is not None:
            fields += ["meta", self.meta]
        if self.traceparent is not None:
            fields += ["traceparent", self.traceparent]
        return fields


@dataclass(slots=True)
class FrameEntry:
    """One picture as it was published; `image` is JPEG, PNG or WebP bytes, not yet looked at."""

    envelope: Envelope
    image: bytes


@dataclass(slots=True)
class EventEntry:
    """One observation; `values` is empty for a heartbeat only."""

    envelope: Envelope
    values: dict[str, float]
    kind: str | None


def id_ms(entry_id: bytes) -> int:
    """Give the time part of an entry id, Unix ms."""
    return int(entry_id.partition(b"-")[0])


def id_key(entry_id: bytes) -> tuple[int, int]:
    """Give an entry id as a pair that sorts as Redis sorts ids."""
    ms, _, seq = entry_id.partition(b"-")
    return int(ms), int(seq or 0)


def bad_field(message: str) -> EntryError:
    """Make the error of a field that breaks a rule."""
    return EntryError(Reason.BAD_FIELD, message)


def _text(fields: Fields, name: bytes) -> str | None:
    raw = fields.get(name)
    if raw is None:
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise bad_field(f"{name.decode()}: not UTF-8 text") from None


def _number(raw: bytes, name: str) -> int:
    if not _DIGITS.match(raw) or (number := int(raw)) > MAX_NUMBER:
        raise bad_field(f"{name}: expected a whole number from 0 to 2^53, got {shown(raw)}")
    return number


def shown(raw: bytes) -> str:
    """Give bytes of a stranger as an error message may hold them."""
    return repr(raw[:40].decode(errors="replace")) + ("…" if len(raw) > 40 else "")


def source_of(fields: Fields) -> str | None:
    """Give the source an entry claims, or None when it names none that is valid."""
    try:
        name = _text(fields, b"source")
    except EntryError:
        return None
    return name if name is not None and is_source(name) else None


def _place(raw: bytes, partitions: int) -> tuple[str, int]:
    """Check a source's name; gives it and its partition."""
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        raise bad_field("source: not UTF-8 text") from None
    if not is_source(name):
        raise bad_field(f"source: {name[:140]!r} is not 1 to 128 characters of A-Z a-z 0-9 . _ : -")
    return name, partition_of(name, partitions)


def _source(fields: Fields, partition: int, partitions: int) -> str:
    raw = fields.get(b"source")
    if raw is None:
        raise bad_field("source: missing")
    name, right = _place(raw, partitions)
    if right != partition:
        raise EntryError(
            Reason.WRONG_PARTITION,
            f"source {name} belongs to {{{tag_of(right)}}}, this is {{{tag_of(partition)}}} "
            f"of {partitions}",
        )
    return name


def _meta(fields: Fields) -> bytes:
    raw = fields[b"meta"]
    if len(raw) > MAX_META_BYTES:
        raise bad_field(f"meta: {len(raw)} bytes, at most {MAX_META_BYTES}")
    if not isinstance(unpack(raw, "meta"), dict):
        raise bad_field("meta: not a msgpack map")
    return raw


def unpack(raw: bytes, name: str) -> Any:
    """Decode msgpack of a stranger.

    Raises:
        EntryError: the bytes are no msgpack value (bad_field).
    """
    try:
        return msgpack.unpackb(raw, strict_map_key=False)
    except (ValueError, RecursionError, TypeError, OverflowError) as error:
        raise bad_field(f"{name}: not msgpack ({type(error).__name__}: {error})") from error


def _ts(raw: bytes, added_ms: int) -> int:
    ts_ms = _number(raw, "ts")
    if ts_ms > added_ms + MAX_AHEAD_MS:
        raise bad_field(
            f"ts: {ts_ms} is {ts_ms - added_ms} ms ahead of the entry id, at most 60000"
        )
    return ts_ms


def _sequence(fields: Fields) -> tuple[str | None, int | None]:
    producer, seq = fields.get(b"producer"), fields.get(b"seq")
    if producer is None and seq is None:
        return None, None
    if producer is None or seq is None:
        missing = "producer" if producer is None else "seq"
        raise bad_field(f"{missing}: missing; seq and producer come together or not at all")
    return _producer(producer), _number(seq, "seq")


def _producer(raw: bytes) -> str:
    name = raw.decode(errors="replace")
    if not is_source(name):
        raise bad_field("producer: not 1 to 128 characters of A-Z a-z 0-9 . _ : -")
    return name


def read_envelope(entry_id: bytes, fields: Fields, partition: int, partitions: int) -> Envelope:
    """Read what every entry carries.

    Raises:
        EntryError: bad_field or wrong_partition.
    """
    source, added_ms = _source(fields, partition, partitions), id_ms(entry_id)
    raw_ts = fields.get(b"ts")
    ts_ms = added_ms if raw_ts is None else _ts(raw_ts, added_ms)
    producer, seq = _sequence(fields)
    traceparent = fields.get(b"traceparent")
    if traceparent is not None and not _TRACEPARENT.match(traceparent):
        raise bad_field(f"traceparent: not a W3C trace context: {shown(traceparent)}")
    meta = _meta(fields) if b"meta" in fields else None
    return Envelope(entry_id, added_ms, source, ts_ms, producer, seq, meta, traceparent)


def _known(fields: Fields, known: frozenset[bytes]) -> None:
    if not fields.keys() <= known:
        stranger = min(fields.keys() - known)
        names = ", ".join(sorted(name.decode() for name in known))
        raise bad_field(f"{shown(stranger)}: no such field; this stream has {names}")


def read_frame(entry_id: bytes, fields: Fields, partition: int, partitions: int) -> FrameEntry:
    """Read an entry of `frames` or `recordings`; the picture itself is checked by `image`.

    Raises:
        EntryError: bad_field or wrong_partition.
    """
    _known(fields, _FRAME)
    envelope = read_envelope(entry_id, fields, partition, partitions)
    image = fields.get(b"image")
    if not image:
        raise bad_field("image: missing or empty")
    return FrameEntry(envelope, image)


def read_event(entry_id: bytes, fields: Fields, partition: int, partitions: int) -> EventEntry:
    """Read an entry of `events`.

    Raises:
        EntryError: bad_field or wrong_partition.
    """
    _known(fields, _EVENT)
    envelope = read_envelope(entry_id, fields, partition, partitions)
    kind = _text(fields, b"kind") if b"kind" in fields else None
    if kind is not None and not 1 <= len(kind) <= 64:
        raise bad_field("kind: 1 to 64 characters")
    values = _values(fields)
    if not values and kind != "heartbeat":
        raise bad_field("values: missing; give values, or channel with value, or kind heartbeat")
    return EventEntry(envelope, values, kind)


def _values(fields: Fields) -> dict[str, float]:
    packed, channel, value = (fields.get(n) for n in (b"values", b"channel", b"value"))
    if packed is not None:
        if channel is not None or value is not None:
            raise bad_field("values: give either values or the pair channel and value")
        return check_values(unpack(packed, "values"))
    if channel is None and value is None:
        return {}
    if channel is None or value is None:
        raise bad_field(f"{'channel' if channel is None else 'value'}: missing beside its pair")
    name = _text(fields, b"channel") or ""
    try:
        number = float(value)
    except ValueError:
        raise bad_field(f"value: not a number: {shown(value)}") from None
    return check_values({name: number})


_is_channel = lru_cache(maxsize=1024)(is_channel)


def check_values(values: object) -> dict[str, float]:
    """Check a map of channel to finite number and give it as floats.

    Raises:
        EntryError: bad_field, naming the first channel that is wrong.
    """
    if type(values) is not dict:
        raise bad_field(f"values: expected a map of channel to number, got {type(values).__name__}")
    for name, number in values.items():
        if type(name) is not str or not _is_channel(name):
            raise bad_field(
                f"values: {str(name)[:80]!r} is not 1 to 64 characters of a channel name"
            )
        if type(number) is not float:
            if type(number) is not int:
                raise bad_field(f"values: {name} is {type(number).__name__}, not a number")
            if abs(number) > MAX_NUMBER:
                raise bad_field(f"values: {name} is beyond 2^53")
            values[name] = float(number)
        if not math.isfinite(number):
            raise bad_field(f"values: {name} is {number}, not finite")
    return values


def pack(value: object) -> bytes:
    """Encode a value as msgpack."""
    packed: bytes = _PACKER.pack(value)
    return packed
