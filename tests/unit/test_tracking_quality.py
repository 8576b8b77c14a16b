"""The measures that trackers are compared by, against motmetrics and by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from benchmarks.tracking_quality import Moment, box_iou, measure
from benchmarks.tracking_videos import lengths


def story(seed: int, frames: int = 60) -> list[Moment]:
    """Objects on paths of their own; tracks with gaps, swaps, noise and inventions."""
    rng = np.random.default_rng(seed)
    start, speed = rng.uniform(0, 150, (5, 2)), rng.normal(0, 1.5, (5, 2))
    names = np.arange(5)
    moments: list[Moment] = []
    for index in range(frames):
        centre = start + speed * index
        truth = np.concatenate([centre, centre + 40], axis=1)
        if rng.random() < 0.08:
            names = rng.permutation(5) if rng.random() < 0.5 else names + 5
        seen = rng.random(5) > 0.2
        there = rng.random(5) > 0.1
        invented = rng.uniform(0, 150, (1, 4)) + np.array([0, 0, 150, 150])
        noisy = truth[seen] + rng.normal(0, 4, (int(seen.sum()), 4))
        tracks = np.concatenate([noisy, invented])
        ids = [*names[seen].tolist(), 1000 + index]
        moments.append((np.flatnonzero(there).tolist(), truth[there], ids, tracks))
    return moments


@pytest.mark.parametrize("seed", range(8))
def test_the_measures_agree_with_motmetrics(seed: int) -> None:
    """MOTA, IDF1, switches, misses and false positives are those of the reference library."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import motmetrics

        moments, book = story(seed), motmetrics.MOTAccumulator(auto_id=True)
        for truth_ids, truth, track_ids, tracks in moments:
            distance = 1 - box_iou(truth, tracks)
            distance[distance > 0.5] = np.nan
            book.update(truth_ids, track_ids, distance)
        names = ["mota", "idf1", "num_switches", "num_misses", "num_false_positives"]
        expected = motmetrics.metrics.create().compute(book, metrics=names).iloc[0]

    found = measure(moments)

    assert found.switches > 0
    assert found.mota == pytest.approx(expected["mota"], abs=1e-12)
    assert found.idf1 == pytest.approx(expected["idf1"], abs=1e-12)
    assert [found.switches, found.misses, found.false] == expected[names[2:]].astype(int).tolist()


def test_a_swap_of_two_ids_is_two_switches() -> None:
    """Halfway each object gets the other's id: half of the boxes are under the right one."""
    boxes = np.array([[0, 0, 10, 10], [50, 0, 60, 10]], np.float64)
    moments: list[Moment] = [([1, 2], boxes, [7, 8] if k < 5 else [8, 7], boxes) for k in range(10)]

    found = measure(moments)

    assert (found.switches, found.fragments, found.mean_iou) == (2, 0, 1.0)
    assert (found.idf1, found.mota) == (0.5, 0.9)


def test_a_gap_is_a_fragment_and_no_switch() -> None:
    """An object that is missed for a while and found under its id was followed in two parts."""
    box = np.array([[0, 0, 10, 10]], np.float64)
    gap: Moment = ([1], box, [], np.zeros((0, 4)))
    seen: Moment = ([1], box, [7], box)

    found = measure([seen, seen, gap, gap, seen])

    assert (found.fragments, found.switches, found.misses) == (1, 0, 2)


def test_lengths_count_frames_and_gaps() -> None:
    """Two tracks of three frames and of one; the first has a gap."""
    found = lengths([[1], [1, 2], [], [1]])

    assert (found.tracks, found.mean, found.median, found.boxes) == (2, 2.0, 2.0, 4)
    assert (found.fragments, found.weighted) == (1, 2.5)
