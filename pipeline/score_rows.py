"""One call of the engine: inputs as its rows, and what it said of them, by score entry."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from pipeline.score_frames import Seen
from pipeline.score_groups import Groups, group
from pipeline.score_inputs import Inputs
from pipeline.scoring import batch as columns
from pipeline.scoring.engine import Engine
from pipeline.scoring.journal import records
from pipeline.scoring.kernel import TOO_LATE


@dataclass(slots=True)
class Call:
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


@dataclass(slots=True)
class Stepped:
    """What the engine said of the rows of a call; rows that share an entry are a group.

    Attributes:
        first: first row of each group.
        last: last row of each.
        size: rows of each.
        ts_ms: newest time of each.
        added_ms: newest time at which one of it was added.
        late: of each row, whether it is a straggler.
        level_ts: of each row, the end of its source's newest evaluated bin.
        stepped: what the engine gave.
        records: what to write of each slot to its journal.
    """

    first: list[int]
    last: list[int]
    size: list[int]
    ts_ms: list[int]
    added_ms: list[int]
    late: list[bool]
    level_ts: list[int]
    stepped: columns.StepResult
    records: dict[int, bytes]

    @classmethod
    def of(cls, call: Call, engine: Engine) -> Stepped:
        """Let the engine apply the rows, and group them."""
        inputs, batch = call.inputs, call.builder.build()
        stepped = engine.step(batch)
        late, alone = stepped.lateness == TOO_LATE, stepped.phase_changed
        for row, seen in call.seen.items():
            late[row] |= seen.is_late
            alone[row] = True
        if inputs.echoes:
            alone |= np.array([index in inputs.echoes for index in call.rows])
        codes: dict[str | None, int] = {}
        producer = np.array([codes.setdefault(inputs.producer[i], len(codes)) for i in call.rows])
        groups = group(batch.slot, producer, alone, late)
        order, first, last, _ = groups
        added_ms = np.array([inputs.added_ms[index] for index in call.rows])
        return cls(
            order[first].tolist(),
            order[last].tolist(),
            (last - first + 1).tolist(),
            np.maximum.reduceat(batch.ts_ms[order], first).tolist(),
            np.maximum.reduceat(added_ms[order], first).tolist(),
            late.tolist(),
            stepped.level_ts.tolist(),
            stepped,
            _records(batch, groups),
        )


def _records(batch: columns.InputBatch, groups: Groups) -> dict[int, bytes]:
    """Give what each slot was given, for its journal."""
    order, begins = groups.order, groups.source
    made = records(batch, order, [*begins.tolist(), len(order)])
    return dict(zip(batch.slot[order[begins]].tolist(), made, strict=True))
