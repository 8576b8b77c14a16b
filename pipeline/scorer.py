"""One partition's scoring: inputs in, what a commit writes out. No I/O, no clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import itemgetter

from pipeline.errors import EntryError
from pipeline.log import get_logger
from pipeline.memory import AT_REST, Memory, Remembered, Written, is_at_rest
from pipeline.ownership import SourceWrite
from pipeline.score_entries import (
    EVENT,
    FRAME,
    TICK,
    Evaluation,
    Field,
    Scored,
    describe,
    score_fields,
)
from pipeline.score_frames import FrameTracker
from pipeline.score_inputs import Input, Inputs
from pipeline.score_rows import Call, Stepped
from pipeline.score_writes import NO_TROUBLE, Trouble, write, write_trouble
from pipeline.scoring import batch as columns
from pipeline.scoring.engine import Engine
from pipeline.scoring.journal import replayed, tick
from pipeline.scoring.parameters import PHASES
from pipeline.tracker import TrackerState
from pipeline.wire import id_ms
from pipeline.wire_results import DetectionEntry, dead_fields

SILENT_MS = 1000
"""A source silent for longer is ticked."""
TICK_GRACE_MS = 500
"""A tick stays so far behind the clock, so that an input on its way is not late."""
SHOWN_STEP = 0.05
"""A tick is shown when the level has moved so far (CONTRACT 4)."""
COLD_MS = 300_000
"""A source at rest and silent for longer leaves the memory until its next input, at the latest."""
EVALUATED_AT_ONCE = 64
"""Evaluations after which a call of `tick` looks at no further source; some 2 ms."""
MOST_AHEAD = 31
"""Evaluations that a tick looks ahead at most."""
_MOST_SHOWN = 256
"""Evaluations kept ready to be written, 1.7 KB each; one lasts until the next of its source."""


@dataclass(slots=True)
class Result:
    """What a commit writes beside its cursors.

    Attributes:
        refused: by ledger term.
        oldest_ms: of each entry of events, when the first of them was added.
    """

    scores: list[list[Field]] = field(default_factory=list)
    sources: list[SourceWrite] = field(default_factory=list)
    dead: list[list[Field]] = field(default_factory=list)
    scored: Counter[str] = field(default_factory=Counter)
    late: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    oldest_ms: list[int] = field(default_factory=list)
    evaluations: int = 0

    def ledger(self) -> Counter[str]:
        """Give the terms of CONTRACT 6 that the commit adds to."""
        terms = Counter(self.refused)
        for kind in (EVENT, FRAME):
            terms[f"{kind}s_scored"] = self.scored[kind]
            terms[f"{kind}s_late"] = self.late[kind]
        return terms


class PartitionScorer:
    """Scores the sources of one partition, in the order in which their inputs are given.

    A source at rest leaves the memory before what is kept of it elsewhere expires: whether it goes
    on or begins anew is then the same with every owner.

    Attributes:
        engine: scores; nobody else steps it.
        reached_ms: of `frames` and `recordings` the time up to which all that was added is scored;
            now, where one is not named.
        kept_ms: what is remembered of a source outlives its last input so long.
    """

    def __init__(self, engine: Engine, kept_ms: int = 86_400_000) -> None:
        self._engine = engine
        self._cold_ms = min(COLD_MS, kept_ms // 2)
        self._memories: dict[str, Memory] = {}
        self._frames = FrameTracker()
        self._shown: dict[str, Evaluation] = {}
        self._due: list[str] = []
        self.reached_ms: Mapping[str, int] = {}

    def __len__(self) -> int:
        return len(self._memories)

    def unknown(self, sources: Iterable[str]) -> list[str]:
        """Give those sources whose memory must be recalled before their inputs are scored."""
        return [name for name in sources if name not in self._memories]

    def learn(self, remembered: Mapping[str, Remembered | None]) -> None:
        """Take over what is remembered of sources; None begins anew."""
        journals = []
        for source, kept in remembered.items():
            slot = self._engine.slot(source)
            self._memories[source] = Memory(slot)
            self._shown.pop(source, None)
            if kept is None:
                continue
            try:
                journals += self._restore(source, kept)
            except ValueError as error:
                get_logger().error("memory_unreadable", source=source, error=str(error))
        self._engine.replay(journals)

    def _restore(self, source: str, kept: Remembered) -> list[tuple[int, bytes]]:
        """Restore a source up to its journal, which is given back.

        What is remembered of it outlives tracks and a state that cannot be continued.

        Raises:
            ValueError: it is damaged.
        """
        memory = Memory.of(self._engine.slot(source), kept.facts)
        self._memories[source] = memory
        try:
            if memory.tracker:
                TrackerState.from_bytes(memory.tracker)  # readable, or it goes
        except ValueError as error:
            get_logger().error("tracks_unreadable", source=source, error=str(error))
            memory.tracker = b""
        try:
            replayed([(0, kept.journal)])  # a damaged one raises before anything is taken over
            memory.slot = self._engine.restore(source, kept.state)
        except ValueError as error:
            get_logger().error("score_state_unreadable", source=source, error=str(error))
        if self._engine.source_ts(memory.slot) is None:
            return []  # unreadable, of other parameters or another map: begun anew, written whole
        memory.written.assignment = self._engine.assignment(memory.slot)
        memory.written.journal_bytes = len(kept.journal)
        return [(memory.slot, kept.journal)]

    def unlearn(self, sources: Iterable[str]) -> None:
        """Note that nothing is kept of these sources any more, so that they are written whole."""
        for source in sources:
            self._memories[source].written = Written()

    def score(self, inputs: Inputs, now_ms: int) -> Result:
        """Score inputs; each ends in a score, a dead letter or a counted duplicate."""
        result, call = Result(), Call(inputs)
        for index, source in enumerate(inputs.source):
            if index in inputs.bad:
                _bury(inputs.bad[index], call, result)
                continue
            try:
                if index in inputs.frames:
                    self._prepare_frame(index, inputs.frames[index], call)
                else:
                    self._prepare_event(index, source, call, result)
            except EntryError as error:
                _bury(inputs.spoil(index, error), call, result)
        if call.rows:
            self._finish(call, result, now_ms)
        named = {write.name for write in result.sources}
        for name in call.problems.keys() - named:
            trouble = Trouble(call.problems[name], call.deaths[name])
            result.sources.append(write_trouble(name, trouble))
        return result

    def _prepare_event(self, index: int, source: str, call: Call, result: Result) -> None:
        inputs, memory = call.inputs, self._memories[source]
        values = inputs.values[index]
        producer, seq = inputs.producer[index], inputs.seq[index]
        if memory.has_seen(producer, seq, added_ms := inputs.added_ms[index]):
            result.refused["events_dropped_duplicate"] += 1
            call.problems[source] = f"duplicate of {producer} number {seq}"
            return
        codes, numbers = self._engine.encode_event(memory.slot, values)
        memory.accept(producer, seq, added_ms)
        kind = columns.EVENT if values else columns.HEARTBEAT
        call.builder.add(memory.slot, inputs.ts_ms[index], kind, codes, numbers)
        call.rows.append(index)

    def _prepare_frame(self, index: int, frame: DetectionEntry, call: Call) -> None:
        head = frame.envelope
        memory = self._memories[head.source]
        seen = self._frames.see(frame, memory)
        codes, values = self._engine.encode_frame(memory.slot, seen.values)
        call.seen[len(call.rows)] = seen
        call.builder.add(memory.slot, head.ts_ms, columns.FRAME, codes, values)
        call.rows.append(index)

    def _finish(self, call: Call, result: Result, now_ms: int) -> None:
        """Run the engine, then build score entries and state writes."""
        after = Stepped.of(call, self._engine)
        result.evaluations = after.stepped.evaluations
        newest: dict[str, Scored] = {}
        entries: list[tuple[int, list[Field]]] = []
        for number, row in enumerate(after.first):
            one = self._scored(call, after, number)
            newest[one.source] = one
            result.scored[one.kind] += one.inputs
            result.late[one.kind] += one.inputs * one.is_late
            if one.kind == EVENT:
                result.oldest_ms.append(call.inputs.added_ms[call.rows[row]])
            entries.append((row, score_fields(one, now_ms)))
        result.scores += [fields for _, fields in sorted(entries, key=itemgetter(0))]
        for one in newest.values():
            slot = self._memories[one.source].slot
            result.sources.append(self._write(one, after.records[slot], call))

    def _scored(self, call: Call, after: Stepped, number: int) -> Scored:
        """Give a group of rows as one score entry and remember its inputs."""
        inputs, row, end = call.inputs, after.first[number], after.last[number]
        first, last = call.rows[row], call.rows[end]
        source, size, is_late = inputs.source[last], after.size[number], after.late[end]
        memory, frame, seen = self._memories[source], inputs.frames.get(last), call.seen.get(end)
        memory.hear(size, after.added_ms[number], after.ts_ms[number], is_frame=frame is not None)
        memory.late += size * is_late
        shown = self._show(source, memory.slot, after.stepped, end, after.level_ts[end])
        was = memory.phase
        memory.show(shown.level, shown.phase)
        producer = inputs.producer[last]
        one = Scored(
            EVENT,
            source,
            size,
            memory.count,
            inputs.entry_id[first],
            inputs.entry_id[last],
            inputs.ts_ms[last],
            was,
            shown,
            is_late,
            (producer, inputs.seq[first], inputs.seq[last]) if producer else None,
            inputs.echoes.get(last),
        )
        if frame is not None and seen is not None:
            one.kind, one.first, one.last = FRAME, frame.frame, frame.frame
            one.echo, one.tracks = frame.envelope, seen.tracks
        return one

    def _show(
        self, source: str, slot: int, stepped: columns.StepResult, row: int, level_ts: int
    ) -> Evaluation:
        """Give what a source's newest evaluation says, prepared once and used until the next."""
        shown = self._shown.get(source)
        if shown is None or shown.level_ts != level_ts:
            snapshot = stepped.snapshots[stepped.snapshot[row]]
            level, phase = float(stepped.level[row]), PHASES[stepped.phase[row]]
            shown = describe(level, phase, level_ts, self._engine.data(slot, snapshot))
            if len(self._shown) >= _MOST_SHOWN:
                self._shown.popitem()  # the newest: of too many in turn, most stay and are used
            self._shown[source] = shown
        return shown

    @property
    def is_ticking(self) -> bool:
        """Whether silent sources are left for the next call of `tick`."""
        return bool(self._due)

    def look_for_silence(self, now_ms: int) -> None:
        """Find what `tick` is to look at, unless some of it is left from before."""
        self._due = self._due or self._silent(now_ms)

    def tick(self, now_ms: int) -> Result:
        """Show the silence of sources whose phase or level has moved enough.

        Only a tick that is shown is an input: the others look ahead and leave the source as it is,
        so that a straggler is judged by what has been written, here and on the next owner. As what
        they evaluate is lost, they look as far ahead again as the silence lasts, and the source
        rests until something is to be shown. A call looks at a few sources, so that inputs wait
        little; the next goes on from there.
        """
        self.look_for_silence(now_ms)
        result, call = Result(), Call(Inputs())
        ticked = self._look_ahead(now_ms, call.builder)
        stepped = self._engine.peek(call.builder.build())
        result.evaluations = stepped.evaluations
        for rows, source, at_ms in ticked:
            memory, row = self._memories[source], rows.start
            before, now = memory.shown, _shown_by(stepped, row)
            if not _is_worth_showing(before, now):
                memory.rests_ms = self._rests_ms(memory, stepped, rows)
                continue
            self._engine.step(columns.one_tick(memory.slot, at_ms))
            memory.rests_ms = 0
            shown = self._show(source, memory.slot, stepped, row, int(stepped.level_ts[row]))
            one = Scored(TICK, source, 0, memory.count, b"", b"", at_ms, before[1], shown)
            memory.show(*now)
            result.scores.append(score_fields(one, now_ms))
            result.sources.append(self._write(one, tick(at_ms), call))
        return result

    def _look_ahead(
        self, now_ms: int, builder: columns.InputBuilder
    ) -> list[tuple[range, str, int]]:
        """Add ticks of the next sources that are due, one an evaluation, the first of each now.

        Returns:
            rows in the batch, source, time of the first tick.
        """
        ticked, evaluations, looked = [], 0, 0
        for source in self._due:
            if evaluations >= EVALUATED_AT_ONCE:
                break
            looked += 1
            memory = self._memories.get(source)
            silent_ms = 0 if memory is None else self._silent_ms(source, memory, now_ms)
            if memory is None or silent_ms < max(SILENT_MS, memory.rests_ms):
                continue
            at_ms = memory.newest_ms + silent_ms - TICK_GRACE_MS
            first, hop_ms = len(builder), self._engine.hop_ms(memory.slot)
            passed = silent_ms // hop_ms
            for k in range(min(max(passed, 1), MOST_AHEAD)):
                builder.add(memory.slot, at_ms + hop_ms * k, columns.TICK)
            ticked.append((range(first, len(builder)), source, at_ms))
            evaluations += passed + len(builder) - first
        self._due = self._due[looked:]
        return ticked

    def _rests_ms(self, memory: Memory, stepped: columns.StepResult, rows: range) -> int:
        """Give how long a source is silent before another evaluation may be worth showing.

        It is the next after the last one that these ticks have found not to be.
        """
        last = rows.start
        for row in rows:
            if _is_worth_showing(memory.shown, _shown_by(stepped, row)):
                break
            last = row
        next_ms = int(stepped.level_ts[last]) + self._engine.hop_ms(memory.slot)
        return next_ms - memory.newest_ms + TICK_GRACE_MS

    def _silent(self, now_ms: int) -> list[str]:
        """Give the sources that silence changes; those that have long been at rest go."""
        silent = []
        for source, memory in list(self._memories.items()):
            memory.heard_ms = memory.heard_ms or now_ms  # nothing of it has been scored yet
            silent_ms = self._silent_ms(source, memory, now_ms)
            if silent_ms < SILENT_MS:
                continue
            if memory.shown != AT_REST or silent_ms < self._fades_ms(source):
                if silent_ms >= memory.rests_ms:
                    silent.append(source)
            elif silent_ms > self._cold_ms:
                self._forget(source)
        return silent

    def _silent_ms(self, source: str, memory: Memory, now_ms: int) -> int:
        """Give how long a source has been silent.

        Frames that are still to be detected are no silence: where a source has lately sent some,
        time passes as far as their stream has been worked off.
        """
        for stream, newest in memory.newest_frame:
            reached_ms = self.reached_ms.get(stream, now_ms)
            if reached_ms < id_ms(newest) + self._fades_ms(source):
                now_ms = min(now_ms, reached_ms)
        return now_ms - memory.heard_ms

    def _fades_ms(self, source: str) -> int:
        return self._engine.fades_ms(source) + TICK_GRACE_MS

    def is_moving(self, source: str, facts: bytes, now_ms: int) -> bool:
        """Tell of a source that is not in memory whether silence still changes it."""
        return not is_at_rest(facts, now_ms - self._fades_ms(source))

    def _forget(self, source: str) -> None:
        self._engine.forget(source)
        self._shown.pop(source, None)
        del self._memories[source]

    def _write(self, newest: Scored, record: bytes, call: Call) -> SourceWrite:
        """Give what is written of a source of which something was scored or is shown."""
        source, trouble = newest.source, NO_TROUBLE
        memory = self._memories[source]
        if source in call.problems:
            trouble = Trouble(call.problems[source], call.deaths[source])
        return write(newest, memory, trouble, self._engine, record)


def _bury(one: Input, call: Call, result: Result) -> None:
    assert isinstance(one.value, EntryError)
    error = one.value
    result.dead.append(dead_fields(one.stream, one.entry_id, one.fields, error, 1))
    result.refused["events_dead" if one.stream == "events" else "detections_dead"] += 1
    source = one.claimed_source
    if source is not None:
        call.problems[source] = f"{error.reason.value}: {error}"[:300]
        call.deaths[source] += 1


def _shown_by(stepped: columns.StepResult, row: int) -> tuple[float, str]:
    return float(stepped.level[row]), PHASES[stepped.phase[row]]


def _is_worth_showing(shown: tuple[float, str], now: tuple[float, str]) -> bool:
    """Tell whether phase or level has moved, or come to rest: what is shown last is how it is."""
    moved = abs(now[0] - shown[0]) >= SHOWN_STEP or now[1] != shown[1]
    return moved or now == AT_REST != shown
