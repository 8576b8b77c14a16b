"""One partition's scoring: inputs in, what a commit writes out. No I/O, no clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import itemgetter

from pipeline.errors import EntryError
from pipeline.log import get_logger
from pipeline.memory import Memory, Remembered, Written
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
from pipeline.silence import Silence, is_worth_showing, shown_by
from pipeline.tracker import TrackerState
from pipeline.wire_results import DetectionEntry, dead_fields

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
        silence: of its sources.
        kept_ms: what is remembered of a source outlives its last input so long.
    """

    def __init__(self, engine: Engine, kept_ms: int = 86_400_000) -> None:
        self._engine = engine
        self._memories: dict[str, Memory] = {}
        self.silence = Silence(engine, self._memories, kept_ms)
        self._frames = FrameTracker()
        self._shown: dict[str, Evaluation] = {}

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

    def look_for_silence(self, now_ms: int) -> None:
        """Find what `tick` is to look at, unless some of it is left; those long at rest go."""
        if not self.silence.is_due:
            for source in self.silence.find(now_ms):
                self._forget(source)

    def tick(self, now_ms: int) -> Result:
        """Show the silence of sources whose phase or level has moved enough.

        Only a tick that is shown is an input: the others leave the source as it is, so that a
        straggler is judged by what has been written, here and on the next owner. A call looks at a
        few sources, so that inputs wait little; the next goes on from there.
        """
        self.look_for_silence(now_ms)
        result, call = Result(), Call(Inputs())
        looks = self.silence.look(now_ms, call.builder)
        stepped = self._engine.peek(call.builder.build())
        result.evaluations = stepped.evaluations
        for look in looks:
            source, at_ms, row = look.source, look.at_ms, look.rows.start
            memory = self._memories[source]
            before, now = memory.shown, shown_by(stepped, row)
            if not is_worth_showing(before, now):
                self.silence.rest(look, stepped)
                continue
            self._engine.step(columns.one_tick(memory.slot, at_ms))
            memory.rests_ms = 0
            shown = self._show(source, memory.slot, stepped, row, int(stepped.level_ts[row]))
            one = Scored(TICK, source, 0, memory.count, b"", b"", at_ms, before[1], shown)
            memory.show(*now)
            result.scores.append(score_fields(one, now_ms))
            result.sources.append(self._write(one, tick(at_ms), call))
        return result

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
