"""The built-in scene: rendered again it is the same, and its truth is what can be seen."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from importlib.resources import as_file, files

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.scene import SCENE_LABELS, Scene, SceneFrame, SceneObject, box_iou, match_truth
from pipeline.scene.actors import Actor

FAR_AWAY = 10_000.0
# A busy machine is no failure, so an example may take its time.
PROPERTY = settings(deadline=None, max_examples=50)


def seen(
    box: tuple[float, float, float, float], class_id: int = 0, *, ignore: bool = False
) -> SceneObject:
    xyxy = np.array(box, np.float32)
    return SceneObject(1, class_id, SCENE_LABELS[class_id], xyxy, 1.0, ignore)


@st.composite
def objects(draw: st.DrawFn) -> SceneObject:
    x, y = draw(st.integers(0, 600)), draw(st.integers(0, 350))
    width, height = draw(st.integers(8, 150)), draw(st.integers(8, 150))
    class_id = draw(st.integers(0, len(SCENE_LABELS) - 1))
    return seen((x, y, x + width, y + height), class_id, ignore=draw(st.booleans()))


def boxes(truth: list[SceneObject]) -> NDArray[np.float32]:
    return np.array([item.xyxy for item in truth], np.float32).reshape(-1, 4)


def kinds(truth: list[SceneObject]) -> NDArray[np.int64]:
    return np.array([item.class_id for item in truth], np.int64)


def test_a_frame_depends_on_seed_and_index_alone() -> None:
    one, other = Scene(11), Scene(11)

    for index in (700, 0, 31):
        one.frame(index)

    for index in (31, 700):
        assert_same(one.frame(index), other.frame(index))
        assert one.events(index) == other.events(index)


def assert_same(first: SceneFrame, second: SceneFrame) -> None:
    assert np.array_equal(first.image, second.image)
    assert [item.id for item in first.truth] == [item.id for item in second.truth]
    assert np.array_equal(boxes(first.truth), boxes(second.truth))


def test_seeds_and_indexes_give_different_frames() -> None:
    scene = Scene(11)

    assert not np.array_equal(scene.frame(0).image, scene.frame(1).image)
    assert not np.array_equal(scene.frame(0).image, Scene(12).frame(0).image)


def test_a_frame_has_the_size_that_was_asked_for() -> None:
    frame = Scene(1, size_wh=(320, 256)).frame(9)

    assert frame.image.shape == (256, 320, 3)
    assert frame.image.dtype == np.uint8


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_truth_is_the_extent_of_what_changes_without_the_object(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leaving one object out changes exactly the pixels in which it was seen."""
    compared, close = 0, 0

    for index in (40, 260, 700):
        scene = Scene(seed)
        frame = scene.frame(index)
        for item in (item for item in frame.truth if not item.ignore):
            with monkeypatch.context() as patch:
                leave_out(patch, item.id)
                without = scene.frame(index)
            changed = np.abs(frame.image.astype(np.int16) - without.image).sum(axis=2) > 24
            # A pixel is the object's from half its strength on, and a sharp tip fades slowly.
            np.testing.assert_allclose(extent(changed), item.xyxy, atol=7)
            close += np.abs(extent(changed) - item.xyxy).max() <= 3
            compared += 1

    assert compared >= 3
    assert close >= 0.7 * compared


def leave_out(patch: pytest.MonkeyPatch, object_id: int) -> None:
    everyone = Scene._actors

    def others(scene: Scene, at_s: float) -> list[Actor]:
        return [actor for actor in everyone(scene, at_s) if actor.id != object_id]

    patch.setattr(Scene, "_actors", others)


