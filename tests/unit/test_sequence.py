"""Numbers of a publisher: each is accepted once, in any order, within the last 4,096."""

from __future__ import annotations

from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from pipeline.sequence import WINDOW, SeenNumbers

NEAR = st.builds(
    lambda first, steps: [max(0, n) for n in accumulate(steps, initial=first)],
    st.integers(0, 5),
    st.lists(st.sampled_from((1, 1, 1, 1, 2, -1, -3, WINDOW - 1)), max_size=200),
)
"""Mostly one after another, with gaps and repetitions."""


@given(st.lists(st.integers(0, 3 * WINDOW), max_size=200) | NEAR)
def test_against_a_set(numbers: list[int]) -> None:
    """A number is refused when it was seen, or lies below the window."""
    seen, known, highest = SeenNumbers(), set[int](), -1
    for number in numbers:
        expected = number not in known and number > highest - WINDOW
        assert seen.accept(number) is expected
        known.add(number)
        highest = max(highest, number)


@given(st.lists(st.integers(0, 2 * WINDOW), max_size=60), st.lists(st.integers(0, 2 * WINDOW)))
def test_saved_and_restored_it_answers_the_same(before: list[int], after: list[int]) -> None:
    """`to_row` and `from_row` lose nothing."""
    seen = SeenNumbers()
    for number in before:
        seen.accept(number)
    other = SeenNumbers.from_row(seen.to_row())

    assert [other.accept(n) for n in after] == [seen.accept(n) for n in after]


def test_an_unbroken_run_is_kept_in_two_numbers() -> None:
    """What a publisher usually sends costs a few bytes."""
    seen = SeenNumbers()
    for number in range(10_000):
        assert seen.accept(number)

    assert seen.to_row() == [9_999, WINDOW]
