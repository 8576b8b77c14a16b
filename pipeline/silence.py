"""Which sources of a partition are silent, for how long, and when that may show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from pipeline.memory import AT_REST, Memory, is_at_rest
from pipeline.scoring.batch import TICK, InputBuilder, StepResult
from pipeline.scoring.engine import Engine
from pipeline.scoring.parameters import PHASES
from pipeline.wire import id_ms

SILENT_MS = 1000
"""A source silent for longer is ticked."""
TICK_GRACE_MS = 500
"""A tick stays so far behind the clock, so that an input on its way is not late."""
SHOWN_STEP = 0.05
"""A tick is shown when the level has moved so far (CONTRACT 4)."""
COLD_MS = 300_000
"""A source at rest and silent for longer leaves the memory until its next input, at the latest."""
EVALUATED_AT_ONCE = 64
"""Evaluations after which no further source is looked at; some 2 ms."""
MOST_AHEAD = 31
"""Evaluations that are looked ahead at most."""

Shown = tuple[float, str]
"""Level and phase."""


class Look(NamedTuple):
    """Ticks of one source in a batch, one an evaluation.

    Attributes:
        source: its name.
        at_ms: time of the first tick, which is as of now.
        rows: of the batch.
    """

    source: str
    at_ms: int
    rows: range


class Silence:
    """Looks for silent sources among those in memory; the caller brings the clock.

    What a tick evaluates is lost unless it is shown, so each looks as far ahead again as it is from
    what the engine knows, and the source rests until an evaluation may be worth showing.

    Attributes:
        reached_ms: of `frames` and `recordings` the time up to which all that was added is scored;
            now, where one is not named.
    """

    def __init__(self, engine: Engine, memories: Mapping[str, Memory], kept_ms: int) -> None:
        self.reached_ms: Mapping[str, int] = {}
        self._engine = engine
        self._memories = memories
        self._cold_ms = min(COLD_MS, kept_ms // 2)
        self._due: list[str] = []

    @property
    def is_due(self) -> bool:
        """Whether sources that were found are left for the next look."""
        return bool(self._due)

    def find(self, now_ms: int) -> list[str]:
        """Find the sources that silence may have changed; gives those that are to be forgotten."""
        self._due, cold = [], []
        for source, memory in list(self._memories.items()):
            memory.heard_ms = memory.heard_ms or now_ms  # nothing of it has been scored yet
            silent_ms = self.lasts_ms(source, memory, now_ms)
            if silent_ms < min(max(SILENT_MS, memory.rests_ms), self._cold_ms):
                continue
            if memory.shown != AT_REST or silent_ms < self._fades_ms(source):
                self._due.append(source)
            elif silent_ms > self._cold_ms:
                cold.append(source)
            else:
                memory.rests_ms = self._cold_ms
        return cold

    def look(self, now_ms: int, builder: InputBuilder) -> list[Look]:
        """Add ticks of some of the sources that were found; the next call goes on from there."""
        looks: list[Look] = []
        evaluations, looked = 0, 0
        for source in self._due:
            if evaluations >= EVALUATED_AT_ONCE:
                break
            looked += 1
            memory = self._memories.get(source)
            silent_ms = 0 if memory is None else self.lasts_ms(source, memory, now_ms)
            if memory is None or silent_ms < max(SILENT_MS, memory.rests_ms):
                continue
            at_ms = memory.newest_ms + silent_ms - TICK_GRACE_MS
            first, hop_ms = len(builder), self._engine.hop_ms(memory.slot)
            known_ms = self._engine.source_ts(memory.slot)
            passed = 0 if known_ms is None else max(0, at_ms - known_ms) // hop_ms
            for k in range(min(max(passed, 1), MOST_AHEAD)):
                builder.add(memory.slot, at_ms + hop_ms * k, TICK)
            looks.append(Look(source, at_ms, range(first, len(builder))))
            evaluations += passed + len(builder) - first
        self._due = self._due[looked:]
        return looks

    def rest(self, look: Look, stepped: StepResult) -> None:
        """Let a source rest until the evaluation after the last that is not worth showing."""
        memory, last = self._memories[look.source], look.rows.start
        for row in look.rows:
            if is_worth_showing(memory.shown, shown_by(stepped, row)):
                break
            last = row
        next_ms = int(stepped.level_ts[last]) + self._engine.hop_ms(memory.slot)
        memory.rests_ms = next_ms - memory.newest_ms + TICK_GRACE_MS

    def lasts_ms(self, source: str, memory: Memory, now_ms: int) -> int:
        """Give how long a source has been silent.

        Frames that are still to be detected are no silence: where a source has lately sent some,
        time passes as far as their stream has been worked off.
        """
        for stream, newest in memory.newest_frame:
            reached_ms = self.reached_ms.get(stream, now_ms)
            if reached_ms < id_ms(newest) + self._fades_ms(source):
                now_ms = min(now_ms, reached_ms)
        return now_ms - memory.heard_ms

    def may_change(self, source: str, facts: bytes, now_ms: int) -> bool:
        """Tell of a source that is not in memory whether silence still changes it."""
        return not is_at_rest(facts, now_ms - self._fades_ms(source))

    def _fades_ms(self, source: str) -> int:
        return self._engine.fades_ms(source) + TICK_GRACE_MS


def shown_by(stepped: StepResult, row: int) -> Shown:
    """Give what a row of a batch would show."""
    return float(stepped.level[row]), PHASES[stepped.phase[row]]


def is_worth_showing(shown: Shown, now: Shown) -> bool:
    """Tell whether phase or level has moved, or come to rest: what is shown last is how it is."""
    moved = abs(now[0] - shown[0]) >= SHOWN_STEP or now[1] != shown[1]
    return moved or now == AT_REST != shown
