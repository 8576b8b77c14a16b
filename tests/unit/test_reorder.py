"""Frames leave the reorder buffer in order, once, and within its patience."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.records import Detections
from pipeline.reorder import Reorder
from pipeline.wire import Envelope
from pipeline.wire_results import DetectionEntry

NOTHING_PENDING = {"frames": None, "recordings": None}
STUCK = {"frames": b"0-0", "recordings": None}


def detection(frame_ms: int, done_ms: int, stream: str = "frames") -> tuple[bytes, DetectionEntry]:
    entry_id = b"%d-0" % done_ms
    envelope = Envelope(entry_id, done_ms, "cam-1", frame_ms)
    frame = b"%d-0" % frame_ms
    return entry_id, DetectionEntry(envelope, frame, stream, "m", 4, 4, Detections.empty(), ())


def frames(released: list[tuple[bytes, DetectionEntry]]) -> list[bytes]:
    return [entry.frame for _, entry in released]


def test_a_frame_waits_for_an_earlier_one_that_is_pending() -> None:
    """Frame 20 is held while frame 10 is pending, and leaves behind it."""
    reorder = Reorder(2000)
    reorder.add([detection(20, 100)])

    assert reorder.release({"frames": b"10-0", "recordings": None}, 150) == []
    assert reorder.ids == [b"100-0"]

    reorder.add([detection(10, 160)])
    assert frames(reorder.release(NOTHING_PENDING, 170)) == [b"10-0", b"20-0"]
    assert len(reorder) == 0


def test_patience_ends() -> None:
    """A frame is not held for ever by one that never comes."""
    reorder = Reorder(2000)
    reorder.add([detection(20, 100)])

    assert reorder.release({"frames": b"10-0", "recordings": None}, 2099) == []
    assert frames(reorder.release({"frames": b"10-0", "recordings": None}, 2100)) == [b"20-0"]


def test_no_frame_leaves_before_an_earlier_one_that_is_there() -> None:
    """Frame 30 has waited for long enough, frame 20, which was done after it, has not."""
    reorder = Reorder(2000)
    reorder.add([detection(30, 100), detection(20, 110), detection(40, 120)])

    released = reorder.release({"frames": b"10-0", "recordings": None}, 2105)

    assert frames(released) == [b"20-0", b"30-0"]
    assert reorder.ids == [b"120-0"]


@given(st.permutations(range(1, 12)), st.lists(st.integers(1, 60), min_size=11, max_size=11))
def test_whatever_patience_does(order: list[int], pauses: list[int]) -> None:
    """Of what was added before a call, nothing comes out after a later frame of its source."""
    reorder, now_ms, out, late = Reorder(100), 1000, list[int](), set[int]()
    for frame, pause_ms in zip(order, pauses, strict=True):
        now_ms += pause_ms
        reorder.add([detection(frame, now_ms)])
        if out and frame < max(out):
            late.add(frame)
        out += [int(each[:-2]) for each in frames(reorder.release(STUCK, now_ms))]
    out += [int(each[:-2]) for each in frames(reorder.release(NOTHING_PENDING, now_ms))]

    in_time = [frame for frame in out if frame not in late]
    assert in_time == sorted(in_time)
    assert sorted(out) == sorted(order)


def test_streams_do_not_hold_each_other() -> None:
    """A pending recording holds back no live frame."""
    reorder = Reorder(2000)
    reorder.add([detection(20, 100, "frames"), detection(21, 101, "recordings")])

    released = reorder.release({"frames": None, "recordings": b"5-0"}, 110)

    assert frames(released) == [b"20-0"]


@given(st.permutations(range(1, 20)), st.integers(1, 5))
def test_whatever_the_order_of_completion(order: list[int], workers: int) -> None:
    """With exact knowledge of what is pending every frame comes out once and in order."""
    reorder, out = Reorder(10_000), []
    for at, frame in enumerate(order):
        reorder.add([detection(frame, 1000 + at)])
        if at % workers == 0:
            left = order[at + 1 :]
            floor = b"%d-0" % min(left) if left else None
            out += frames(reorder.release({"frames": floor, "recordings": None}, 1000 + at))
    out += frames(reorder.release(NOTHING_PENDING, 1100))

    assert out == [b"%d-0" % frame for frame in range(1, 20)]
