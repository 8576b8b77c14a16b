"""What a commit writes of a source: now and then all of it, else what has changed.

Of the state hash most inputs change a few fields; the rest is written when the source is evaluated,
and all of it when it has not been for a second. What the engine knows, some kilobytes, is written
when the journal of what it was given since has become long.
"""

from __future__ import annotations

from typing import NamedTuple

from pipeline.memory import Memory
from pipeline.ownership import SourceWrite
from pipeline.score_entries import Scored
from pipeline.scoring.engine import Engine
from pipeline.stream import Argument
from pipeline.wire_results import VERSION

FRESH_MS = 1000
"""All that is shown of an active source is written anew so often, and its end of life moved."""
JOURNAL_BYTES = 506
"""A longer journal becomes a state; about 15 events of four channels. Redis keeps it in 512."""


class Trouble(NamedTuple):
    """What went wrong with inputs of a source, and how many became dead letters."""

    problem: str | None
    deaths: int


NO_TROUBLE = Trouble(None, 0)


def write(
    newest: Scored, memory: Memory, trouble: Trouble, engine: Engine, record: bytes
) -> SourceWrite:
    """Give what is written of a source, and note in its memory that it is.

    Args:
        newest: of what was scored or is shown of it.
        memory: of it.
        trouble: that it had since its last write.
        engine: that scores it.
        record: what the engine was given since, for its journal.
    """
    shown = newest.shown
    written, is_fresh = memory.written, memory.heard_ms - memory.written.fresh_ms >= FRESH_MS
    state: list[Argument] = ["ts", memory.newest_ms, "seq", memory.count, "events", memory.events]
    absent: list[str] = []
    if is_fresh or written.level_ts != shown.level_ts:
        state, absent = [*shown.state, *state], shown.absent
        written.level_ts = shown.level_ts
    if is_fresh or written.counts != memory.frames + memory.late:  # neither ever falls
        state += ["frames", memory.frames, "tracks", memory.tracks]
        state += ["late", memory.late, "model", memory.model]
        written.counts = memory.frames + memory.late
    add = {"dead": trouble.deaths} if trouble.deaths else {}
    if is_fresh:
        written.fresh_ms = memory.heard_ms
        state += ["v", VERSION]
        add = _counters(trouble)
    if trouble.problem:
        state += ["last_problem", trouble.problem]
    kept, journal = _remember(memory, engine, record)
    return SourceWrite(newest.source, state, absent, kept, memory.heard_ms, is_fresh, journal, add)


def write_trouble(source: str, trouble: Trouble) -> SourceWrite:
    """Give what is written of a source of which nothing was scored."""
    counters = _counters(trouble)
    return SourceWrite(source, [], [], None, 0, add=counters, problem=trouble.problem)


def _counters(trouble: Trouble) -> dict[str, int]:
    """Give the counters of the state hash that are there from the start."""
    return {"frames_dropped": 0, "dead": trouble.deaths}


def _remember(memory: Memory, engine: Engine, record: bytes) -> tuple[list[Argument], bytes | None]:
    """Give what is kept of a source, and what is added to its journal; None where that is all."""
    written, assignment = memory.written, engine.assignment(memory.slot)
    journal_bytes = written.journal_bytes + len(record)
    kept: list[Argument] = ["facts", memory.facts()]
    if assignment is written.assignment and journal_bytes <= JOURNAL_BYTES:
        written.journal_bytes = journal_bytes
        return kept, record
    written.journal_bytes, written.assignment = 0, assignment
    return [*kept, "journal", b"", "state", engine.save(memory.slot)], None
