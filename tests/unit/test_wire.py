"""Entries as values: what is accepted, what is refused and how; nothing else can happen."""

from __future__ import annotations

import math
from contextlib import suppress

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import wire, wire_results
from pipeline.errors import EntryError, Reason
from pipeline.partition import partition_of
from pipeline.records import Detections

P = 16
SOURCE = "robot-7"
HERE = partition_of(SOURCE, P)
ID = b"1700000000000-3"
GOOD = {b"source": b"robot-7", b"channel": b"motion", b"value": b"0.8"}
FRAME = {b"source": b"robot-7", b"image": b"\xff\xd8..."}


def refused(fields: dict[bytes, bytes], *, frame: bool = False) -> EntryError:
    read = wire.read_frame if frame else wire.read_event
    with pytest.raises(EntryError) as caught:
        read(ID, fields, HERE, P)
    return caught.value


def test_the_partition_of_the_contracts_example() -> None:
    """`robot-7` belongs to p007 of 16."""
    assert HERE == 7


def test_an_event_of_redis_cli() -> None:
    """A channel and a value as text are enough; time is the entry id's."""
    event = wire.read_event(ID, GOOD, HERE, P)

    assert event.values == {"motion": 0.8}
    assert (event.envelope.source, event.envelope.ts_ms) == (SOURCE, 1700000000000)
    assert (event.envelope.seq, event.envelope.meta, event.kind) == (None, None, None)


def test_an_event_with_everything() -> None:
    """All optional fields are read."""
    trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    fields = {
        b"source": b"robot-7",
        b"values": msgpack.packb({"a": 1, "b": -2.5}),
        b"ts": b"1600000000000",
        b"seq": b"12",
        b"producer": b"run-1",
        b"kind": b"tool-call",
        b"meta": msgpack.packb({"k": [1, 2]}),
        b"traceparent": trace,
    }

    event = wire.read_event(ID, fields, HERE, P)

    assert event.values == {"a": 1.0, "b": -2.5}
    assert event.kind == "tool-call"
    head = event.envelope
    assert (head.ts_ms, head.seq, head.producer) == (1600000000000, 12, "run-1")
    assert head.echo() == [
        "seq",
        12,
        "producer",
        "run-1",
        "meta",
        fields[b"meta"],
        "traceparent",
        trace,
    ]


def test_a_heartbeat_needs_no_values() -> None:
    """Quiet, not absent."""
    event = wire.read_event(ID, {b"source": b"robot-7", b"kind": b"heartbeat"}, HERE, P)

    assert event.values == {}


BAD_EVENTS = {
    "no source": {b"channel": b"a", b"value": b"1"},
    "bad source": GOOD | {b"source": b"robot 7"},
    "source no text": GOOD | {b"source": b"\xff\xfe"},
    "long source": GOOD | {b"source": b"x" * 129},
    "nan": GOOD | {b"value": b"nan"},
    "infinity": GOOD | {b"value": b"-inf"},
    "no number": GOOD | {b"value": b"fast"},
    "no value": {b"source": b"robot-7", b"channel": b"a"},
    "no channel": {b"source": b"robot-7", b"value": b"1"},
    "nothing": {b"source": b"robot-7"},
    "both": GOOD | {b"values": msgpack.packb({"a": 1})},
    "misspelt": GOOD | {b"vlaue": b"1"},
    "garbage": {b"source": b"robot-7", b"values": b"\xc1\x00"},
    "trailing": {b"source": b"robot-7", b"values": msgpack.packb({"a": 1}) + b"x"},
    "no map": {b"source": b"robot-7", b"values": msgpack.packb([1, 2])},
    "true": {b"source": b"robot-7", b"values": msgpack.packb({"a": True})},
    "text value": {b"source": b"robot-7", b"values": msgpack.packb({"a": "1"})},
    "nan value": {b"source": b"robot-7", b"values": msgpack.packb({"a": math.nan})},
    "huge int": {b"source": b"robot-7", b"values": msgpack.packb({"a": 2**63})},
    "bad channel": {b"source": b"robot-7", b"values": msgpack.packb({"a b": 1})},
    "number channel": {b"source": b"robot-7", b"values": msgpack.packb({1: 1})},
    "ts text": GOOD | {b"ts": b"now"},
    "ts negative": GOOD | {b"ts": b"-1"},
    "ts ahead": GOOD | {b"ts": b"1700000060001"},
    "seq alone": GOOD | {b"seq": b"1"},
    "producer alone": GOOD | {b"producer": b"run"},
    "seq negative": GOOD | {b"seq": b"-1", b"producer": b"run"},
    "seq huge": GOOD | {b"seq": b"9007199254740993", b"producer": b"run"},
    "bad producer": GOOD | {b"seq": b"1", b"producer": b"a b"},
    "meta no map": GOOD | {b"meta": msgpack.packb(1)},
    "meta large": GOOD | {b"meta": msgpack.packb({"x": "y" * 4096})},
    "trace": GOOD | {b"traceparent": b"00-xyz"},
    "long kind": GOOD | {b"kind": b"k" * 65},
}


