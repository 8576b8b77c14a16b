"""The decision how many workers there should be, tried on queues that behave like ours."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.scaling import Decision, History, Limits, Load, decide

LIMITS = Limits(1, 16, 1.0)
QUIET = Load(0, 0.0, 0.0)


@dataclass
class Queue:
    """Workers that each do so many a second, and what waits for them, a second at a time.

    Attributes:
        each_per_s: what a worker does.
        start_s: how long a new worker takes to be ready.
    """

    each_per_s: float
    limits: Limits
    start_s: int = 0
    now_s: int = 0
    waiting: float = 0.0
    wanted: int = 1
    history: History = field(default_factory=History)
    starting: list[int] = field(default_factory=list)
    changes: list[tuple[int, int]] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def step(self, arrived_per_s: float) -> Decision:
        """Let a second pass."""
        self.now_s += 1
        self.starting = [at for at in self.starting if at > self.now_s]
        ready = max(0, self.wanted - len(self.starting))
        self.waiting = max(0.0, self.waiting + arrived_per_s - ready * self.each_per_s)
        pace = max(1e-9, arrived_per_s, ready * self.each_per_s)
        load = Load(ceil(self.waiting), self.waiting / pace, arrived_per_s)
        decision, self.history = decide(
            load,
            self.wanted,
            ready,
            limits=self.limits,
            history=self.history,
            now_s=float(self.now_s),
        )
        if decision.workers != self.wanted:
            added = max(0, decision.workers - self.wanted)
            self.starting += [self.now_s + self.start_s] * added
            self.changes.append((self.now_s, decision.workers - self.wanted))
            self.reasons.append(decision.reason)
            self.wanted = decision.workers
        return decision

    def run(self, arrived_per_s: float, seconds: int) -> None:
        """Let time pass under a load that stays the same."""
        for _ in range(seconds):
            self.step(arrived_per_s)


def directions(queue: Queue) -> list[int]:
    """Give 1 for a run of additions, -1 for a run of removals, in turn."""
    signs = [1 if change > 0 else -1 for _, change in queue.changes]
    return [sign for before, sign in pairwise([0, *signs]) if sign != before]


queues = st.builds(
    Queue,
    st.floats(1.0, 1000.0),
    st.builds(
        Limits,
        st.integers(1, 3),
        st.integers(3, 40),
        st.floats(0.2, 20.0),
        up_pause_s=st.floats(1, 30),
        down_pause_s=st.floats(1, 120),
    ),
    st.integers(0, 20),
)


@settings(max_examples=60, deadline=None)
@given(queues, st.lists(st.tuples(st.floats(0, 5000), st.integers(1, 60)), max_size=12))
def test_bounds_and_pauses_are_kept(queue: Queue, loads: list[tuple[float, int]]) -> None:
    """Whatever comes: never out of bounds, never sooner than a pause after the last change."""
    for arrived_per_s, seconds in loads:
        for _ in range(seconds):
            decision = queue.step(arrived_per_s)
            assert queue.limits.least <= decision.workers <= queue.limits.most
            assert decision.reason
    for (before_s, _), (after_s, change) in pairwise(queue.changes[1:]):
        pause_s = queue.limits.up_pause_s if change > 0 else queue.limits.down_pause_s
        assert after_s - before_s >= pause_s


@settings(max_examples=40, deadline=None, derandomize=True)
@given(queues, st.floats(0.01, 0.97))
def test_a_constant_load_makes_nothing_swing(queue: Queue, share: float) -> None:
    """It goes up and down a few times at most, while it learns how many are too few, then stays."""
    queue.limits = replace(queue.limits, most=20, up_pause_s=8.0, down_pause_s=15.0)
    arrived_per_s = share * 20 * queue.each_per_s

    queue.run(arrived_per_s, 1500)  # less than it takes to forget

    assert len(directions(queue)) <= 6, queue.changes
    assert not queue.changes or queue.now_s - queue.changes[-1][0] > 60
    assert queue.wanted * queue.each_per_s >= arrived_per_s * 0.98


def test_a_load_that_grows_and_goes_is_followed() -> None:
    """1 worker, then 8 for a load of 7.5 workers, then 1 again."""
    queue = Queue(100.0, LIMITS, start_s=5)

    queue.run(50, 60)
    assert queue.wanted == 1
    queue.run(750, 400)
    assert queue.wanted >= 8
    assert queue.waiting == 0
    queue.run(20, 1500)

    assert queue.wanted == 1


def test_more_is_not_asked_for_while_some_are_starting() -> None:
    queue = Queue(100.0, LIMITS, start_s=60)

    queue.run(1000, 30)

    assert queue.wanted == 2


def test_a_dropped_frame_is_late_however_young_the_others_are() -> None:
    load, history = Load(10, 0.2, 100.0, dropped_per_s=3.0), History()

    found = []
    for now_s in (0.0, 1.0, 3.0):
        decision, history = decide(load, 2, 2, limits=LIMITS, history=history, now_s=now_s)
        found.append(decision.workers)

    assert found == [2, 2, 4]
    assert decision.reason == "3.0 a second are dropped, 1 s is wanted"


def test_what_others_hold_makes_nobody_late() -> None:
    """Entries of a worker that died are old, but more workers would not help them."""
    load, history = Load(0, 30.0, 5.0), History()
    for now_s in range(30):
        decision, history = decide(load, 2, 2, limits=LIMITS, history=history, now_s=float(now_s))

    assert decision.workers == 2


@pytest.mark.parametrize(("workers", "wanted"), [(0, 1), (40, 16)])
def test_new_bounds_hold_at_once(workers: int, wanted: int) -> None:
    start = History()

    decision, _ = decide(QUIET, workers, workers, limits=LIMITS, history=start, now_s=0.0)

    assert decision == Decision(wanted, f"{workers} is not among 1 to 16")


def test_a_reason_says_what_was_too_few() -> None:
    queue = Queue(100.0, LIMITS)
    queue.run(250, 600)

    decision = queue.step(250)

    assert queue.wanted == 3
    assert decision.reason.startswith("2 were too few for ")
