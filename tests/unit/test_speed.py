"""The speed benchmark counts and compares rightly; the figures are its own business."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from benchmarks.speed import as_json, shares
from benchmarks.speed_frames import Sample, median, never_the_same
from benchmarks.speed_loops import prepared
from benchmarks.speed_stream import Ages
from pipeline.image import decode, encode_jpeg


def picture() -> bytes:
    """Noise, as JPEG."""
    return encode_jpeg(np.random.default_rng(1).integers(0, 255, (54, 96, 3), np.uint8))


def test_the_share_is_that_of_the_same_round() -> None:
    """A round that was slow for both changes nothing."""
    bare = [Sample(10, 1.0, 2.0), Sample(10, 5.0, 2.0), Sample(10, 1.0, 2.0)]
    pipeline = [Sample(10, 1.25, 2.5), Sample(10, 6.25, 2.5), Sample(10, 1.0, 2.5)]

    (row,) = shares({"bare": bare, "pipeline": pipeline})

    assert row["times_as_fast"] == 0.8
    assert (row["from"], row["to"]) == (0.8, 1.0)
    assert row["by_cpu_time"] == 0.8


def test_a_row_is_a_time_a_frame() -> None:
    found = as_json({"pipeline": [Sample(4, 0.2, 0.4, 20)]}, {"one": Ages(5, 4, 1.0, [1, 2, 3, 4])})

    (row,) = found["rows"]
    assert (row["ms"], row["frames_per_s"], row["cpu_ms"], row["objects"]) == (50, 20, 100, 5)
    assert found["live"][0]["p50_ms"] == 2.5
    assert found["live"][0]["offered"] - found["live"][0]["detected"] == 1


def test_no_frame_is_the_same_and_all_show_the_same() -> None:
    """A comment makes each its own for the cache; the picture is untouched."""
    jpeg = picture()

    made = list(islice(never_the_same([jpeg]), 3))

    assert len({*made, jpeg}) == 4
    for one in made:
        assert (decode(one).image == decode(jpeg).image).all()


def test_prepared_batches_are_full() -> None:
    jpeg = picture()

    batches = prepared([jpeg] * 5, 2)

    assert [batch.shape[0] for batch in batches] == [2, 2]
    assert all(batch.shape[1] % 32 == 0 == batch.shape[2] % 32 for batch in batches)


@pytest.mark.parametrize(("values", "middle"), [([3, 1, 2], 2), ([4, 1, 2, 3], 2.5)])
def test_the_median(values: list[float], middle: float) -> None:
    assert median(values) == middle
