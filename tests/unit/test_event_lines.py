"""Events as lines: JSON or CSV, told by the first line; what is wrong with one is named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import EntryError, SettingsError
from pipeline.event_lines import EventLines
from pipeline.outgoing import Event


def test_json_lines_with_all_fields() -> None:
    lines = EventLines("s")

    events = [
        lines.read(b'\xef\xbb\xbf{"values": {"a": 1}}\r'),
        lines.read(b"  "),
        lines.read(b'{"ts": 5, "values": {}, "kind": "heartbeat", "meta": {"k": 1}}'),
    ]

    assert events == [
        Event("s", {"a": 1}),
        None,
        Event("s", {}, 5, "heartbeat", {"k": 1}),
    ]


def test_csv_with_its_columns_in_any_order_and_without_ts() -> None:
    lines = EventLines("s")

    events = [lines.read(line) for line in (b"", b"Value, channel,ts", b"0.5, m ,7", b'1,"n",')]
    short = EventLines("s")

    assert events == [None, None, Event("s", {"m": 0.5}, 7), Event("s", {"n": 1.0}, None)]
    assert [short.read(b"channel,value"), short.read(b"m,2")] == [None, Event("s", {"m": 2.0})]


@pytest.mark.parametrize("first", [b"a,b", b"ts,channel", b"ts,ts,channel,value", b"[1]", b"m 5"])
def test_a_first_line_that_is_neither_is_wrong_usage(first: bytes) -> None:
    with pytest.raises(SettingsError, match="neither a JSON object nor a header"):
        EventLines("s").read(first)


@pytest.mark.parametrize(
    ("first", "line", "says"),
    [
        (b"{}", b"{", "not JSON"),
        (b"{}", b"[1]", "not a JSON object"),
        (b"{}", b'{"value": 1}', "'value': no such field"),
        (b"{}", b"\xff", "not UTF-8"),
        (b"{}", b"[" * 100_000, "not JSON"),
        (b"{}", b"x" * 2**21, "2097152 bytes, at most"),
        (b"ts,channel,value", b"1,2", "2 columns, the header has 3"),
        (b"ts,channel,value", b"1,m,x", "value: not a number: 'x'"),
        (b"ts,channel,value", b"1.5,m,1", "ts: not whole Unix milliseconds"),
        (b"ts,channel,value", b'1,"m,1', "not CSV"),
    ],
)
def test_a_wrong_line_says_what_is_wrong(first: bytes, line: bytes, says: str) -> None:
    lines = EventLines("s")
    lines.read(first)

    with pytest.raises(EntryError, match=says):
        lines.read(line)


@given(st.sampled_from((b"{}", b"ts,channel,value")), st.binary(max_size=40))
def test_no_line_raises_anything_else(first: bytes, line: bytes) -> None:
    lines = EventLines("s")
    lines.read(first)

    try:
        event = lines.read(line)
    except EntryError as error:
        event = None
        assert str(error)  # noqa: PT017 - either is right, nothing else may be raised
    assert event is None or event.source == "s"
