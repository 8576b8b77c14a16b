"""The tracker: what it promises for any input, and what it does in scenes made by hand."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
import zlib
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.records import Detections, Track
from pipeline.tracker import Parameters, StepResult, TrackerState, _assign, step

Box = tuple[float, float, float, float]
Thing = tuple[Box, float, int]
"""Corners, confidence, class."""

PARAMETERS = Parameters()


def detections(things: Sequence[Thing]) -> Detections:
    boxes = np.array([box for box, _, _ in things], np.float32).reshape(-1, 4)
    confidence = np.array([sure for _, sure, _ in things], np.float32)
    return Detections(boxes, confidence, np.array([kind for _, _, kind in things], np.int32))


def square(x: float, y: float, sure: float = 0.9, kind: int = 0, size: float = 40.0) -> Thing:
    return (x - size / 2, y - size / 2, x + size / 2, y + size / 2), sure, kind


def run(
    frames: Sequence[Sequence[Thing]], times_ms: Sequence[int], state: TrackerState | None = None
) -> list[StepResult]:
    state = TrackerState() if state is None else state
    return [
        step(state, detections(things), ts_ms, first_id=1)
        for things, ts_ms in zip(frames, times_ms, strict=True)
    ]


def every(count: int, interval_ms: int = 40) -> list[int]:
    return [1_000_000 + interval_ms * index for index in range(count)]


def ids(result: StepResult) -> list[int]:
    return [track.track_id for track in result.tracks]


def whole(track: Track) -> tuple[object, ...]:
    return dataclasses.astuple(track)


# Few places and kinds, so that boxes meet, coincide and tie.
_things = st.lists(
    st.builds(
        square,
        st.integers(0, 8).map(lambda place: place * 15.0),
        st.integers(0, 3).map(lambda place: place * 20.0),
        st.sampled_from([0.05, 0.15, 0.29, 0.35, 0.6, 0.9]),
        st.integers(0, 1),
        st.sampled_from([12.0, 40.0, 90.0]),
    ),
    max_size=6,
)
_frames = st.lists(st.tuples(_things, st.integers(-50, 4000)), min_size=1, max_size=12)
_any = st.floats(width=32, allow_nan=True, allow_infinity=True)
_wild = st.lists(
    st.tuples(st.tuples(_any, _any, _any, _any), st.floats(0, 1, width=32), st.integers(0, 2)),
    max_size=5,
)


def _times(frames: Sequence[tuple[list[Thing], int]]) -> list[int]:
    return list(itertools.accumulate((pause for _, pause in frames), initial=1_000_000))[1:]


@settings(deadline=None, max_examples=40)
@given(_frames)
def test_the_same_input_gives_the_same_output_and_ids_are_never_reused(
    frames: list[tuple[list[Thing], int]],
) -> None:
    """An id belongs to one object from its first frame to its last, and new ones only rise."""
    times = _times(frames)

    first = run([things for things, _ in frames], times)
    second = run([things for things, _ in frames], times)

    assert first == second
    highest, numbered, ended = 0, 0, 0
    for result in first:
        assert ids(result) == sorted(set(ids(result)))
        fresh = [track_id for track_id in ids(result) if track_id > highest]
        assert fresh == list(range(highest + 1, highest + 1 + result.births))
        highest += result.births
        numbered, ended = numbered + result.births, ended + result.deaths
        assert ended <= numbered


@settings(deadline=None, max_examples=40)
@given(_frames, st.integers(0, 11))
def test_saving_and_restoring_between_any_two_frames_changes_nothing(
    frames: list[tuple[list[Thing], int]], cut: int
) -> None:
    """A state that was bytes in between goes on to the bit as one that never stopped."""
    times, things = _times(frames), [seen for seen, _ in frames]
    straight, saved = TrackerState(), TrackerState()

    expected = run(things, times, straight)
    before = run(things[:cut], times[:cut], saved)
    restored = TrackerState.from_bytes(saved.to_bytes())
    after = run(things[cut:], times[cut:], restored)

    assert before + after == expected
    assert restored.to_bytes() == straight.to_bytes()


@settings(deadline=None, max_examples=40)
@given(_frames, st.randoms(use_true_random=False))
def test_the_order_of_detections_does_not_matter(
    frames: list[tuple[list[Thing], int]], shuffler: random.Random
) -> None:
    """Shuffled detections give the same tracks and the same state, ties included."""
    times, things = _times(frames), [seen for seen, _ in frames]
    shuffled = [list(seen) for seen in things]
    for seen in shuffled:
        shuffler.shuffle(seen)
    one, other = TrackerState(), TrackerState()

    assert run(things, times, one) == run(shuffled, times, other)
    assert one.to_bytes() == other.to_bytes()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(_wild, st.integers(1, 5000)), min_size=1, max_size=8))
def test_degenerate_boxes_never_make_numbers_that_are_none(
    frames: list[tuple[list[Thing], int]],
) -> None:
    """Inverted, empty, huge, infinite and undefined boxes leave every number finite."""
    state = TrackerState()
    near = [square(50, 50)]

    for (things, _), ts_ms in zip(frames, _times(frames), strict=True):
        result = step(state, detections([*things, *near]), ts_ms, first_id=1)

        assert np.isfinite(state.numbers).all()
        assert math.isfinite(result.displacement_px)
        for track in result.tracks:
            assert np.isfinite([*track.xyxy, *track.velocity_px_s, track.confidence]).all()


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_the_assignment_is_the_best_of_all(rows: int, cols: int, seed: int) -> None:
    """No pairing has a larger sum of gains, and none without gain is made."""
    gain = np.random.default_rng(seed).integers(-4, 9, (rows, cols)).astype(np.float32)
    wide = gain if rows <= cols else gain.T
    best = max(
        sum(max(float(wide[row, col]), 0.0) for row, col in enumerate(chosen))
        for chosen in itertools.permutations(range(wide.shape[1]), wide.shape[0])
    )

    found = _assign(gain)

    assert float(gain[found].sum()) == best
    assert (gain[found] > 0).all()
    assert len(set(found[0].tolist())) == len(set(found[1].tolist())) == len(found[0])


def test_two_that_cross_keep_their_ids() -> None:
    """Objects that pass through each other at speed go on under their own ids."""
    frames = [[square(20 + 6 * k, 100), square(320 - 6 * k, 112)] for k in range(50)]

    results = run(frames, every(50))

    assert ids(results[-1]) == [1, 2]
    left, right = (track.xyxy[0] for track in results[-1].tracks)
    first_left, first_right = (track.xyxy[0] for track in results[1].tracks)
    assert (left > right) != (first_left > first_right)


def test_one_that_was_hidden_is_found_again_where_it_must_be() -> None:
    """After a second behind something, motion tells who comes out: no birth, no death."""
    frames = [[square(20 + 5 * k, 80)] if not 20 <= k < 45 else [] for k in range(70)]

    results = run(frames, every(70))

    assert ids(results[-1]) == [1]
    assert sum(result.births for result in results) == 1
    assert sum(result.deaths for result in results) == 0


def test_weak_detections_carry_a_track_but_start_none() -> None:
    """The second stage keeps an object whose confidence falls; alone it would be nobody."""
    kept = run([[square(100 + k, 80, 0.9 if k < 5 else 0.15)] for k in range(20)], every(20))
    never = run([[square(100 + k, 80, 0.15)] for k in range(20)], every(20))

    assert [ids(result) for result in kept[1:]] == [[1]] * 19
    assert kept[-1].tracks[0].confidence == pytest.approx(0.15)
    assert all(result == StepResult([]) for result in never)


def test_strong_detections_choose_before_weak_ones() -> None:
    """A weak box on the spot does not take the track from a strong one beside it."""
    frames = [[square(100, 80)]] * 4 + [[square(100, 80, 0.2), square(108, 80, 0.9)]]

    last = run(frames, every(5))[-1]

    assert [track.confidence for track in last.tracks] == [pytest.approx(0.9)]


def test_births_and_deaths_come_once_each_with_their_class() -> None:
    """Confirmed at the second look, given up `lost_ms` after the last; one look is neither."""
    times = [0, 40, 80, 80 + PARAMETERS.lost_ms, 81 + PARAMETERS.lost_ms]
    both = [square(50, 50, kind=3), square(300, 50, kind=7)]

    results = run([[*both, square(200, 300)], both, both, [], []], times)

    assert [result.born for result in results] == [(), (3, 7), (), (), ()]
    assert [result.ended for result in results] == [(), (), (), (), (3, 7)]
    assert (results[1].births, results[4].deaths) == (2, 2)


@pytest.mark.parametrize("interval_ms", [17, 40, 200, 1000])
def test_speed_does_not_depend_on_the_frame_rate(interval_ms: int) -> None:
    """60, 25, 5 and 1 frames per second see one object at 20 pixels a second."""
    times = every(6000 // interval_ms, interval_ms)

    results = run([[square(50 + (t - times[0]) / 50, 80)] for t in times], times)

    assert [ids(result) for result in results[1:]] == [[1]] * (len(times) - 1)
    (track,) = results[-1].tracks
    assert track.velocity_px_s == pytest.approx((20, 0), abs=1.5)
    assert track.age_ms == times[-1] - times[0]
    assert results[-1].displacement_px == pytest.approx(interval_ms / 50, abs=0.01)


def test_an_uneven_rate_keeps_the_track() -> None:
    """Pauses from 16 ms to 2 s between frames do not break one object into two."""
    times = list(itertools.accumulate([16, 40, 300, 16, 900, 40, 2000, 40, 16], initial=1_000_000))

    results = run([[square(50 + (t - times[0]) / 50, 80)] for t in times], times)

    assert {track_id for result in results for track_id in ids(result)} == {1}


@pytest.mark.parametrize("late_ms", [0, 1, 5000])
def test_a_frame_not_newer_than_the_newest_moves_nothing(late_ms: int) -> None:
    """A straggler gives no tracks and leaves the state as it was, to the byte."""
    state = TrackerState()
    run([[square(50, 50)]] * 5, every(5), state)
    before = state.to_bytes()

    result = step(state, detections([square(90, 90)]), every(5)[-1] - late_ms, first_id=9)

    assert result == StepResult([])
    assert state.to_bytes() == before


def test_numbers_begin_at_the_first_id_of_a_new_state_and_go_on_from_it() -> None:
    """Later first ids are not looked at; two sources share nothing."""
    one, other = TrackerState(), TrackerState()
    seen = detections([square(50, 50)])
    for index, ts_ms in enumerate(every(3)):
        last_of_one = step(one, seen, ts_ms, first_id=1_700_000_000_000 + index)
        last_of_other = step(other, seen, ts_ms, first_id=5)

    assert (ids(last_of_one), ids(last_of_other)) == ([1_700_000_000_000], [5])


def test_a_class_is_what_most_looks_say() -> None:
    """A wrong name now and then changes neither track nor class; a lasting one is taken over."""
    wrong_at_times = [[square(50, 50, 0.6, int(k % 4 == 3))] for k in range(20)]
    renamed = [[square(50, 50, 0.6, int(k >= 10))] for k in range(40)]

    steady, changed = run(wrong_at_times, every(20)), run(renamed, every(40))

    assert {track.class_id for result in steady for track in result.tracks} == {0}
    assert ids(changed[-1]) == [1]
    assert changed[-1].tracks[0].class_id == 1


def test_one_object_under_two_names_is_one_track() -> None:
    """The weaker of two boxes of different class on the same spot starts nothing."""
    frames = [[square(50 + k, 50, 0.9, 2), square(51 + k, 50, 0.5, 7)] for k in range(10)]

    results = run(frames, every(10))

    assert [ids(result) for result in results[1:]] == [[1]] * 9


def test_the_number_of_tracks_is_bounded() -> None:
    """A frame full of boxes starts `max_tracks` of them, the surest."""
    parameters, state = Parameters(max_tracks=3), TrackerState()
    crowd = detections([square(60 * k, 50, 0.9 - k / 100) for k in range(20)])

    for ts_ms in every(3):
        result = step(state, crowd, ts_ms, parameters=parameters, first_id=1)

    assert ids(result) == [1, 2, 3]
    assert len(state) == 3


def test_a_state_is_small() -> None:
    """Less than 88 bytes for each track, as they are in memory."""
    state = TrackerState()
    run([[square(60 * k, 50) for k in range(30)]] * 2, every(2), state)

    assert len(state) == 30
    assert len(state.to_bytes()) < 20 + 30 * 66


def test_the_version_before_is_read() -> None:
    """Version 1 is version 2 with its marks as they are."""
    state = TrackerState()
    run([[square(60 * k, 50) for k in range(3)]] * 2, every(2), state)
    saved, marks = state.to_bytes(), 20 + 3 * 56
    plain = b"\x01" + saved[1:marks] + zlib.decompress(saved[marks:])

    assert TrackerState.from_bytes(plain).to_bytes() == saved
    with pytest.raises(ValueError, match=r"tracker state|deflated"):
        TrackerState.from_bytes(plain[:-1])


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x00" + bytes(19), b"\x02" + bytes(19),
                                  b"\x03" + bytes(19), TrackerState().to_bytes() + b"\x00",
                                  TrackerState().to_bytes()[:-1], b"\x02" + b"\x01" * 40,
                                  b"\x02" + bytes(19) + zlib.compress(bytes(88))])  # fmt: skip
def test_bytes_of_another_version_or_length_are_refused(data: bytes) -> None:
    """What this version cannot have written is not read."""
    with pytest.raises(ValueError, match=r"tracker state|deflated"):
        TrackerState.from_bytes(data)


def test_a_first_id_below_one_is_refused() -> None:
    """Zero means a track without a number."""
    with pytest.raises(ValueError, match="first_id 0"):
        step(TrackerState(), Detections.empty(), 1, first_id=0)
