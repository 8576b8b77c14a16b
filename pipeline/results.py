"""Results and states as readers get them, and the cursor at which reading goes on."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline import wire, wire_results
from pipeline.errors import EntryError, SettingsError
from pipeline.partition import tag_of

Kind = Literal["detections", "scores"]
KINDS: tuple[Kind, ...] = ("detections", "scores")

Stream = tuple[int, int]
"""Number of the partition, index in `KINDS`."""
Position = tuple[int, int, int]
"""Last id read as two numbers, and how many entries the stream had ever had up to there."""

_CURSOR_VERSION = 1
_STATE_TEXTS = frozenset(
    ("phase", "last_problem", "map_version", "engine_version", "model", "note")
)
_STATE_FLOATS = frozenset(
    ("level", "arousal", "differentiation", "integration", "workspace", "novelty", "confidence")
)


@dataclass(frozen=True, slots=True)
class Result:
    """One entry of `detections` or `scores`.

    Attributes:
        kind: which of the two.
        id: its id with the partition, `p000/1234-0`.
        source: whose it is.
        ts_ms: time of its input, Unix ms.
        fields: the entry's fields with `data` merged in, numbers as numbers (CONTRACT 4).
        missed: entries, of any source, that were removed after the result before this one and
            before they could be read; at least 1 when the stream itself was deleted meanwhile.
    """

    kind: Kind
    id: str
    source: str
    ts_ms: int
    fields: Mapping[str, Any]
    missed: int = 0
    positions: Mapping[Stream, Position] = field(default_factory=dict, repr=False)

    @property
    def cursor(self) -> str:
        """Opaque text with which `follow` goes on after this result."""
        return write_cursor(self.positions)

    def as_json(self) -> dict[str, Any]:
        """Give the result for JSON: its fields, `id`, and `result` for which kind it is."""
        missed = {"missed": self.missed} if self.missed else {}
        return {"result": self.kind, "id": self.id, **missed, **_plain(self.fields)}


def read_entry(stream: Stream, entry_id: bytes, fields: wire.Fields) -> Result | None:
    """Read an entry as a result without positions; None when it is not one of ours."""
    try:
        values = wire_results.read_result(fields)
        source, ts_ms = str(values["source"]), int(values["ts"])
    except (EntryError, ValueError, KeyError, TypeError):
        return None
    name = f"{tag_of(stream[0])}/{entry_id.decode()}"
    return Result(KINDS[stream[1]], name, source, ts_ms, values)


def read_state(fields: wire.Fields) -> dict[str, Any]:
    """Give a cached state with numbers as numbers; a field that is no number stays text."""
    state: dict[str, Any] = {}
    for raw_name, raw in fields.items():
        name, text = raw_name.decode(errors="replace"), raw.decode(errors="replace")
        state[name] = text if name in _STATE_TEXTS else _number(text, name in _STATE_FLOATS)
    return state


def _number(text: str, is_float: bool) -> float | str:
    try:
        return float(text) if is_float or not text.lstrip("-").isdecimal() else int(text)
    except ValueError:
        return text


def write_cursor(positions: Mapping[Stream, Position]) -> str:
    """Encode positions as short URL-safe text."""
    rows = [(*stream, *position) for stream, position in sorted(positions.items())]
    packed = zlib.compress(wire.pack([_CURSOR_VERSION, rows]), 6)
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def read_cursor(cursor: str) -> dict[Stream, Position]:
    """Decode what `write_cursor` wrote.

    Raises:
        SettingsError: it is no cursor.
    """
    try:
        packed = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        version, rows = wire.unpack(_inflate(packed), "cursor")
        found = {(partition, kind): (ms, seq, n) for partition, kind, ms, seq, n in rows}
    except (ValueError, TypeError, binascii.Error, zlib.error, EntryError) as error:
        raise SettingsError(f"{cursor[:40]!r} is not a cursor of follow ({error})") from error
    numbers = [number for stream, position in found.items() for number in (*stream, *position)]
    if version != _CURSOR_VERSION or any(type(n) is not int or n < 0 for n in numbers):
        raise SettingsError(f"{cursor[:40]!r} is not a cursor of follow")
    return found


def _inflate(packed: bytes) -> bytes:
    """Unpack what a stranger sent without letting it grow beyond what a cursor can be."""
    return zlib.decompressobj().decompress(packed, 1 << 20)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(_plain(name)): _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value.decode(errors="replace") if isinstance(value, bytes) else value
