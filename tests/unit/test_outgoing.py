"""What the client refuses is what a worker would refuse, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import EntryError, Reason
from pipeline.outgoing import Draft, Event, Frame, draft_event, draft_frame
from pipeline.partition import Keys, partition_of
from pipeline.wire import MAX_NUMBER, read_event, read_frame

KEYS = Keys()
NOW_MS = 1_800_000_000_000
PNG = (
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x08\0\0\0\x06\x08\x02\0\0\0ThU\x1f"
    b"\0\0\0\0IEND\xaeB\x60\x82"
)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NAMES = st.text("abcXYZ019._:-", min_size=1, max_size=64)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


def fields_of(draft: Draft) -> dict[bytes, bytes]:
    return dict(zip(draft.fields[::2], draft.fields[1::2], strict=True))


def event_of(**given: Any) -> Draft:
    return draft_event(Event(**{"source": "robot-7", "values": {"a": 1.0}} | given), KEYS, NOW_MS)


def frame_of(**given: Any) -> Draft:
    frame = Frame(**{"source": "robot-7", "image": PNG} | given)
    return draft_frame(frame, frame.image, KEYS, NOW_MS)  # type: ignore[arg-type]


def test_an_event_carries_every_field() -> None:
    draft = event_of(
        values={"a": 1, "b": -0.5}, ts_ms=5, kind="x", meta={"k": [1, "é"]}, traceparent=TRACE
    )

    event = read_event(b"%d-0" % NOW_MS, fields_of(draft), 7, 16)
    assert (draft.stream, draft.partition) == ("events", 7)
    assert (event.values, event.kind, event.envelope.ts_ms) == ({"a": 1.0, "b": -0.5}, "x", 5)
    assert msgpack.unpackb(event.envelope.meta or b"") == {"k": [1, "é"]}
    assert event.envelope.traceparent == TRACE.encode()


@pytest.mark.parametrize(("live", "stream"), [(True, "frames"), (False, "recordings")])
def test_a_frame_goes_where_its_class_of_service_is(live: bool, stream: str) -> None:
    draft = frame_of(live=live, ts_ms=NOW_MS + 60_000)

    frame = read_frame(b"%d-0" % NOW_MS, fields_of(draft), 7, 16)
    assert draft.stream == stream
    assert (frame.image, frame.envelope.ts_ms) == (PNG, NOW_MS + 60_000)
    assert draft.size_bytes > len(PNG)


def test_a_time_is_only_sent_when_given() -> None:
    assert b"ts" not in fields_of(event_of())
    assert not event_of().has_ts
    assert event_of(ts_ms=0).has_ts


def test_numbers_of_numpy_are_numbers() -> None:
    values = {"a": np.float32(0.5), "b": np.int64(3), "c": np.float64(2.5)}

    fields = fields_of(event_of(values=values))

    assert msgpack.unpackb(fields[b"values"]) == {"a": 0.5, "b": 3.0, "c": 2.5}


def test_a_heartbeat_has_no_values() -> None:
    assert set(fields_of(event_of(values={}, kind="heartbeat"))) == {b"source", b"kind"}


WRONG: list[tuple[str, Mapping[str, Any]]] = [
    ("source", {"source": ""}),
    ("source", {"source": "a b"}),
    ("source", {"source": "x" * 129}),
    ("source", {"source": "\ud800"}),
    ("source", {"source": None}),
    ("values", {"values": {}}),
    ("values", {"values": {"a": math.nan}}),
    ("values", {"values": {"a": -math.inf}}),
    ("values", {"values": {"a": np.float32("nan")}}),
    ("values", {"values": {"a": True}}),
    ("values", {"values": {"a": "1"}}),
    ("values", {"values": {"a": None}}),
    ("values", {"values": {"a": 2**53 + 1}}),
    ("values", {"values": {"a b": 1}}),
    ("values", {"values": {"": 1}}),
    ("values", {"values": {"x" * 65: 1}}),
    ("values", {"values": {5: 1}}),
    ("values", {"values": [("a", 1)]}),
    ("ts", {"ts_ms": -1}),
    ("ts", {"ts_ms": 1.5}),
    ("ts", {"ts_ms": True}),
    ("ts", {"ts_ms": "5"}),
    ("ts", {"ts_ms": NOW_MS + 60_001}),
    ("ts", {"ts_ms": 2**53 + 1}),
    ("kind", {"kind": ""}),
    ("kind", {"kind": "x" * 65}),
    ("kind", {"kind": 5}),
    ("kind", {"kind": "\ud800"}),
    ("meta", {"meta": {"k": "x" * 4096}}),
    ("meta", {"meta": {"k": object()}}),
    ("meta", {"meta": {"k": 2**70}}),
    ("meta", {"meta": [1]}),
    ("traceparent", {"traceparent": "00-zz"}),
    ("traceparent", {"traceparent": 5}),
]


@pytest.mark.parametrize(("name", "given"), WRONG)
def test_a_wrong_field_is_named(name: str, given: Mapping[str, Any]) -> None:
    with pytest.raises(EntryError, match=rf"^{name}: ") as raised:
        event_of(**given)

    assert raised.value.reason is Reason.BAD_FIELD


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (b"", Reason.BAD_FIELD),
        ("text", Reason.BAD_FIELD),
        (None, Reason.BAD_FIELD),
        (b"GIF89a", Reason.UNDECODABLE),
        (PNG[:20], Reason.UNDECODABLE),
        (b"\xff\xd8\xff" + bytes(16 * 2**20), Reason.TOO_LARGE),
        (PNG[:16] + b"\0\0\xff\xff" * 2 + PNG[24:], Reason.TOO_LARGE),
    ],
    ids=["empty", "text", "none", "gif", "cut", "bytes", "pixels"],
)
def test_a_picture_that_would_be_a_dead_letter_is_refused(image: Any, reason: Reason) -> None:
    with pytest.raises(EntryError, match=r"image|png") as raised:
        frame_of(image=image)

    assert raised.value.reason is reason


@given(
    source=NAMES,
    values=st.dictionaries(NAMES, NUMBERS | st.integers(-MAX_NUMBER, MAX_NUMBER), min_size=1),
    ts_ms=st.none() | st.integers(0, NOW_MS),
)
def test_whatever_is_accepted_is_read_back(
    source: str, values: dict[str, float], ts_ms: int | None
) -> None:
    draft = draft_event(Event(source, values, ts_ms), KEYS, NOW_MS)

    event = read_event(b"%d-0" % NOW_MS, fields_of(draft), partition_of(source, 16), 16)
    assert (event.envelope.source, event.values) == (source, values)
    assert event.envelope.ts_ms == (NOW_MS if ts_ms is None else ts_ms)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.tuples(ANYTHING, ANYTHING, ANYTHING, ANYTHING, ANYTHING, ANYTHING))
def test_anything_else_is_our_own_error(given: tuple[Any, ...]) -> None:
    with suppress(EntryError):
        draft = draft_event(Event(*given), KEYS, NOW_MS)
        assert read_event(b"%d-0" % NOW_MS, fields_of(draft), draft.partition, 16)
