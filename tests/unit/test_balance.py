"""Partitions are spread evenly, and few of them move when workers come and go."""

from __future__ import annotations

from collections import Counter
from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from pipeline.balance import assign

WORKERS = st.sets(st.text("abcdef0123456789", min_size=1, max_size=8), min_size=1, max_size=9)


@given(st.integers(1, 64), WORKERS)
def test_everything_is_owned_and_nobody_has_too_much(partitions: int, workers: set[str]) -> None:
    """All partitions have an owner; the largest share is the even one, rounded up."""
    owners = assign(partitions, workers)

    assert sorted(owners) == list(range(partitions))
    assert max(Counter(owners.values()).values()) <= ceil(partitions / len(workers))


@given(st.integers(1, 64), WORKERS)
def test_everybody_computes_the_same(partitions: int, workers: set[str]) -> None:
    """The order in which a worker knows the others does not matter."""
    assert assign(partitions, sorted(workers)) == assign(partitions, sorted(workers, reverse=True))


def test_a_leaving_worker_moves_little_else() -> None:
    """Of 64 partitions over 8 workers a leaving one moves its own 8, and some that make room."""
    workers = [f"w{n}" for n in range(8)]
    before, after = assign(64, workers), assign(64, workers[:-1])

    moved = [p for p in before if before[p] != after[p]]
    assert len(moved) <= 24


def test_nobody_is_there() -> None:
    """Without workers nothing is owned."""
    assert assign(16, []) == {}
