"""Events as lines of text: JSON lines, or CSV with a header `ts,channel,value`."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable

from pipeline.errors import EntryError, Reason, SettingsError
from pipeline.outgoing import Event

MAX_LINE_BYTES = 1 << 20
_NAMES = frozenset(("ts", "values", "kind", "meta", "traceparent"))
_COLUMNS = frozenset(("ts", "channel", "value"))


class EventLines:
    """Reads lines of one source; the first that is not empty tells the format."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._parse: Callable[[str], Event] | None = None
        self._columns: list[str] = []

    def read(self, line: bytes) -> Event | None:
        """Read one line; None for an empty one and the header.

        Raises:
            EntryError: what is wrong with the line.
            SettingsError: the first line is neither JSON nor a header.
        """
        if len(line) > MAX_LINE_BYTES:
            raise _bad(f"{len(line)} bytes, at most {MAX_LINE_BYTES}")
        try:
            text = line.decode("utf-8-sig" if self._parse is None else "utf-8").strip()
        except UnicodeDecodeError:
            raise _bad("not UTF-8 text") from None
        if not text:
            return None
        if self._parse is None:
            if not text.startswith("{"):
                self._columns = _header(text)
                self._parse = self._from_csv
                return None
            self._parse = self._from_json
        return self._parse(text)

    def _from_json(self, text: str) -> Event:
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _bad(f"not JSON ({error})") from error
        if not isinstance(found, dict):
            raise _bad("not a JSON object")
        if stranger := next((name for name in found if name not in _NAMES), None):
            raise _bad(f"{stranger!r}: no such field; takes {', '.join(sorted(_NAMES))}")
        values = found.get("values", {})
        optional = (found.get(name) for name in ("ts", "kind", "meta", "traceparent"))
        return Event(self._source, values, *optional)

    def _from_csv(self, text: str) -> Event:
        try:
            cells = next(csv.reader([text], strict=True))
        except (csv.Error, StopIteration) as error:
            raise _bad(f"not CSV ({error})") from error
        if len(cells) != len(self._columns):
            raise _bad(f"{len(cells)} columns, the header has {len(self._columns)}")
        row = dict(zip(self._columns, (cell.strip() for cell in cells), strict=True))
        try:
            value = float(row["value"])
        except ValueError:
            raise _bad(f"value: not a number: {row['value'][:40]!r}") from None
        return Event(self._source, {row["channel"]: value}, _time(row.get("ts", "")))


def _header(text: str) -> list[str]:
    columns = [name.strip().lower() for name in text.split(",")]
    if not {"channel", "value"} <= set(columns) <= _COLUMNS or len(columns) != len(set(columns)):
        raise SettingsError(
            f"the first line is neither a JSON object nor a header ts,channel,value: {text[:80]!r}"
        )
    return columns


def _time(text: str) -> int | None:
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        raise _bad(f"ts: not whole Unix milliseconds: {text[:40]!r}") from None


def _bad(message: str) -> EntryError:
    return EntryError(Reason.BAD_FIELD, message)
