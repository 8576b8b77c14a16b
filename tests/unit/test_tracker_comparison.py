"""The tracker beside supervision's ByteTrack, on the same detections of scenes with known truth."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import tracking_truth as truth
from benchmarks.tracking import follow_ours, judge, supervision
from benchmarks.tracking_quality import Quality

FIRST_SEED = 200
"""The parameters were chosen on seeds below this."""


def compared(kind: truth.Kind, seeds: int, seconds: float) -> tuple[Quality, Quality]:
    """Give our quality and ByteTrack's over scenes of one kind."""
    ours, theirs = Quality(), Quality()
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        frames = list(truth.frames(kind, seed, seconds))
        ours += judge(follow_ours, frames, kind.fps)
        theirs += judge(supervision(lost_s=1.0), frames, kind.fps)
    return ours, theirs


# The first is what a default run has time for, the second what docs/tracking.md shows.
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("seeds", "seconds"), [(1, 5.0), pytest.param(3, 30.0, marks=pytest.mark.long)]
)
def test_identities_are_kept_at_least_as_well(seeds: int, seconds: float) -> None:
    """Over all kinds of scenes mean IDF1 is no lower, and there are no more id switches."""
    pairs = [compared(kind, seeds, seconds) for kind in truth.KINDS]

    ours, theirs = (list(each) for each in zip(*pairs, strict=True))
    assert len(pairs) == 11
    assert min(quality.objects for quality in ours) > 50
    assert np.mean([q.idf1 for q in theirs]) > 0.6
    assert np.mean([q.idf1 for q in ours]) >= np.mean([q.idf1 for q in theirs])
    assert sum(q.switches for q in ours) <= sum(q.switches for q in theirs)