def extent(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


def test_truth_lies_in_the_frame_and_flags_what_is_hardly_seen() -> None:
    scene = Scene(21)
    truth = [item for index in range(0, 900, 15) for item in scene.frame(index).truth]

    for item in truth:
        x1, y1, x2, y2 = item.xyxy.tolist()
        assert 0 <= x1 < x2 <= 640
        assert 0 <= y1 < y2 <= 384
        assert 0 < item.visible <= 1.02
        assert item.label == SCENE_LABELS[item.class_id]
        assert item.ignore == (item.visible < 0.4 or min(x2 - x1, y2 - y1) < 16)
    assert {True, False} == {item.ignore for item in truth}


def test_an_id_is_one_visit_of_one_object() -> None:
    """No id comes back after its object left, and none changes its kind."""
    scene = Scene(5)
    spans: dict[int, list[int]] = {}
    labels: dict[int, set[str]] = {}

    for index in range(0, 1200, 6):
        for item in scene.frame(index).truth:
            spans.setdefault(item.id, []).append(index)
            labels.setdefault(item.id, set()).add(item.label)

    assert len(spans) > 30
    assert all(len(names) == 1 for names in labels.values())
    assert max(indexes[-1] - indexes[0] for indexes in spans.values()) <= 16 * 15


def test_every_kind_appears_and_busy_times_follow_quiet_ones() -> None:
    scene = Scene(8)
    frames = [scene.frame(index).truth for index in range(0, 1440, 16)]

    assert {item.label for truth in frames for item in truth} == set(SCENE_LABELS)
    assert len(SCENE_LABELS) >= 6
    counts = [sum(not item.ignore for item in truth) for truth in frames]
    assert 2 <= float(np.mean(counts)) <= 6
    assert float(np.percentile(counts, 90)) - float(np.percentile(counts, 10)) >= 3


def test_the_door_opens_two_frames_after_an_entry() -> None:
    scene = Scene(2)
    doors = [index for index in range(3, 300) if scene.events(index)["door"]]
    arrivals = [
        index for index in range(3, 300) if scene._present(index - 2) - scene._present(index - 3)
    ]

    assert doors == arrivals
    assert 5 < len(doors) < 100


def test_sound_follows_motion_with_a_lag() -> None:
    scene = Scene(2)
    readings = [scene.events(index) for index in range(400)]
    motion = np.array([reading["motion"] for reading in readings])
    sound = np.array([reading["sound"] for reading in readings])

    together = [float(np.corrcoef(motion[: 400 - lag], sound[lag:])[0, 1]) for lag in range(12)]

    assert together[5] > 0.8
    assert 3 <= int(np.argmax(together)) <= 7


def test_sensors_are_finite_and_the_same_in_every_frame() -> None:
    names = Counter(
        name
        for index in range(20)
        for name, value in Scene(4).events(index).items()
        if np.isfinite(value)
    )

    assert names == dict.fromkeys(("motion", "sound", "door", "temperature", "load", "chatter"), 20)


@PROPERTY
@given(st.lists(objects(), max_size=8))
def test_the_truth_itself_is_a_perfect_answer(truth: list[SceneObject]) -> None:
    wanted = sum(not item.ignore for item in truth)

    assert match_truth(truth, boxes(truth), kinds(truth)) == (wanted, 0, 0)


@PROPERTY
@given(st.lists(objects(), max_size=8), st.lists(objects(), max_size=8))
def test_every_object_is_found_or_missed(
    truth: list[SceneObject], answer: list[SceneObject]
) -> None:
    hits, false_alarms, misses = match_truth(truth, boxes(answer), kinds(answer))

    assert hits + misses == sum(not item.ignore for item in truth)
    assert 0 <= hits + false_alarms <= len(answer)
    assert min(hits, false_alarms, misses) >= 0


@PROPERTY
@given(st.lists(objects(), max_size=6), st.lists(objects(), max_size=6))
def test_a_stricter_overlap_finds_no_more(
    truth: list[SceneObject], answer: list[SceneObject]
) -> None:
    found = [match_truth(truth, boxes(answer), kinds(answer), iou)[0] for iou in (0.3, 0.5, 0.9)]

    assert found == sorted(found, reverse=True)


@PROPERTY
@given(st.lists(objects(), max_size=8))
def test_boxes_far_from_everything_are_false_alarms(truth: list[SceneObject]) -> None:
    wanted = sum(not item.ignore for item in truth)

    counts = match_truth(truth, boxes(truth) + FAR_AWAY, kinds(truth))

    assert counts == (0, len(truth), wanted)


def test_a_second_box_on_the_same_object_is_a_false_alarm() -> None:
    truth = [seen((10, 10, 60, 60))]

    assert match_truth(truth, boxes(truth * 2), kinds(truth * 2)) == (1, 1, 0)


def test_a_box_of_another_kind_does_not_count() -> None:
    truth, answer = [seen((10, 10, 60, 60), 0)], [seen((10, 10, 60, 60), 1)]

    assert match_truth(truth, boxes(answer), kinds(answer)) == (0, 1, 1)


def test_a_box_mostly_on_an_ignored_object_is_neither_right_nor_wrong() -> None:
    truth = [seen((0, 0, 100, 100), ignore=True)]
    inside, outside = seen((40, 40, 120, 90)), seen((90, 90, 180, 180))
    answer = [replace(inside, class_id=3), outside]

    assert match_truth(truth, boxes(answer), kinds(answer)) == (0, 1, 0)


def test_nothing_to_compare_counts_nothing() -> None:
    assert match_truth([], boxes([]), kinds([])) == (0, 0, 0)


@PROPERTY
@given(objects(), objects())
def test_overlap_is_symmetric_and_whole_only_for_equal_boxes(
    first: SceneObject, second: SceneObject
) -> None:
    there = box_iou(boxes([first]), boxes([second]))
    back = box_iou(boxes([second]), boxes([first]))

    assert there[0, 0] == back[0, 0]
    assert (there[0, 0] == 1) == np.array_equal(first.xyxy, second.xyxy)


def test_the_model_of_the_demo_knows_the_scene() -> None:
    """It is small enough to ship, loads, and names its classes as the scene does."""
    pytest.importorskip("torch")
    pytest.importorskip("ultralytics")
    from pipeline.checkpoint import load_network

    with as_file(files("pipeline").joinpath("data/demo.pt")) as path:
        size_bytes = path.stat().st_size
        network = load_network(path)

    assert size_bytes <= 5_000_000
    assert tuple(network.labels) == SCENE_LABELS
