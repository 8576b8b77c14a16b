"""Reading events in columns takes exactly what the rules take, and says the same of it."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import msgpack
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import EntryError
from pipeline.event_reader import EventReader
from pipeline.score_inputs import Inputs
from pipeline.wire import read_event

PARTITION, PARTITIONS = 7, 16
WHOLE = st.integers(-(1 << 63), (1 << 64) - 1)  # what msgpack can hold
NUMBERS = st.one_of(st.floats(), WHOLE, st.booleans(), st.none(), st.text(max_size=2))
VALUES = st.dictionaries(st.sampled_from(["a", "b", "c d", "e"]), NUMBERS, max_size=3)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        b"source": st.sampled_from([b"robot-7", b"robot-8", b"robot 7", b"\xff"]),
        b"values": VALUES.map(msgpack.packb) | st.binary(max_size=4),
        b"channel": st.just(b"a"),
        b"value": st.sampled_from([b"1", b"nan"]),
        b"ts": st.sampled_from([b"0", b"1700000000000", b"1800000000000", b"-1", b"x", b"9" * 20]),
        b"producer": st.sampled_from([b"run-1", b"run 1"]),
        b"seq": st.sampled_from([b"1", b"x", b"9" * 16, b""]),
        b"kind": st.just(b"heartbeat"),
        b"meta": st.sampled_from([msgpack.packb({}), b"x"]),
        b"other": st.just(b""),
    },
)
GOOD = {b"source": b"robot-7", b"values": msgpack.packb({"a": 1.5, "b": 2.0})}
NUMBERED = GOOD | {b"producer": b"run-1", b"seq": b"3", b"ts": b"1700000000000"}


def read(entries: list[tuple[bytes, dict[bytes, bytes]]]) -> Inputs:
    batch = Inputs()
    EventReader(PARTITION, PARTITIONS).take(deque(entries), batch, 10_000, 10_000)
    return batch


def row(batch: Inputs, index: int) -> Any:
    bad = batch.bad.get(index)
    if bad is not None:
        assert isinstance(bad.value, EntryError)
        return bad.value.reason, str(bad.value)
    return (
        batch.source[index],
        batch.added_ms[index],
        batch.ts_ms[index],
        dict(batch.values[index]),
        batch.producer[index],
        batch.seq[index],
        batch.echoes.get(index),
    )


def by_the_rules(entry_id: bytes, fields: dict[bytes, bytes]) -> Any:
    try:
        event = read_event(entry_id, fields, PARTITION, PARTITIONS)
    except EntryError as error:
        return error.reason, str(error)
    head = event.envelope
    echo = head if head.meta is not None or head.traceparent is not None else None
    numbers = (head.producer, head.seq)
    return (head.source, head.added_ms, head.ts_ms, event.values, *numbers, echo)


@settings(deadline=None, max_examples=200)
@given(st.lists(FIELDS | st.sampled_from([GOOD, NUMBERED]), max_size=8))
def test_columns_hold_what_the_rules_give(rows: list[dict[bytes, bytes]]) -> None:
    """After names were learned from sound events every entry is read as if it came alone."""
    entries = [(b"1700000000000-%d" % k, fields) for k, fields in enumerate([NUMBERED, *rows])]

    batch = read(entries)

    assert [row(batch, k) for k in range(len(batch))] == [by_the_rules(*each) for each in entries]


def test_values_beyond_every_number_are_refused_after_learning() -> None:
    """The quick way is no way around the rules."""
    bad = GOOD | {b"values": msgpack.packb({"a": math.inf, "b": -math.inf})}
    batch = read([(b"5-0", GOOD), (b"6-0", bad), (b"7-0", GOOD)])

    assert list(batch.bad) == [1]


def test_a_batch_ends_at_its_bounds() -> None:
    """Room, sources and an id to stop at; what is left stays in line."""
    entries = [(b"%d-0" % k, GOOD) for k in range(1, 6)]
    other = (b"6-0", GOOD | {b"source": b"lab-10"})
    reader, waiting = EventReader(PARTITION, PARTITIONS), deque([*entries, other])

    assert reader.take(waiting, Inputs(), 10, 1, before=(3, 0))
    assert waiting[0][0] == b"3-0"
    assert not reader.take(waiting, Inputs(), 2, 1)
    assert [entry_id for entry_id, _ in waiting] == [b"5-0", b"6-0"]
    last = Inputs()
    assert not reader.take(waiting, last, 10, 1)
    assert (len(last), len(waiting)) == (1, 1)


def test_a_source_that_is_gone_is_forgotten() -> None:
    reader = EventReader(PARTITION, PARTITIONS)
    reader.take(deque([(b"1700000000000-0", GOOD)]), Inputs(), 10, 10)
    assert list(reader.sources) == ["robot-7"]

    reader.forget(["robot-7", "never-seen"])

    assert not reader.sources
    batch = Inputs()
    reader.take(deque([(b"1700000000000-1", GOOD)]), batch, 10, 10)
    assert batch.source == ["robot-7"]
