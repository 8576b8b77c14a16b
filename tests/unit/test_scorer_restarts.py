"""A worker that takes a partition over between two commits goes on as the one before would have."""

from __future__ import annotations

from dataclasses import replace
from operator import itemgetter
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.memory import Remembered
from pipeline.score_inputs import Input, Inputs
from pipeline.scorer import PartitionScorer, Result
from pipeline.scoring.engine import Engine
from pipeline.wire import EventEntry
from tests.unit.test_scorer import T0, event, fields_of, frame, remember


def behind(one: Input, by_ms: int) -> Input:
    """Give an event that happened so long before it was added."""
    entry = one.value
    assert isinstance(entry, EventEntry)
    head = replace(entry.envelope, ts_ms=entry.envelope.ts_ms - by_ms)
    return replace(one, value=replace(entry, envelope=head))


class Owner:
    """Scores and ticks as the worker of a partition does, and keeps what its commits wrote."""

    def __init__(self) -> None:
        self._scorer = PartitionScorer(Engine())
        self._kept: dict[str, dict[str, bytes]] = {"s": {}, "t": {}}

    def restart(self) -> None:
        """Let another worker, which knows what was kept, go on."""
        self._scorer = PartitionScorer(Engine())
        self._learn([name for name, row in self._kept.items() if row])

    def score(self, inputs: list[Input], now_ms: int) -> list[dict[str, Any]]:
        """Score and commit a batch; give its score entries."""
        self._learn(self._scorer.unknown({str(one.claimed_source) for one in inputs}))
        return self._commit(self._scorer.score(Inputs.of(inputs), now_ms))

    def tick(self, now_ms: int) -> list[dict[str, Any]]:
        """Tick and commit; give the score entries that show it."""
        return self._commit(self._scorer.tick(now_ms))

    def _learn(self, names: list[str]) -> None:
        kept = {name: self._kept[name] for name in names}
        self._scorer.learn({name: Remembered(**row) if row else None for name, row in kept.items()})

    def _commit(self, result: Result) -> list[dict[str, Any]]:
        remember(self._kept, result)
        return fields_of(result)


Commit = tuple[list[Input], int]
"""A batch, or a tick when there are no inputs, and when it is made."""


def commits_of(seed: int, count: int) -> list[Commit]:
    """Make batches of two sources with stragglers, and ticks in the pauses between them."""
    rng, at_ms = np.random.default_rng(seed), T0
    commits: list[Commit] = []
    drive = np.zeros(4)
    for _ in range(count):
        inputs = []
        for _ in range(int(rng.integers(1, 30))):
            at_ms += int(rng.choice([40, 120, 250, 400]))
            source, behind_ms = "st"[rng.integers(2)], int(rng.choice([0, 0, 600, 1100, 3000]))
            if rng.random() < 0.2:
                inputs.append(frame(at_ms - T0 - behind_ms, 1, source, done_ms=behind_ms))
            else:
                drive = 0.9 * np.roll(drive, 1) + 0.44 * rng.standard_normal(4)
                values = {f"c{k}": float(x) for k, x in enumerate(rng.poisson(np.exp(1 + drive)))}
                inputs.append(behind(event(at_ms - T0, values, source), behind_ms))
        commits.append((inputs, at_ms))
        pause_ms = int(rng.choice([0, 1200, 1700, 4000, 9000, 30_000]))
        commits += [([], at_ms + part) for part in range(500, pause_ms, 500)]
        at_ms += pause_ms
    return commits


def entries_of(commits: list[Commit], restarts: set[int]) -> list[list[dict[str, Any]]]:
    """Give each commit's score entries by source; after some of them another worker takes over."""
    owner, entries = Owner(), []
    for number, (inputs, now_ms) in enumerate(commits):
        rows = owner.score(inputs, now_ms) if inputs else owner.tick(now_ms)
        entries.append(sorted(rows, key=itemgetter("source")))
        if number in restarts:
            owner.restart()
    return entries


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6), st.sampled_from([0.02, 0.2, 1.0]))
def test_a_restart_between_commits_changes_no_entry(seed: int, often: float) -> None:
    """The same inputs and ticks give the same score entries, whoever took over in between."""
    commits = commits_of(seed, 16)
    drawn = np.random.default_rng(seed).random(len(commits))
    restarts = set(np.flatnonzero(drawn < often).tolist())

    assert entries_of(commits, restarts) == entries_of(commits, set())


def test_the_commits_reach_levels() -> None:
    """What the property above goes through is more than zeros, and some ticks are shown."""
    rows = [row for entries in entries_of(commits_of(1, 60), set()) for row in entries]

    assert max(float(row["level"]) for row in rows) > 0.2
    assert {"event", "frame", "tick"} == {row["kind"] for row in rows}
