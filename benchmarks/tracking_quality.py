"""Scores tracks against truth: MOTA, id switches, fragmentations, IDF1; exact, on numpy and scipy.

Bernardin and Stiefelhagen 2008 (CLEAR MOT); Ristani et al. 2016 (IDF1). Class-agnostic.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

Moment = tuple[Sequence[int], NDArray[np.float64], Sequence[int], NDArray[np.float64]]
"""Truth ids, truth boxes (n, 4), track ids, track boxes (m, 4) of one frame."""


@dataclass(slots=True)
class Quality:
    """Counts over all frames; `mean_iou` is that of the boxes counted as hits."""

    objects: int = 0
    misses: int = 0
    false: int = 0
    switches: int = 0
    fragments: int = 0
    identity_hits: int = 0
    reported: int = 0
    overlap: float = 0.0

    def __add__(self, other: Quality) -> Quality:
        names = self.__slots__
        return Quality(*(getattr(self, name) + getattr(other, name) for name in names))

    @property
    def mota(self) -> float:
        """Give one minus the errors per object; can be negative."""
        return 1 - (self.misses + self.false + self.switches) / max(self.objects, 1)

    @property
    def idf1(self) -> float:
        """Give the share of boxes under the right identity, over the whole story."""
        return 2 * self.identity_hits / max(self.objects + self.reported, 1)

    @property
    def mean_iou(self) -> float:
        """Give how exactly the boxes lie that were right."""
        return self.overlap / max(self.objects - self.misses, 1)


@dataclass(slots=True)
class _Story:
    """What is remembered of one true object: the track that had it last, and whether it has one."""

    track: int | None = None
    held: bool = False
    ever: bool = False


@dataclass(slots=True)
class _Judge:
    stories: dict[int, _Story] = field(default_factory=dict)
    together: Counter[tuple[int, int]] = field(default_factory=Counter)
    quality: Quality = field(default_factory=Quality)


def measure(moments: Sequence[Moment], iou: float = 0.5) -> Quality:
    """Compare tracks with truth; a box counts from an overlap of `iou` on."""
    judge = _Judge()
    for truth_ids, truth, track_ids, tracks in moments:
        overlap = box_iou(truth, tracks)
        for i, j in np.argwhere(overlap >= iou):
            judge.together[truth_ids[i], track_ids[j]] += 1
        pairs = _pair(judge, truth_ids, track_ids, overlap, iou)
        _count(judge, truth_ids, track_ids, pairs, overlap)
    judge.quality.identity_hits = _identity_hits(judge.together)
    return judge.quality


def box_iou(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the overlap of every pair of boxes, (n, 4) and (m, 4) to (n, m)."""
    a, b = first.reshape(-1, 1, 4), second.reshape(1, -1, 4)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    common = np.prod(np.maximum(sides, 0), axis=-1)
    areas = np.prod(a[..., 2:] - a[..., :2], axis=-1) + np.prod(b[..., 2:] - b[..., :2], axis=-1)
    return np.asarray(common / np.maximum(areas - common, 1e-9))


def _pair(
    judge: _Judge, truth_ids: Sequence[int], track_ids: Sequence[int],
    overlap: NDArray[np.float64], iou: float,
) -> list[tuple[int, int]]:  # fmt: skip
    """Keep the pairs of before while they overlap, then take most pairs with most overlap."""
    columns = {track: j for j, track in enumerate(track_ids)}
    pairs: list[tuple[int, int]] = []
    for i, truth_id in enumerate(truth_ids):
        story = judge.stories.get(truth_id)
        j = columns.get(story.track) if story and story.track is not None else None
        if j is not None and overlap[i, j] >= iou and all(j != taken for _, taken in pairs):
            pairs.append((i, j))
    gain = np.where(overlap >= iou, overlap + len(truth_ids) + len(track_ids), 0.0)
    for i, j in pairs:
        gain[i, :] = gain[:, j] = 0
    rows, cols = linear_sum_assignment(gain, maximize=True)
    return pairs + [(int(i), int(j)) for i, j in zip(rows, cols, strict=True) if gain[i, j] > 0]


def _count(
    judge: _Judge, truth_ids: Sequence[int], track_ids: Sequence[int],
    pairs: list[tuple[int, int]], overlap: NDArray[np.float64],
) -> None:  # fmt: skip
    quality, held = judge.quality, dict(pairs)
    quality.objects += len(truth_ids)
    quality.reported += len(track_ids)
    quality.misses += len(truth_ids) - len(pairs)
    quality.false += len(track_ids) - len(pairs)
    for i, truth_id in enumerate(truth_ids):
        story = judge.stories.setdefault(truth_id, _Story())
        if i in held:
            track = track_ids[held[i]]
            quality.overlap += float(overlap[i, held[i]])
            quality.switches += story.track is not None and story.track != track
            quality.fragments += story.ever and not story.held
            story.track, story.ever = track, True
        story.held = i in held


def _identity_hits(together: Counter[tuple[int, int]]) -> int:
    """Give the most frames that one track per object and one object per track can explain."""
    if not together:
        return 0
    objects = {truth: i for i, truth in enumerate(dict.fromkeys(pair[0] for pair in together))}
    tracks = {track: j for j, track in enumerate(dict.fromkeys(pair[1] for pair in together))}
    gain = np.zeros((len(objects), len(tracks)))
    for (truth, track), count in together.items():
        gain[objects[truth], tracks[track]] = count
    rows, cols = linear_sum_assignment(gain, maximize=True)
    return int(gain[rows, cols].sum())