@pytest.mark.parametrize("fields", BAD_EVENTS.values(), ids=BAD_EVENTS.keys())
def test_a_bad_event_is_refused(fields: dict[bytes, bytes]) -> None:
    """Each with `bad_field` and a sentence."""
    error = refused(fields)

    assert error.reason is Reason.BAD_FIELD
    assert len(str(error)) > 10


def test_ts_may_be_a_minute_ahead() -> None:
    """Exactly 60 s ahead of the entry id is accepted."""
    assert wire.read_event(ID, GOOD | {b"ts": b"1700000060000"}, HERE, P).envelope.ts_ms > 0


def test_the_right_partition_is_named() -> None:
    """An entry elsewhere is `wrong_partition` and says where it belongs."""
    with pytest.raises(EntryError, match=r"\{p007\}") as caught:
        wire.read_event(ID, GOOD, 3, P)

    assert caught.value.reason is Reason.WRONG_PARTITION


@pytest.mark.parametrize(
    "fields", [{b"source": b"robot-7"}, FRAME | {b"image": b""}, FRAME | {b"img": b"x"}]
)
def test_a_frame_without_a_picture_is_refused(fields: dict[bytes, bytes]) -> None:
    """Missing, empty and misspelt."""
    assert refused(fields, frame=True).reason is Reason.BAD_FIELD


FIELD_NAMES = st.sampled_from(
    [b"source", b"image", b"values", b"channel", b"value", b"ts", b"seq", b"producer", b"meta"]
)
BYTES = st.binary(max_size=40) | st.sampled_from(
    [b"robot-7", b"1", b"\x81\xa1a\x01", b"\x80", b"nan"]
)


@given(st.dictionaries(FIELD_NAMES | st.binary(max_size=8), BYTES, max_size=8))
def test_whatever_comes_only_entry_errors_are_raised(fields: dict[bytes, bytes]) -> None:
    """Random fields are read or refused; nothing else can happen."""
    for read in (wire.read_event, wire.read_frame, wire_results.read_detection):
        with suppress(EntryError):
            assert read(ID, fields, HERE, P).envelope.source == SOURCE


@given(
    st.dictionaries(
        st.from_regex(r"[A-Za-z0-9._:-]{1,64}", fullmatch=True),
        st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53),
        min_size=1,
        max_size=16,
    )
)
def test_values_survive_the_wire(values: dict[str, float]) -> None:
    """What is published is what is read, as floats."""
    fields = {b"source": b"robot-7", b"values": msgpack.packb(values)}

    assert wire.read_event(ID, fields, HERE, P).values == {k: float(v) for k, v in values.items()}


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.floats(0, 1, width=32), st.floats(0, 1000, width=32)),
        max_size=8,
    )
)
def test_detections_survive_the_wire(found: list[tuple[int, float, float]]) -> None:
    """Objects come back as they were, to a hundredth of a pixel."""
    labels = ("person", "car", "dog")
    detections = Detections(
        np.array([[x, x + 1, x + 20, x + 30] for _, _, x in found], np.float32).reshape(-1, 4),
        np.array([c for _, c, _ in found], np.float32),
        np.array([k for k, _, _ in found], np.int32),
    )
    frame = wire.read_frame(ID, FRAME | {b"meta": msgpack.packb({"a": 1})}, HERE, P)
    facts = {"model": "m@0", "width": 640, "height": 480, "cached": False, "timing": {}}

    flat = wire_results.detection_fields(frame, "frames", detections, labels, facts)
    fields = {
        str(name).encode(): value if isinstance(value, bytes) else str(value).encode()
        for name, value in zip(flat[::2], flat[1::2], strict=True)
    }
    entry = wire_results.read_detection(b"1700000000100-0", fields, HERE, P)

    assert entry.frame == ID
    assert entry.labels == tuple(labels[k] for k, _, _ in found)
    np.testing.assert_allclose(entry.detections.xyxy, detections.xyxy, atol=0.006)
    np.testing.assert_allclose(entry.detections.confidence, detections.confidence, atol=1e-4)
    assert entry.envelope.meta == msgpack.packb({"a": 1})
    assert wire_results.read_result(fields)["meta"] == {"a": 1}


def test_an_unknown_version_of_a_result_is_refused() -> None:
    """Detections written by a later contract are `bad_version`."""
    with pytest.raises(EntryError) as caught:
        wire_results.read_detection(ID, FRAME | {b"v": b"9"}, HERE, P)

    assert caught.value.reason is Reason.BAD_VERSION


def test_labels_are_counted_most_frequent_first() -> None:
    """`car:3,person:1`."""
    assert wire_results.count_labels(["car", "person", "car", "car"]) == "car:3,person:1"
    assert wire_results.count_labels([]) == ""


def test_a_large_dead_letter_keeps_sizes_and_a_digest() -> None:
    """Over 1 MiB the image itself is not kept."""
    fields = FRAME | {b"image": b"x" * (2**20 + 1)}
    flat = wire_results.dead_fields("frames", ID, fields, EntryError(Reason.UNDECODABLE, "no"), 2)
    letter = dict(zip(flat[::2], flat[1::2], strict=True))

    entry = msgpack.unpackb(letter["entry"])
    assert entry[b"image"] == 2**20 + 1
    assert len(entry[b"image_sha256"]) == 64
    assert (letter["reason"], letter["deliveries"]) == ("undecodable", 2)
