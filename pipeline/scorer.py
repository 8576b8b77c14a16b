"""One partition's scoring: entries in, what a commit writes out. No I/O, no clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import EntryError, Reason
from pipeline.log import get_logger
from pipeline.memory import Memory, read_blob
from pipeline.ownership import SourceWrite
from pipeline.score_entries import (
    EVENT,
    FRAME,
    TICK,
    Field,
    Outcome,
    Scored,
    group,
    score_fields,
    state_fields,
    track_values,
)
from pipeline.scoring import batch as columns
from pipeline.scoring.engine import Engine
from pipeline.scoring.kernel import TOO_LATE
from pipeline.scoring.parameters import PHASES
from pipeline.scoring.state import NEVER
from pipeline.scoring.vision import VisionChannels
from pipeline.tracker import Parameters, TrackerState, step
from pipeline.wire import EventEntry, id_key, id_ms, source_of
from pipeline.wire_results import DetectionEntry, dead_fields

SILENT_MS = 1000
"""A source silent for longer is ticked."""
TICK_GRACE_MS = 500
"""A tick stays so far behind the clock, so that an input on its way is not late."""
SHOWN_STEP = 0.05
"""A tick is shown when the level has moved so far (CONTRACT 4)."""
COLD_MS = 300_000
"""A source at rest and silent for longer leaves the memory until its next input."""

Parsed = EventEntry | DetectionEntry | EntryError


@dataclass(slots=True)
class Input:
    """An entry to score, or what is wrong with it.

    Attributes:
        stream: `events` or `detections`.
        entry_id: in that stream.
        fields: as read, for a dead letter.
    """

    stream: str
    entry_id: bytes
    fields: dict[bytes, bytes]
    value: Parsed

    @property
    def source(self) -> str | None:
        """The source, when the entry is sound."""
        return None if isinstance(self.value, EntryError) else self.value.envelope.source

    @property
    def claimed_source(self) -> str | None:
        """The source whose state shows what went wrong, if there is one in this partition."""
        if not isinstance(self.value, EntryError):
            return self.value.envelope.source
        wrong = self.value.reason is Reason.WRONG_PARTITION
        return None if wrong else source_of(self.fields)


@dataclass(slots=True)
class Result:
    """What a commit writes beside its cursors; `refused` counts by ledger term."""

    scores: list[list[Field]] = field(default_factory=list)
    sources: list[SourceWrite] = field(default_factory=list)
    dead: list[list[Field]] = field(default_factory=list)
    scored: Counter[str] = field(default_factory=Counter)
    late: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    evaluations: int = 0

    def ledger(self) -> Counter[str]:
        """Give the terms of CONTRACT 6 that the commit adds to."""
        terms = Counter(self.refused)
        for kind in (EVENT, FRAME):
            terms[f"{kind}s_scored"] = self.scored[kind]
            terms[f"{kind}s_late"] = self.late[kind]
        return terms


@dataclass(slots=True)
class _Step:
    """One call of the engine while it is put together."""

    builder: columns.InputBuilder = field(default_factory=columns.InputBuilder)
    rows: list[tuple[str, Input | None, Memory, Any]] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)
    deaths: Counter[str] = field(default_factory=Counter)


class PartitionScorer:
    """Scores the sources of one partition, in the order in which their inputs are given."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._memories: dict[str, Memory] = {}
        self._trackers: dict[str, TrackerState] = {}
        self._labels: dict[str, dict[int, str]] = {}
        self._vision: dict[str, VisionChannels] = {}

    def __len__(self) -> int:
        return len(self._memories)

    def unknown(self, inputs: Iterable[Input]) -> list[str]:
        """Give the sources whose memory must be recalled before these inputs are scored."""
        names = dict.fromkeys(one.source for one in inputs if one.source is not None)
        return [name for name in names if name not in self._memories]

    def learn(self, source: str, blob: bytes | None) -> None:
        """Take over what is remembered of a source; None begins anew."""
        if blob is None:
            self._memories[source] = Memory(self._engine.slot(source))
            return
        try:
            saved = read_blob(blob)
            memory = Memory.unpack(self._engine.restore(source, saved[1]), saved)
            if memory.tracker:
                self._trackers[source] = TrackerState.from_bytes(memory.tracker)
        except ValueError as error:
            get_logger().error("memory_unreadable", source=source, error=str(error))
            memory = Memory(self._engine.slot(source))
        self._memories[source] = memory

    def score(self, inputs: Sequence[Input], now_ms: int) -> Result:
        """Score inputs; each ends in a score, a dead letter or a counted duplicate."""
        result, call = Result(), _Step()
        for one in inputs:
            self._prepare(one, call, result, now_ms)
        self._finish(call, result, now_ms)
        return result

    def _prepare(self, one: Input, call: _Step, result: Result, now_ms: int) -> None:
        value = one.value
        try:
            if isinstance(value, EntryError):
                raise value
            memory = self._memories[value.envelope.source]
            if isinstance(value, EventEntry):
                self._prepare_event(one, value, memory, call, result)
            else:
                self._prepare_frame(one, value, memory, call)
        except EntryError as error:
            self._bury(one, error, call, result)

    def _prepare_event(
        self, one: Input, event: EventEntry, memory: Memory, call: _Step, result: Result
    ) -> None:
        head = event.envelope
        codes, values = self._engine.encode_event(memory.slot, event.values)
        if not memory.accept(head.producer, head.seq, head.added_ms):
            result.refused["events_dropped_duplicate"] += 1
            call.problems[head.source] = f"duplicate of {head.producer} number {head.seq}"
            return
        kind = columns.EVENT if event.values else columns.HEARTBEAT
        call.builder.add(memory.slot, head.ts_ms, kind, codes, values)
        call.rows.append((EVENT, one, memory, None))

    def _prepare_frame(
        self, one: Input, frame: DetectionEntry, memory: Memory, call: _Step
    ) -> None:
        head = frame.envelope
        late = id_key(frame.frame) <= id_key(memory.newest_frame.get(frame.stream, b"0-0"))
        vision = self._know(frame)
        tracks, changes, motion = ([], 0, 0.0) if late else self._track(frame, memory, vision)
        measured = vision.measure(
            frame.detections,
            frame.width,
            frame.height,
            people_changes=changes,
            motion=motion,
        )
        codes, values = self._engine.encode_frame(memory.slot, measured)
        call.builder.add(memory.slot, head.ts_ms, columns.FRAME, codes, values)
        call.rows.append((FRAME, one, memory, (late, tracks)))

    def _know(self, frame: DetectionEntry) -> VisionChannels:
        """Give the vision channels of the frame's model, as far as its labels were seen."""
        labels = self._labels.setdefault(frame.model, {})
        pairs = zip(frame.detections.class_id.tolist(), frame.labels, strict=True)
        fresh = {class_id: label for class_id, label in pairs if class_id not in labels}
        if fresh or frame.model not in self._vision:
            labels.update(fresh)
            self._vision[frame.model] = VisionChannels(labels)
        return self._vision[frame.model]

    def _track(
        self, frame: DetectionEntry, memory: Memory, vision: VisionChannels
    ) -> tuple[list[dict[str, Any]], int, float]:
        source = frame.envelope.source
        state = self._trackers.setdefault(source, TrackerState())
        found = step(
            state,
            frame.detections,
            frame.envelope.ts_ms,
            parameters=_TRACKING,
            first_id=id_ms(frame.frame),
        )
        memory.newest_frame[frame.stream] = frame.frame
        memory.model, memory.tracks = frame.model, len(found.tracks)
        labels = self._labels[frame.model]
        tracks = [track_values(t, labels.get(t.class_id, str(t.class_id))) for t in found.tracks]
        changes = sum(vision.is_person(c) for c in (*found.born, *found.ended))
        diagonal = float(frame.width**2 + frame.height**2) ** 0.5
        return tracks, changes, found.displacement_px / diagonal

    def _bury(self, one: Input, error: EntryError, call: _Step, result: Result) -> None:
        result.dead.append(dead_fields(one.stream, one.entry_id, one.fields, error, 1))
        result.refused["events_dead" if one.stream == "events" else "detections_dead"] += 1
        source = one.claimed_source
        if source is not None:
            call.problems[source] = f"{error.reason.value}: {error}"[:300]
            call.deaths[source] += 1

    def tick(self, now_ms: int) -> Result:
        """Let silent sources age; their silence shows when phase or level has moved enough."""
        result, call = Result(), _Step()
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
            call.rows.append((TICK, None, memory, (source, at_ms)))
        self._finish(call, result, now_ms)
        return result

    def _forget(self, source: str) -> None:
        self._engine.forget(source)
        del self._memories[source]
        self._trackers.pop(source, None)

    def _finish(self, call: _Step, result: Result, now_ms: int) -> None:
        """Run the engine, then build score entries and state writes."""
        stepped = self._engine.step(call.builder.build())
        result.evaluations = stepped.evaluations
        scored = list(self._scored(call, stepped, result))
        result.scores += [score_fields(inputs, now_ms) for inputs in group(scored)]
        newest = {one.source: one for one in scored}
        for source, one in newest.items():
            result.sources.append(self._write(source, one, call))
        for source in call.problems.keys() - newest.keys():
            result.sources.append(_problem(source, call))

    def _scored(self, call: _Step, stepped: columns.StepResult, result: Result) -> Iterator[Scored]:
        """Give every input with what the engine said of it; of ticks those worth showing."""
        for row, outcome, lateness in zip(
            call.rows, self._outcomes(call, stepped), stepped.lateness.tolist(), strict=True
        ):
            kind, one, memory, extra = row
            if one is None:
                source, at_ms = extra
                if _is_worth_showing(memory.shown, outcome):
                    yield Scored(TICK, source, b"", at_ms, memory.count, outcome)
                    memory.shown = (outcome.level, outcome.phases[1])
                continue
            late, tracks = extra if kind == FRAME else (lateness == TOO_LATE, None)
            _remember(memory, one, outcome, late=late)
            result.scored[kind] += 1
            result.late[kind] += late
            yield _scored_input(kind, one, memory.count, outcome, (late, tracks))

    def _outcomes(self, call: _Step, stepped: columns.StepResult) -> Iterator[Outcome]:
        engine, snapshots = self._engine, stepped.snapshots
        rows = zip(
            call.rows,
            stepped.level.tolist(),
            stepped.level_ts.tolist(),
            stepped.phase_before.tolist(),
            stepped.phase.tolist(),
            stepped.snapshot.tolist(),
            strict=True,
        )
        for (_, _, memory, _), level, level_ts, before, after, snapshot in rows:
            data = _Snapshot(engine, memory.slot, snapshots[snapshot])
            yield Outcome(level, level_ts, (PHASES[before], PHASES[after]), data)

    def _write(self, source: str, newest: Scored, call: _Step) -> SourceWrite:
        """Give what is written of a source; its newest entry's `data` serves the state too."""
        memory, tracker = self._memories[source], self._trackers.get(source)
        if tracker is not None:
            memory.tracker = tracker.to_bytes()
        facts: list[tuple[str, Field]] = [
            ("ts", memory.newest_ms),
            ("seq", memory.count),
            ("frames", memory.frames),
            ("events", memory.events),
            ("tracks", memory.tracks),
            ("late", memory.late),
            ("model", memory.model),
        ]
        outcome = newest.outcome
        if outcome.level_ts != NEVER:
            facts.append(("level_ts", outcome.level_ts))
        if problem := call.problems.get(source):
            facts.append(("last_problem", problem))
        state, absent = state_fields(outcome.level, outcome.phases[1], outcome.snapshot(), facts)
        blob = memory.pack(self._engine.save(memory.slot))
        add = {"frames_dropped": 0, "dead": call.deaths[source]}  # both are there from the start
        return SourceWrite(source, [*state], absent, blob, memory.heard_ms, add)


