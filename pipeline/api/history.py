"""How the level of every source went: one row a second, for as long as memory has room."""

from __future__ import annotations

import math
from array import array
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.api.encoding import decode
from pipeline.api.held import Item

STEP_MS = 1000
ROWS = 600
SOURCES = 1000
TRANSITIONS = 50
PHASES = ("dormant", "awakening", "active", "focused", "emergent")
COMPONENTS = ("arousal", "differentiation", "integration", "workspace", "novelty")
COLUMNS = (
    "at_s", "level", "phase", "confidence", *COMPONENTS, "tracks", "frames", "events", "latency_ms",
)  # fmt: skip
_WIDTH = len(COLUMNS)
_FRAMES, _EVENTS, _LATENCY = (COLUMNS.index(name) for name in ("frames", "events", "latency_ms"))
_TRACKS = COLUMNS.index("tracks")
_NONE = math.nan


@dataclass(slots=True)
class _Past:
    """One source: rows one behind the other, oldest first."""

    rows: array[float] = field(default_factory=lambda: array("d"))
    transitions: deque[tuple[int, str]] = field(default_factory=lambda: deque(maxlen=TRANSITIONS))
    is_filled: bool = False
    touched_ms: int = 0

    def note(self, at_ms: int, score: Mapping[str, Any]) -> None:
        """Put a score in the row of its second; the newest of a second counts, inputs add up."""
        rows, row = self.rows, _row(at_ms, score)
        if rows and rows[-_WIDTH] >= row[0]:
            for column in (_FRAMES, _EVENTS):
                row[column] += rows[column - _WIDTH]
            row[_LATENCY] = _most(row[_LATENCY], rows[_LATENCY - _WIDTH])
            row[0] = rows[-_WIDTH]
            if math.isnan(row[_TRACKS]):
                row[_TRACKS] = rows[_TRACKS - _WIDTH]
            rows[-_WIDTH:] = array("d", row)
        else:
            if rows and math.isnan(row[_TRACKS]):
                row[_TRACKS] = rows[_TRACKS - _WIDTH]
            rows.extend(row)
        if len(rows) > ROWS * _WIDTH:
            del rows[:_WIDTH]
        if transition := score.get("transition"):
            self.transitions.append((at_ms, str(transition)))

    def put_before(self, older: _Past) -> None:
        """Add what was before the first row."""
        first = self.rows[0] if self.rows else math.inf
        count = sum(second < first for second in older.rows[::_WIDTH])
        self.rows = (older.rows[: count * _WIDTH] + self.rows)[-ROWS * _WIDTH :]
        since_ms = self.transitions[0][0] if self.transitions else math.inf
        self.transitions.extendleft(t for t in reversed(older.transitions) if t[0] < since_ms)


class History:
    """The past of the sources that were active last.

    Args:
        look_up: gives the scores held of a source, oldest first, also from before we began.
        quiet_ms: a source that was neither scored nor asked for so long is forgotten.
    """

    def __init__(self, look_up: Callable[[str], Awaitable[Iterable[Item]]], quiet_ms: int) -> None:
        self._look_up = look_up
        self._quiet_ms = quiet_ms
        self._now_ms = 0
        self._pasts: OrderedDict[str, _Past] = OrderedDict()
        """The quietest first."""

    def note(self, source: str, at_ms: int, score: Mapping[str, Any]) -> None:
        """Add a score as it comes.

        Args:
            source: whose it is.
            at_ms: when the entry was written, Redis's clock.
            score: the entry's fields.
        """
        self._now_ms = max(self._now_ms, at_ms)
        self._past(source).note(at_ms, score)

    async def get(self, source: str) -> dict[str, Any]:
        """Give the past of a source for JSON.

        Raises:
            DependencyError: Redis is away.
        """
        past = self._pasts.get(source)
        if past is None or not past.is_filled:
            older = _Past()
            for item in await self._look_up(source):
                older.note(item.position[0], decode(item.body))
            past = self._past(source)
            past.put_before(older)
            past.is_filled = True
        rows = past.rows.tolist()
        return {
            "source": source,
            "step_ms": STEP_MS,
            "columns": COLUMNS,
            "rows": [rows[first : first + _WIDTH] for first in range(0, len(rows), _WIDTH)],
            "transitions": [{"ts": at_ms, "transition": each} for at_ms, each in past.transitions],
        }

    def _past(self, source: str) -> _Past:
        past = self._pasts.setdefault(source, _Past())
        past.touched_ms = self._now_ms
        self._pasts.move_to_end(source)
        since_ms = self._now_ms - self._quiet_ms
        while len(self._pasts) > SOURCES or next(iter(self._pasts.values())).touched_ms < since_ms:
            self._pasts.popitem(last=False)
        return past


def _row(at_ms: int, score: Mapping[str, Any]) -> list[float]:
    components = score.get("components")
    parts = components if isinstance(components, Mapping) else {}
    tracks, kind = score.get("tracks"), score.get("kind")
    phase = score.get("phase")
    inputs = _number(score.get("inputs"))
    return [
        float(at_ms // STEP_MS),
        _number(score.get("level")),
        float(PHASES.index(phase)) if phase in PHASES else _NONE,
        _number(score.get("confidence")),
        *(_number(parts.get(name)) for name in COMPONENTS),
        float(len(tracks)) if isinstance(tracks, list) else _NONE,
        inputs if kind == "frame" else 0.0,
        inputs if kind == "event" else 0.0,
        _number(score.get("latency_ms")),
    ]


def _number(value: object) -> float:
    return round(float(value), 4) if isinstance(value, (int, float)) else _NONE


def _most(one: float, other: float) -> float:
    return other if math.isnan(one) else one if math.isnan(other) else max(one, other)
