"""From output to objects: thresholds, suppression, and the three ways a network may end."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from pipeline.errors import SettingsError
from pipeline.heads import Floats, Ints, Thresholds, matches, overlaps, read_output, suppress
from pipeline.records import Detections

PLAIN = Thresholds(confidence=0.25, iou=0.7)


def naive_suppress(xyxy: Floats, confidence: Floats, kind: Ints, iou: float) -> list[int]:
    """The definition: take the strongest, drop what overlaps it, again."""
    left = sorted(range(len(xyxy)), key=lambda index: (-confidence[index], index))
    chosen = []
    while left:
        best = left.pop(0)
        chosen.append(best)
        left = [
            index
            for index in left
            if kind[index] != kind[best] or overlaps(xyxy[best], xyxy[index : index + 1])[0] <= iou
        ]
    return chosen


@st.composite
def boxes(draw: st.DrawFn) -> tuple[Floats, Floats, Ints]:
    count = draw(st.integers(0, 25))
    corner = draw(npst.arrays(np.int16, (count, 2), elements=st.integers(0, 12)))
    size = draw(npst.arrays(np.int16, (count, 2), elements=st.integers(1, 10)))
    confidence = draw(npst.arrays(np.int16, count, elements=st.integers(0, 20)))
    kind = draw(npst.arrays(np.int32, count, elements=st.integers(0, 2)))
    xyxy = np.hstack([corner, corner + size]).astype(np.float32)
    return xyxy, (confidence / 20).astype(np.float32), kind


@given(boxes(), st.sampled_from([0.11, 0.35, 0.71, 0.93]))
def test_suppression_follows_its_definition(some: tuple[Floats, Floats, Ints], iou: float) -> None:
    """The fast form chooses the same objects in the same order as the definition."""
    chosen = suppress(*some, iou, limit=300)

    assert chosen.tolist() == naive_suppress(*some, iou)


@given(boxes(), st.integers(1, 5))
def test_the_limit_keeps_the_strongest(some: tuple[Floats, Floats, Ints], limit: int) -> None:
    """A limit cuts the list and changes nothing before the cut."""
    assert suppress(*some, 0.5, limit).tolist() == suppress(*some, 0.5, 300).tolist()[:limit]


def raw_output() -> Floats:
    """Two pictures, three classes, 30 anchors: an object twice, another, and one too weak."""
    output = np.zeros((2, 7, 30), np.float32)
    output[0, :, 3] = [100, 100, 40, 20, 0.9, 0.5, 0.1]
    output[0, :, 4] = [101, 100, 40, 20, 0.8, 0.1, 0.1]
    output[0, :, 9] = [300, 200, 50, 50, 0.1, 0.2, 0.6]
    output[0, :, 12] = [300, 20, 50, 50, 0.1, 0.2, 0.25]
    return output


def test_a_raw_head_gives_corners_strongest_first() -> None:
    """Centre and size become corners; a weaker double and what is at the threshold go."""
    first, second = read_output(raw_output(), 2, 3, PLAIN)

    assert first.xyxy.tolist() == [[80, 90, 120, 110], [275, 175, 325, 225]]
    assert first.confidence.tolist() == pytest.approx([0.9, 0.6])
    assert first.class_id.tolist() == [0, 2]
    assert len(second) == 0


def test_a_transposed_head_is_the_same() -> None:
    """Some exporters put the anchors first."""
    straight = next(iter(read_output(raw_output(), 2, 3, PLAIN)))
    turned = next(iter(read_output(raw_output().transpose(0, 2, 1), 2, 3, PLAIN)))

    assert np.array_equal(straight.xyxy, turned.xyxy)
    assert np.array_equal(straight.class_id, turned.class_id)


def test_every_label_of_an_anchor_when_asked() -> None:
    """For evaluation an anchor counts once for each class it is sure of."""
    thresholds = Thresholds(confidence=0.25, iou=0.7, every_label=True)

    first, _ = read_output(raw_output(), 2, 3, thresholds)

    assert first.class_id.tolist() == [0, 2, 1]


def test_only_the_classes_asked_for() -> None:
    """PERCIPIO_CLASSES drops other objects, not other opinions: an anchor keeps its best class."""
    first, _ = read_output(raw_output(), 2, 3, Thresholds(0.25, 0.7, classes=(1, 2)))

    assert first.class_id.tolist() == [2]


def test_a_network_that_computes_nonsense_finds_nothing() -> None:
    """NaN is over no threshold."""
    (first,) = read_output(np.full((1, 7, 30), np.nan, np.float32), 1, 3, PLAIN)

    assert len(first) == 0


def test_rows_with_suppression_built_in() -> None:
    """An end-to-end export gives rows of corners, confidence and class, padded with weak ones."""
    rows = np.zeros((2, 5, 6), np.float32)
    rows[1, 1] = [10, 20, 30, 40, 0.5, 1]
    rows[1, 2] = [11, 20, 30, 40, 0.9, 2]

    first, second = read_output(rows, 2, 3, PLAIN)

    assert len(first) == 0
    assert second.class_id.tolist() == [2, 1]
    assert second.xyxy[1].tolist() == [10, 20, 30, 40]


def test_flat_rows_name_their_picture() -> None:
    """The original YOLOv9 export with suppression gives one list for the whole batch."""
    flat = np.array([[1, 10, 20, 30, 40, 2, 0.7], [0, 1, 2, 3, 4, 0, 0.1]], np.float32)

    first, second = read_output(flat, 2, 3, PLAIN)

    assert len(first) == 0
    assert second.class_id.tolist() == [2]
    assert second.confidence.tolist() == pytest.approx([0.7])


def test_another_networks_output_is_refused() -> None:
    """Labels that do not fit the head would put wrong names on everything."""
    with pytest.raises(SettingsError, match="detector of 80 classes"):
        list(read_output(raw_output(), 2, 80, PLAIN))


def test_an_object_is_matched_once() -> None:
    """One box found cannot stand for two that were expected."""
    box = np.array([[0, 0, 10, 10]], np.float32)
    twice = Detections(
        np.vstack([box, box]), np.array([0.9, 0.8], np.float32), np.zeros(2, np.int32)
    )
    once = Detections(box, np.array([0.5], np.float32), np.zeros(1, np.int32))

    assert matches(twice, once, 0.9).tolist() == [True, False]
    assert matches(once, twice, 0.9).tolist() == [True]
    assert matches(once, Detections.empty(), 0.9).tolist() == [False]
