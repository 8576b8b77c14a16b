"""Cursors, gaps, states and results as readers get them."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import SettingsError
from pipeline.follow import Facts, place
from pipeline.results import read_cursor, read_entry, read_state, write_cursor

STREAMS = st.tuples(st.integers(0, 999), st.integers(0, 1))
POSITIONS = st.tuples(st.integers(0, 2**43), st.integers(0, 9), st.integers(0, 2**40))


@given(st.dictionaries(STREAMS, POSITIONS))
def test_a_cursor_is_read_back(positions: dict[tuple[int, int], tuple[int, int, int]]) -> None:
    assert read_cursor(write_cursor(positions)) == positions


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda raw: raw.hex()))
def test_no_other_text_is_a_cursor(text: str) -> None:
    with pytest.raises(SettingsError, match="is not a cursor"):
        read_cursor(text)


def test_a_cursor_over_16_partitions_fits_into_a_header() -> None:
    positions = {
        (part, kind): (1_795_442_339_084 + 977 * part, kind, 123_456 + 31 * part)
        for part in range(16)
        for kind in range(2)
    }

    assert len(write_cursor(positions)) < 700


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 6), st.integers(0, 6)), max_size=30))
def test_what_was_trimmed_unread_is_counted_exactly(steps: list[tuple[int, int, int]]) -> None:
    """Trimmed before a read or between it and our question: nothing is missed in silence."""
    ids: list[tuple[int, int]] = []
    position, trimmed, read, missed = (0, 0, 0), 0, 0, 0

    for number, (added, cut, cut_later) in enumerate([*steps, (1, 0, 0)]):
        ids += [(number + 1, n) for n in range(added)]
        last = number == len(steps)
        trimmed = min(len(ids), trimmed + cut)
        batch = [key for key in ids[trimmed:] if key > position[:2]][: None if last else 4]
        trimmed = min(len(ids), trimmed + cut_later)
        kept = ids[trimmed:]
        first = kept[0] if kept else (ids[-1][0], ids[-1][1] + 1)
        facts = Facts(len(ids), len(kept), first, ids[-1])
        for each in place((0, 0), [(b"%d-%d" % key, {}) for key in batch], position, facts):
            position = each.position
            missed += each.missed
            read += 1

    assert read + missed == len(ids)
    assert position[2] == len(ids)


def test_a_stream_that_began_anew_is_a_gap() -> None:
    entries = [(b"9-0", {b"": b""}), (b"9-1", {b"": b""})]

    placed = list(place((0, 0), entries, (5, 0, 100), Facts(2, 2, (9, 0), (9, 1))))

    assert [each.missed for each in placed] == [1, 0]
    assert placed[-1].position == (9, 1, 2)


def test_a_state_has_numbers_as_numbers() -> None:
    state = read_state(
        {b"v": b"1", b"level": b"0", b"seq": b"12", b"ts": b"-5", b"phase": b"active"}
        | {b"integration": b"0.25", b"last_problem": b"7", b"odd": b"x", b"model": b"m@1"}
    )

    assert state == {
        "v": 1,
        "level": 0.0,
        "seq": 12,
        "ts": -5,
        "phase": "active",
        "integration": 0.25,
        "last_problem": "7",
        "odd": "x",
        "model": "m@1",
    }
    assert isinstance(state["level"], float)


def test_a_result_merges_its_data_and_goes_into_json() -> None:
    data = msgpack.packb({"components": {"novelty": 0.5}, "core": ["a"]})
    fields = {b"v": b"1", b"source": b"s", b"ts": b"7", b"kind": b"event", b"level": b"0.5000"}
    fields |= {b"data": data, b"meta": msgpack.packb({b"k": b"\xff"})}

    result = read_entry((3, 1), b"8-0", fields)

    assert result is not None
    assert (result.kind, result.id, result.ts_ms) == ("scores", "p003/8-0", 7)
    assert result.as_json() == {
        "result": "scores",
        "id": "p003/8-0",
        "v": 1,
        "source": "s",
        "ts": 7,
        "kind": "event",
        "level": 0.5,
        "components": {"novelty": 0.5},
        "core": ["a"],
        "meta": {"k": "\N{REPLACEMENT CHARACTER}"},
    }


@pytest.mark.parametrize(
    "fields",
    [{}, {b"source": b"s"}, {b"source": b"s", b"ts": b"x"}, {b"\xff": b""}, {b"data": b"\xc1"}],
)
def test_what_is_no_result_is_passed_over(fields: dict[bytes, bytes]) -> None:
    assert read_entry((0, 0), b"1-0", fields) is None
