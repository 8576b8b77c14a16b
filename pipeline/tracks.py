"""What is remembered of the objects of one source, and how it moves: a constant-velocity Kalman.

Pure numpy, one column per track. A state is a value: it can be saved, restored and sent on.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.deflated import deflate, inflate
from pipeline.records import Track

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
Rows = NDArray[np.intp]

STATE_VERSION = 2
_PLAIN_VERSION = 1
"""The one before, whose marks are as they are."""
_HEADER = struct.Struct("<BBHqq")  # version, any frame seen, tracks, newest_ms, next_id

# Rows of TrackerState.numbers. Centre, size and their speeds share one 2x2 covariance per track
# (_PP, _PV, _VV) in units of the object's size, because every noise is a share of it.
_BOX, _SPEED, _SEEN = slice(0, 4), slice(4, 8), slice(11, 13)
_CENTRE, _SIZE, _CENTRE_SPEED, _SIZE_SPEED = slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 8)
_WIDTH, _HEIGHT = 2, 3
_PP, _PV, _VV, _VOTE, _NUMBERS = 8, 9, 10, 13, 14
# Rows of TrackerState.marks.
_ID, _FIRST_MS, _LAST_MS, _CLASS, _MARKS = 0, 1, 2, 3, 4


@dataclass(frozen=True, slots=True)
class Parameters:
    """How the tracker decides; `docs/tracking.md` has the measurements behind the values.

    Two stages, strong detections first, are ByteTrack's (Zhang et al. 2022, arXiv 2110.06864); its
    thresholds for strong and new, 0.6 and 0.7, are far above what this detector is used from.
    Growing boxes before comparing them follows C-BIoU (Yang et al. 2023, arXiv 2211.14317), here
    by the filter's own uncertainty, so that it matters at 1 fps and vanishes at 60.

    Attributes:
        high_confidence: detections of the first stage; those below wait for the second.
        low_confidence: below this a detection is ignored.
        start_confidence: from here on an unmatched detection starts a track.
        overlap_floor: least overlap (IoU of grown boxes) of a track and its next detection.
        tentative_floor: the same for a track seen once, whose speed is not known yet.
        class_penalty: taken off the overlap where the classes differ.
        twin_overlap: a detection that overlaps a better one this much starts no track: one
            object under two names. The detector's NMS does this within a class.
        vote_limit: confidence by which a track's class can be ahead of a rival's at most.
        lost_ms: an unseen track ends after this time.
        measurement_noise: standard deviation of an observed position, in object sizes (the root
            of the area). ByteTrack's filter: 1/20 of the height.
        wander: unexplained change of position, sizes per root second.
        push: unexplained change of speed, sizes/s per root second (white-noise acceleration:
            Bar-Shalom, Li and Kirubarajan 2001).
        start_speed: standard deviation of the unknown speed of a new track, sizes/s.
        max_tracks: no track starts beyond this number.
    """

    high_confidence: float = 0.3
    low_confidence: float = 0.1
    start_confidence: float = 0.35
    overlap_floor: float = 0.4
    tentative_floor: float = 0.3
    class_penalty: float = 0.3
    twin_overlap: float = 0.7
    vote_limit: float = 5.0
    lost_ms: int = 3000
    measurement_noise: float = 0.05
    wander: float = 0.12
    push: float = 0.6
    start_speed: float = 1.0
    max_tracks: int = 500


@dataclass(frozen=True, slots=True)
class Seen:
    """Usable detections of a frame in an order that does not depend on the one they came in.

    Attributes:
        xyxy: float32 (4, m), corners in pixels, one column per object.
        confidence: float32 (m,).
        class_id: int32 (m,).
    """

    xyxy: Floats
    confidence: Floats
    class_id: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.confidence)

    def take(self, cols: Rows) -> Seen:
        """Give some of them, in the order of `cols`."""
        return Seen(self.xyxy.take(cols, 1), self.confidence[cols], self.class_id[cols])


@dataclass(eq=False, slots=True)
class TrackerState:
    """All that is remembered of one source; a new one knows nothing.

    Attributes:
        numbers: float32 (14, n), motion and class vote; rows as named at the top of the module.
        marks: int64 (4, n), id (0 until confirmed), first and last time seen in ms, class.
        newest_ms: time of the newest frame, None before the first.
        next_id: id of the next track, 0 before the first frame.
    """

    numbers: Floats = field(default_factory=lambda: np.zeros((_NUMBERS, 0), np.float32))
    marks: Ints = field(default_factory=lambda: np.zeros((_MARKS, 0), np.int64))
    newest_ms: int | None = None
    next_id: int = 0

    def __len__(self) -> int:
        return len(self.marks[_ID])

    def has_seen(self, ts_ms: int) -> bool:
        """Tell whether a frame of this time, or a newer one, has been followed."""
        return self.newest_ms is not None and ts_ms <= self.newest_ms

    @property
    def ids(self) -> Ints:
        """Ids of the tracks, 0 for those not confirmed."""
        ids: Ints = self.marks[_ID]
        return ids

    @property
    def last_ms(self) -> Ints:
        """When each track was last seen."""
        last_ms: Ints = self.marks[_LAST_MS]
        return last_ms

    @property
    def class_ids(self) -> Ints:
        """Class of each track by vote."""
        class_ids: Ints = self.marks[_CLASS]
        return class_ids

    def corners(self) -> Floats:
        """Give (4, n) corners of where the tracks are thought to be."""
        return _corners(self.numbers[_BOX])

    def doubt_px(self) -> Floats:
        """Give (n,) standard deviations of the position, at most the size of the object."""
        numbers = self.numbers
        share = np.minimum(np.maximum(numbers[_PP], 0), 1)
        doubt: Floats = np.sqrt(share * numbers[_WIDTH] * numbers[_HEIGHT])
        return doubt

    def keep(self, kept: Flags) -> None:
        """Forget all tracks but these."""
        self.numbers, self.marks = self.numbers[:, kept], self.marks[:, kept]

    def to_bytes(self) -> bytes:
        """Give the state: 20 bytes, 56 for each track, and the marks deflated to some 70 in all."""
        seen = self.newest_ms is not None
        head = _HEADER.pack(STATE_VERSION, seen, len(self), self.newest_ms or 0, self.next_id)
        marks = deflate(self.marks.astype("<i8").tobytes())
        return head + self.numbers.astype("<f4").tobytes() + marks

    @classmethod
    def from_bytes(cls, data: bytes) -> TrackerState:
        """Restore what `to_bytes` gave, or the version before; later results are equal to the bit.

        Raises:
            ValueError: the version is not known or the length does not fit.
        """
        if not data or data[0] not in (_PLAIN_VERSION, STATE_VERSION):
            raise ValueError(f"tracker state: expected version {STATE_VERSION}, got {data[:1]!r}")
        if len(data) < _HEADER.size:
            raise ValueError(f"tracker state: {len(data)} bytes are less than a header")
        _, seen, count, newest_ms, next_id = _HEADER.unpack_from(data)
        middle, size = _HEADER.size + 4 * _NUMBERS * count, 8 * _MARKS * count
        rest = data[middle:] if data[0] == _PLAIN_VERSION else inflate(data[middle:], size)
        if len(rest) != size:
            raise ValueError(f"tracker state: {len(data)} bytes are not {count} tracks")
        numbers = np.frombuffer(data[_HEADER.size : middle], "<f4").astype(np.float32)
        marks = np.frombuffer(rest, "<i8").astype(np.int64)
        return cls(numbers.reshape(_NUMBERS, count), marks.reshape(_MARKS, count),
                   newest_ms if seen else None, next_id)  # fmt: skip


def predict(state: TrackerState, ts_ms: int, parameters: Parameters) -> None:
    """Move every track to the time of the next frame."""
    numbers, newest_ms = state.numbers, state.newest_ms or 0
    dt = min(ts_ms - newest_ms, parameters.lost_ms) / 1000
    numbers[_SIZE_SPEED] *= state.marks[_LAST_MS] == newest_ms  # the unseen must not grow or shrink
    numbers[_BOX] += numbers[_SPEED] * dt
    np.maximum(numbers[_SIZE], 1, out=numbers[_SIZE])
    pp, pv, vv = numbers[_PP], numbers[_PV], numbers[_VV]
    push = parameters.push**2
    pp += 2 * dt * pv + (dt**2 * vv + (parameters.wander**2 * dt + push * dt**3 / 3))
    pv += dt * vv + push * dt**2 / 2
    vv += push * dt


def correct(
    state: TrackerState, rows: Rows, seen: Seen, ts_ms: int, parameters: Parameters
) -> Floats:
    """Correct tracks by what was seen of them, one detection for each of `rows`.

    Returns:
        (k,) paths of the observed centres since each was last seen, in pixels.
    """
    numbers, low, high = state.numbers.take(rows, 1), seen.xyxy[:2], seen.xyxy[2:]
    size, centre = high - low, (low + high) * 0.5
    # Kalman gain of position and of speed
    trust = numbers[_PP:_VV] / (numbers[_PP] + parameters.measurement_noise**2)
    surprise = np.concatenate((centre, size)) - numbers[_BOX]
    numbers[_BOX] += trust[0] * surprise
    numbers[_SPEED] += trust[1] * surprise
    np.maximum(numbers[_SIZE], 1, out=numbers[_SIZE])
    numbers[_VV] -= trust[1] * numbers[_PV]
    numbers[_PP:_VV] *= 1 - trust[0]
    path = centre - numbers[_SEEN]
    numbers[_SEEN] = centre
    state.marks[_LAST_MS, rows] = ts_ms
    numbers[_VOTE] = _vote(state, rows, numbers[_VOTE], seen, parameters.vote_limit)
    state.numbers[:, rows] = numbers
    path_px: Floats = np.hypot(path[0], path[1])
    return path_px


def _vote(state: TrackerState, rows: Rows, vote: Floats, seen: Seen, limit: float) -> Floats:
    """Count for a track's class or against it, and rename it when it falls behind."""
    named = state.marks[_CLASS, rows] == seen.class_id
    vote = vote + np.where(named, seen.confidence, -seen.confidence)
    renamed = vote < 0
    if np.count_nonzero(renamed):
        state.marks[_CLASS, rows[renamed]] = seen.class_id[renamed]
        vote = np.abs(vote)
    return np.minimum(vote, limit)