def _remember(memory: Memory, one: Input, outcome: Outcome, *, late: bool) -> None:
    assert not isinstance(one.value, EntryError)
    head = one.value.envelope
    memory.count += 1
    memory.late += late
    memory.heard_ms = max(memory.heard_ms, head.added_ms)
    memory.newest_ms = max(memory.newest_ms, head.ts_ms)
    memory.shown = (outcome.level, outcome.phases[1])
    if isinstance(one.value, DetectionEntry):
        memory.frames += 1
    else:
        memory.events += 1


def _scored_input(
    kind: str,
    one: Input,
    count: int,
    outcome: Outcome,
    frame: tuple[bool, list[dict[str, Any]] | None],
) -> Scored:
    assert not isinstance(one.value, EntryError)
    head, (late, tracks) = one.value.envelope, frame
    entry_id = one.value.frame if isinstance(one.value, DetectionEntry) else one.entry_id
    return Scored(kind, head.source, entry_id, head.ts_ms, count, outcome, head, late, tracks)


def _problem(source: str, call: _Step) -> SourceWrite:
    """What is written of a source of which nothing was scored."""
    problem = call.problems[source]
    add = {"frames_dropped": 0, "dead": call.deaths[source]}
    return SourceWrite(source, [], [], None, 0, add, problem)


AT_REST = (0.0, PHASES[0])
_TRACKING = Parameters()


class _Snapshot:
    """Builds the score part of `data` when an entry needs it, once."""

    __slots__ = ("_data", "_engine", "_row", "_slot")

    def __init__(self, engine: Engine, slot: int, row: Any) -> None:
        self._engine, self._slot, self._row = engine, slot, row
        self._data: dict[str, Any] | None = None

    def __call__(self) -> dict[str, Any]:
        if self._data is None:
            self._data = self._engine.data(self._slot, self._row)
        return self._data


def _is_worth_showing(shown: tuple[float, str], outcome: Outcome) -> bool:
    moved = abs(outcome.level - shown[0]) >= SHOWN_STEP
    ended = (outcome.level, outcome.phases[1]) == AT_REST and shown != AT_REST
    return outcome.phases[0] != outcome.phases[1] or moved or ended
