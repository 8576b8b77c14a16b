"""One partition's scoring: inputs in, what a commit writes out. No I/O, no clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import numpy as np

from pipeline.errors import EntryError
from pipeline.log import get_logger
from pipeline.memory import Memory, read_blob
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
from pipeline.score_frames import FrameTracker, Seen
from pipeline.score_groups import group
from pipeline.score_inputs import Input, Inputs
from pipeline.scoring import batch as columns
from pipeline.scoring.engine import Engine
from pipeline.scoring.kernel import TOO_LATE
from pipeline.scoring.parameters import PHASES
from pipeline.wire_results import VERSION, DetectionEntry, dead_fields

SILENT_MS = 1000
"""A source silent for longer is ticked."""
TICK_GRACE_MS = 500
"""A tick stays so far behind the clock, so that an input on its way is not late."""
SHOWN_STEP = 0.05
"""A tick is shown when the level has moved so far (CONTRACT 4)."""
COLD_MS = 300_000
"""A source at rest and silent for longer leaves the memory until its next input."""
AT_REST = (0.0, PHASES[0])
_MOST_SHOWN = 1024
"""Evaluations kept ready to be written; one lasts until the next of its source."""


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


@dataclass(slots=True)
class _Call:
    """One call of the engine while it is put together.

    Attributes:
        inputs: what is scored.
        rows: index in the inputs of each row that the engine is given.
        seen: of the rows that are frames.
        problems: what went wrong, by source.
        deaths: dead letters by source.
    """

    inputs: Inputs
    builder: columns.InputBuilder = field(default_factory=columns.InputBuilder)
    rows: list[int] = field(default_factory=list)
    seen: dict[int, Seen] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    deaths: Counter[str] = field(default_factory=Counter)


class PartitionScorer:
    """Scores the sources of one partition, in the order in which their inputs are given."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._memories: dict[str, Memory] = {}
        self._frames = FrameTracker()
        self._shown: dict[tuple[str, bytes], Evaluation] = {}

    def __len__(self) -> int:
        return len(self._memories)

    def unknown(self, sources: Iterable[str]) -> list[str]:
        """Give those sources whose memory must be recalled before their inputs are scored."""
        return [name for name in sources if name not in self._memories]

    def learn(self, source: str, blob: bytes | None) -> None:
        """Take over what is remembered of a source; None begins anew."""
        if blob is None:
            self._memories[source] = Memory(self._engine.slot(source))
            return
        try:
            saved = read_blob(blob)
            memory = Memory.unpack(self._engine.restore(source, saved[1]), saved)
            if memory.tracker:
                self._frames.restore(source, memory.tracker)
        except ValueError as error:
            get_logger().error("memory_unreadable", source=source, error=str(error))
            memory = Memory(self._engine.slot(source))
        self._memories[source] = memory

    def score(self, inputs: Inputs, now_ms: int) -> Result:
        """Score inputs; each ends in a score, a dead letter or a counted duplicate."""
        result, call = Result(), _Call(inputs)
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
        result.sources += [_problem(name, call) for name in call.problems if name not in named]
        return result

    def _prepare_event(self, index: int, source: str, call: _Call, result: Result) -> None:
        inputs, memory = call.inputs, self._memories[source]
        values = inputs.values[index]
        codes, numbers = self._engine.encode_event(memory.slot, values)
        producer = inputs.producer[index]
        if producer is not None:
            seq, added_ms = inputs.seq[index], inputs.added_ms[index]
            if not memory.accept(producer, seq, added_ms):
                result.refused["events_dropped_duplicate"] += 1
                call.problems[source] = f"duplicate of {producer} number {seq}"
                return
        kind = columns.EVENT if values else columns.HEARTBEAT
        call.builder.add(memory.slot, inputs.ts_ms[index], kind, codes, numbers)
        call.rows.append(index)

    def _prepare_frame(self, index: int, frame: DetectionEntry, call: _Call) -> None:
        head = frame.envelope
        memory = self._memories[head.source]
        seen = self._frames.see(frame, memory)
        codes, values = self._engine.encode_frame(memory.slot, seen.values)
        call.seen[len(call.rows)] = seen
        call.builder.add(memory.slot, head.ts_ms, columns.FRAME, codes, values)
        call.rows.append(index)

    def _finish(self, call: _Call, result: Result, now_ms: int) -> None:
        """Run the engine, then build score entries and state writes."""
        after = _Stepped.of(call, self._engine)
        result.evaluations = after.evaluations
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
        result.sources += [self._write(one, call) for one in newest.values()]

    def _scored(self, call: _Call, after: _Stepped, number: int) -> Scored:
        """Give a group of rows as one score entry and remember its inputs."""
        inputs, row, end = call.inputs, after.first[number], after.last[number]
        first, last = call.rows[row], call.rows[end]
        source, size, is_late = inputs.source[last], after.size[number], after.late[end]
        memory, frame, seen = self._memories[source], inputs.frames.get(last), call.seen.get(end)
        memory.hear(size, after.added_ms[number], after.ts_ms[number], is_frame=frame is not None)
        memory.late += size * is_late
        shown = self._show(source, memory.slot, after.snapshots[after.snapshot[end]])
        memory.shown = (shown.level, shown.phase)
        producer = inputs.producer[last]
        one = Scored(
            EVENT,
            source,
            size,
            memory.count,
            inputs.entry_id[first],
            inputs.entry_id[last],
            inputs.ts_ms[last],
            PHASES[after.was[end]],
            shown,
            is_late,
            (producer, inputs.seq[first], inputs.seq[last]) if producer else None,
            inputs.echoes.get(last),
        )
        if frame is not None and seen is not None:
            one.kind, one.first, one.last = FRAME, frame.frame, frame.frame
            one.echo, one.tracks = frame.envelope, seen.tracks
        return one

    def _show(self, source: str, slot: int, snapshot: Any) -> Evaluation:
        """Give what an evaluation says, prepared once and used until the next."""
        key = (source, snapshot.tobytes())
        if (shown := self._shown.get(key)) is None:
            data = self._engine.data(slot, snapshot)
            phase = PHASES[snapshot["phase"]]
            shown = describe(float(snapshot["level"]), phase, int(snapshot["level_ts"]), data)
            if len(self._shown) >= _MOST_SHOWN:
                self._shown.clear()
            self._shown[key] = shown
        return shown

    def tick(self, now_ms: int) -> Result:
        """Let silent sources age; their silence shows when phase or level has moved enough."""
        result, call, ticked = Result(), _Call(Inputs()), list[tuple[str, int]]()
        for source, memory in list(self._memories.items()):
            silent_ms = now_ms - memory.heard_ms
            if silent_ms < SILENT_MS or not memory.count:
                continue
            if memory.shown == AT_REST:
                if silent_ms > COLD_MS:
                    self._forget(source)
                continue
            at_ms = memory.newest_ms + silent_ms - TICK_GRACE_MS
            call.builder.add(memory.slot, at_ms, columns.TICK)
            ticked.append((source, at_ms))
        stepped = self._engine.step(call.builder.build())
        result.evaluations = stepped.evaluations
        for row, (source, at_ms) in enumerate(ticked):
            memory = self._memories[source]
            level, phase = float(stepped.level[row]), PHASES[stepped.phase[row]]
            was = PHASES[stepped.phase_before[row]]
            if was == phase and not _is_worth_showing(memory.shown, (level, phase)):
                continue
            shown = self._show(source, memory.slot, stepped.snapshots[stepped.snapshot[row]])
            one = Scored(TICK, source, 0, memory.count, b"", b"", at_ms, was, shown)
            memory.shown = (level, phase)
            result.scores.append(score_fields(one, now_ms))
            result.sources.append(self._write(one, call))
        return result

    def _forget(self, source: str) -> None:
        self._engine.forget(source)
        self._frames.forget(source)
        del self._memories[source]

    def _write(self, newest: Scored, call: _Call) -> SourceWrite:
        """Give what is written of a source."""
        source, shown = newest.source, newest.shown
        memory = self._memories[source]
        memory.tracker = self._frames.save(source)
        state: list[Field] = ["v", VERSION, *shown.state, "ts", memory.newest_ms]
        state += ["seq", memory.count, "frames", memory.frames, "events", memory.events]
        state += ["tracks", memory.tracks, "late", memory.late, "model", memory.model]
        if problem := call.problems.get(source):
            state += ["last_problem", problem]
        blob = memory.pack(self._engine.save(memory.slot))
        add = {"frames_dropped": 0, "dead": call.deaths[source]}  # both are there from the start
        return SourceWrite(source, [*state], shown.absent, blob, memory.heard_ms, add)


