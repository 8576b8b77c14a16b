"""The gate of still cameras: what looks the same is let through, not for ever, nothing else is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.answers import Answer
from pipeline.records import Detections
from pipeline.still import MAX_AGE_S, StillGate, Thumbnail, difference


def plain(level: int = 100) -> Thumbnail:
    return np.full((45, 80), level, np.uint8)


def answer(number: int = 0) -> Answer:
    return Answer(Detections.empty(), 640, 360, number)


SIZE = (640, 360)


def gate_with_reference(threshold: float = 6, longest_run: int = 10) -> StillGate:
    gate = StillGate(threshold, longest_run)
    gate.note("a", plain(), answer(), (1, 0), 0.0)
    return gate


def test_nothing_is_said_of_a_source_without_a_detected_frame() -> None:
    assert gate_with_reference().recall("b", plain(), SIZE, 0.0) is None


@pytest.mark.parametrize(
    ("level", "is_same"), [(100, True), (105, True), (94, False), (106, False)]
)
def test_a_frame_that_differs_by_less_than_the_threshold_takes_the_answer(
    level: int, is_same: bool
) -> None:
    assert (gate_with_reference().recall("a", plain(level), SIZE, 0.0) is not None) == is_same


def test_one_cell_that_changes_is_enough() -> None:
    """A mean over the picture would not see something small."""
    changed = plain()
    changed[20, 30] += 40

    assert gate_with_reference().recall("a", changed, SIZE, 0.0) is None


def test_a_frame_of_another_shape_is_detected() -> None:
    assert difference(plain(), np.full((44, 80), 100, np.uint8)) == 256
    assert gate_with_reference(256).recall("a", np.full((44, 80), 100, np.uint8), SIZE, 0.0) is None


def test_a_frame_of_another_size_that_looks_the_same_is_detected() -> None:
    """Boxes are in pixels of the full frame."""
    assert gate_with_reference().recall("a", plain(), (1280, 720), 0.0) is None


def test_slow_change_adds_up() -> None:
    """Frames are compared with the one that was detected, not with one another."""
    gate = gate_with_reference()

    passed = [gate.recall("a", plain(100 + step), SIZE, 0.0) is not None for step in range(9)]

    # the fifth renews; from a difference of 6 on nothing passes
    assert passed == [True, True, True, True, True, False, False, False, False]


@given(st.integers(1, 30), st.integers(0, 6))
def test_no_answer_is_taken_more_often_than_the_longest_run(run: int, late_by: int) -> None:
    """Detected frames come back `late_by` frames after they went to the network."""
    gate = StillGate(6, run)
    taken: dict[float, int] = {}
    in_network: list[int] = []
    for number in range(200):
        if in_network and number - in_network[0] > late_by:
            detected = in_network.pop(0)
            gate.note("a", plain(), answer(detected + 1), (detected, 0), 0.0)
        found = gate.recall("a", plain(), SIZE, 0.0)
        if found is None:
            in_network.append(number)
        else:
            taken[found.cost_s] = taken.get(found.cost_s, 0) + 1

    assert max(taken.values()) <= run


def test_one_frame_renews_a_run_and_the_others_pass_meanwhile() -> None:
    gate = gate_with_reference(longest_run=10)

    passed = [gate.recall("a", plain(), SIZE, 0.0) is not None for _ in range(13)]

    assert passed == [*[True] * 5, False, *[True] * 5, False, False]


def test_a_renewed_run_starts_anew() -> None:
    gate = gate_with_reference(longest_run=2)
    passed = []
    for number in range(2, 12):
        found = gate.recall("a", plain(), SIZE, 0.0)
        passed.append(found is not None)
        if found is None:
            gate.note("a", plain(), answer(), (number, 0), 0.0)

    assert passed == [True, False] * 5


def test_a_reference_is_forgotten_after_a_minute() -> None:
    gate = gate_with_reference()

    assert gate.recall("a", plain(), SIZE, MAX_AGE_S) is not None
    assert gate.recall("a", plain(), SIZE, MAX_AGE_S + 0.1) is None


def test_an_older_frame_does_not_take_the_place_of_a_newer() -> None:
    gate = gate_with_reference()
    gate.note("a", plain(200), answer(), (0, 5), 0.0)

    assert gate.recall("a", plain(), SIZE, 0.0) is not None


def test_sources_that_come_and_go_are_forgotten_after_a_minute() -> None:
    gate = StillGate(6, 10)
    for number in range(1000):
        gate.note(f"s{number}", plain(), answer(), (number, 0), float(number))
        gate.recall(f"s{number - 30}", plain(), SIZE, float(number))

    assert len(gate) == MAX_AGE_S + 1


def test_sources_beyond_the_limit_are_forgotten_at_once() -> None:
    gate = StillGate(6, 10, max_sources=3)
    for number in range(10):
        gate.note(f"s{number}", plain(), answer(), (number, 0), 0.0)

    assert len(gate) == 3
    assert gate.recall("s9", plain(), SIZE, 0.0) is not None
    assert gate.recall("s0", plain(), SIZE, 0.0) is None