def begin(state: TrackerState, seen: Seen, ts_ms: int, parameters: Parameters) -> None:
    """Add a tentative track for each detection, at rest but free to move."""
    low, high = seen.xyxy[:2], seen.xyxy[2:]
    numbers = np.zeros((_NUMBERS, len(seen)), np.float32)
    numbers[_CENTRE] = numbers[_SEEN] = (low + high) * 0.5
    numbers[_SIZE] = high - low
    numbers[_PP] = parameters.measurement_noise**2
    numbers[_VV] = parameters.start_speed**2
    numbers[_VOTE] = seen.confidence
    marks = np.zeros((_MARKS, len(seen)), np.int64)
    marks[_FIRST_MS] = marks[_LAST_MS] = ts_ms
    marks[_CLASS] = seen.class_id
    state.numbers = np.concatenate((state.numbers, numbers), axis=1)
    state.marks = np.concatenate((state.marks, marks), axis=1)


def confirm(state: TrackerState, rows: Rows) -> tuple[int, ...]:
    """Number the tracks among `rows` that have none yet, and give their classes."""
    new = rows[state.marks[_ID, rows] == 0]
    if not len(new):
        return ()
    new.sort()
    state.marks[_ID, new] = np.arange(state.next_id, state.next_id + len(new))
    state.next_id += len(new)
    return tuple(state.marks[_CLASS, new].tolist())


def report(state: TrackerState, rows: Rows, confidence: Floats) -> list[Track]:
    """Describe tracks, lowest id first; `confidence` is of the detection of each."""
    order = state.marks[_ID, rows].argsort()
    rows = rows[order]
    numbers, marks = state.numbers.take(rows, 1), state.marks.take(rows, 1).T.tolist()
    corners, speeds = _corners(numbers[_BOX]).T.tolist(), numbers[_CENTRE_SPEED].T.tolist()
    return [
        Track(track_id, class_id, sure, tuple(corner), last_ms - first_ms, tuple(speed))
        for (track_id, first_ms, last_ms, class_id), sure, corner, speed in zip(
            marks, confidence[order].tolist(), corners, speeds, strict=True
        )
    ]


def _corners(box: Floats) -> Floats:
    half = box[_SIZE] * 0.5
    return np.concatenate((box[_CENTRE] - half, box[_CENTRE] + half))