@dataclass(slots=True)
class _Stepped:
    """What the engine said of the rows of a call; rows that share an entry are a group.

    Attributes:
        first: first row of each group.
        last: last row of each.
        size: rows of each.
        ts_ms: newest time of each.
        added_ms: newest time at which one of it was added.
        late: of each row, whether it is a straggler.
        was: of each row, the phase before it.
        snapshot: of each row, where its snapshot lies.
    """

    first: list[int]
    last: list[int]
    size: list[int]
    ts_ms: list[int]
    added_ms: list[int]
    late: list[bool]
    was: list[int]
    snapshot: list[int]
    snapshots: Any
    evaluations: int

    @classmethod
    def of(cls, call: _Call, engine: Engine) -> _Stepped:
        """Let the engine apply the rows, and group them."""
        inputs, batch = call.inputs, call.builder.build()
        stepped = engine.step(batch)
        late, alone = stepped.lateness == TOO_LATE, stepped.phase_changed
        for row, seen in call.seen.items():
            late[row], alone[row] = seen.is_late, True
        if inputs.echoes:
            alone |= np.array([index in inputs.echoes for index in call.rows])
        codes: dict[str | None, int] = {}
        producer = np.array([codes.setdefault(inputs.producer[i], len(codes)) for i in call.rows])
        order, first, last = group(batch.slot, producer, alone, late)
        added_ms = np.array([inputs.added_ms[index] for index in call.rows])
        return cls(
            order[first].tolist(),
            order[last].tolist(),
            (last - first + 1).tolist(),
            np.maximum.reduceat(batch.ts_ms[order], first).tolist(),
            np.maximum.reduceat(added_ms[order], first).tolist(),
            late.tolist(),
            stepped.phase_before.tolist(),
            stepped.snapshot.tolist(),
            stepped.snapshots,
            stepped.evaluations,
        )


def _bury(one: Input, call: _Call, result: Result) -> None:
    assert isinstance(one.value, EntryError)
    error = one.value
    result.dead.append(dead_fields(one.stream, one.entry_id, one.fields, error, 1))
    result.refused["events_dead" if one.stream == "events" else "detections_dead"] += 1
    source = one.claimed_source
    if source is not None:
        call.problems[source] = f"{error.reason.value}: {error}"[:300]
        call.deaths[source] += 1


def _problem(source: str, call: _Call) -> SourceWrite:
    """What is written of a source of which nothing was scored."""
    add = {"frames_dropped": 0, "dead": call.deaths[source]}
    return SourceWrite(source, [], [], None, 0, add, call.problems[source])


def _is_worth_showing(shown: tuple[float, str], now: tuple[float, str]) -> bool:
    return abs(now[0] - shown[0]) >= SHOWN_STEP or (now == AT_REST != shown)
