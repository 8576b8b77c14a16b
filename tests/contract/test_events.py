"""Events as anybody may publish them, valid and invalid (contract, section 3)."""

from __future__ import annotations

import math
import time

import pytest

from tests.streams import Fields, Streams, a_source, at, key, pack, partition_of, unpack

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NAMES = [f"channel-{number}" for number in range(20)]


def now_ms() -> int:
    return int(time.time() * 1000)


VALID: dict[str, Fields] = {
    "text value": {"channel": "motion", "value": "0.8"},
    "negative value": {"channel": "motion", "value": "-3"},
    "exponent": {"channel": "motion", "value": "1e-3"},
    "map of values": {"values": pack({"motion": 0.8, "sound": 3, "light": -2.5})},
    "large whole number": {"values": pack({"motion": 2**53})},
    "all letters of the alphabet": {"channel": "Az09._:-", "value": "1"},
    "64 characters": {"channel": "c" * 64, "value": "1"},
    "ts long ago": {"channel": "motion", "value": "1", "ts": "1000"},
    "ts a little ahead": {"channel": "motion", "value": "1", "ts": str(now_ms() + 50_000)},
    "kind": {"channel": "motion", "value": "1", "kind": "door"},
    "heartbeat without values": {"kind": "heartbeat"},
    "heartbeat with values": {"kind": "heartbeat", "channel": "motion", "value": "1"},
    "meta": {"channel": "motion", "value": "1", "meta": pack({"room": 3})},
    "meta of 4 KiB": {"channel": "motion", "value": "1", "meta": pack({"a": "x" * 4090})},
    "traceparent": {"channel": "motion", "value": "1", "traceparent": TRACEPARENT},
    "seq with producer": {"channel": "motion", "value": "1", "seq": "7", "producer": "run-1"},
    "16 channels": {"values": pack(dict.fromkeys(NAMES[:16], 1.0))},
}


@pytest.mark.parametrize("fields", VALID.values(), ids=VALID.keys())
async def test_a_valid_event_is_scored(score_only: Streams, fields: Fields) -> None:
    source = a_source()

    async with score_only.counting(source) as counted:
        entry_id = await score_only.add("events", source, fields)

    (score,) = await score_only.scores(source)
    assert (score["kind"], score["inputs"], score["n"]) == ("event", "1", "1")
    assert score["first"] == score["last"] == entry_id
    assert counted["events_scored"] == 1
    assert not await score_only.of("dead", source)


INVALID: dict[str, Fields] = {
    "nothing observed": {},
    "a kind that is no heartbeat, without values": {"kind": "door"},
    "channel without value": {"channel": "motion"},
    "value without channel": {"value": "1"},
    "misspelt value": {"channel": "motion", "valeu": "1"},
    "misspelt values": {"vlaues": pack({"motion": 1.0})},
    "value that is no number": {"channel": "motion", "value": "much"},
    "empty value": {"channel": "motion", "value": ""},
    "value NaN": {"channel": "motion", "value": "nan"},
    "value infinity": {"channel": "motion", "value": "inf"},
    "value minus infinity": {"channel": "motion", "value": "-Infinity"},
    "value too large to be finite": {"channel": "motion", "value": "1e999"},
    "NaN in values": {"values": pack({"motion": math.nan})},
    "infinity in values": {"values": pack({"motion": 1.0, "sound": math.inf})},
    "text in values": {"values": pack({"motion": "much"})},
    "list in values": {"values": pack({"motion": [1.0]})},
    "nothing in values": {"values": pack({"motion": None})},
    "values that are a list": {"values": pack([1.0, 2.0])},
    "values that are a number": {"values": pack(1.0)},
    "number as a channel's name": {"values": pack({1: 1.0})},
    "space in a channel's name": {"channel": "my motion", "value": "1"},
    "empty channel": {"channel": "", "value": "1"},
    "channel of 65 characters": {"channel": "c" * 65, "value": "1"},
    "channel in another alphabet": {"values": pack({"Bewegung-ä": 1.0})},
    "ts that is no number": {"channel": "motion", "value": "1", "ts": "yesterday"},
    "ts NaN": {"channel": "motion", "value": "1", "ts": "nan"},
    "ts in the future": {"channel": "motion", "value": "1", "ts": str(now_ms() + 3_600_000)},
    "seq without producer": {"channel": "motion", "value": "1", "seq": "1"},
    "producer without seq": {"channel": "motion", "value": "1", "producer": "run-1"},
    "seq that is no number": {
        "channel": "motion",
        "value": "1",
        "seq": "first",
        "producer": "run-1",
    },
    "meta that is no map": {"channel": "motion", "value": "1", "meta": pack([1])},
    "meta over 4 KiB": {"channel": "motion", "value": "1", "meta": pack({"a": "x" * 4100})},
    "17 channels": {"values": pack(dict.fromkeys(NAMES[:17], 1.0))},
}


@pytest.mark.parametrize("fields", INVALID.values(), ids=INVALID.keys())
async def test_an_invalid_event_is_a_dead_letter_between_unharmed_neighbours(
    score_only: Streams, fields: Fields
) -> None:
    source = a_source()

    async with score_only.counting(source) as counted:
        before = await score_only.event(source)
        bad = await score_only.add("events", source, fields)
        after = await score_only.event(source)

    (letter,) = await score_only.of("dead", source)
    assert (letter["id"], letter["stream"], letter["reason"]) == (bad, "events", "bad_field")
    assert letter["error"]
    assert counted == {"events_scored": 2, "events_dead": 1}
    scores = await score_only.scores(source)
    assert scores[0]["first"] == before
    assert scores[-1]["last"] == after
    assert scores[-1]["n"] == "2"


GARBAGE = {
    "random bytes": b"\xc1\xff\x00\x8fgarbage",
    "truncated map": pack({"motion": 1.0})[:-3],
    "more after the map": pack({"motion": 1.0}) + b"\x01",
    "a map that claims four thousand million pairs": b"\xdf\xff\xff\xff\xff",
    "deeply nested": b"\x91" * 5000,
    "empty": b"",
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE.keys())
@pytest.mark.parametrize("name", ["values", "meta"])
async def test_garbage_in_msgpack_is_a_dead_letter(
    score_only: Streams, name: str, data: bytes
) -> None:
    source = a_source()

    async with score_only.counting(source) as counted:
        bad = await score_only.event(source, **{name: data})
        good = await score_only.event(source)

    (letter,) = await score_only.of("dead", source)
    assert letter["id"] == bad
    assert letter["reason"] in {"bad_field", "undecodable"}
    (score,) = await score_only.scores(source)
    assert score["first"] == good
    assert counted == {"events_scored": 1, "events_dead": 1}


BAD_SOURCES = {
    "empty": "",
    "129 characters": "s" * 129,
    "space": "robot 7",
    "slash": "robot/7",
    "brace": "robot{7}",
    "line end": "robot-7\n",
    "another alphabet": "kamera-ä",
}


@pytest.mark.parametrize("source", BAD_SOURCES.values(), ids=BAD_SOURCES.keys())
async def test_a_bad_source_name_is_a_bad_field(score_only: Streams, source: str) -> None:
    neighbour = a_source(partition=partition_of(source))

    async with score_only.counting(neighbour) as counted:
        bad = await score_only.event(source)
        good = await score_only.event(neighbour)

    letters = await score_only.entries(key("dead", source))
    (letter,) = [letter for letter in letters if letter["id"] == bad]
    assert letter["reason"] == "bad_field"
    assert (await score_only.scores(neighbour))[0]["first"] == good
    assert counted == {"events_scored": 1, "events_dead": 1}


@pytest.mark.parametrize("fields", [{}, {"sorce": "robot-7"}], ids=["missing", "misspelt"])
async def test_an_event_without_source_is_a_bad_field(score_only: Streams, fields: Fields) -> None:
    neighbour = a_source()

    async with score_only.counting(neighbour) as counted:
        observed = {"channel": "motion", "value": "1"}
        bad = await score_only.add_raw(partition_of(neighbour), "events", {**observed, **fields})

    letters = await score_only.entries(key("dead", neighbour))
    (letter,) = [letter for letter in letters if letter["id"] == bad]
    assert letter["reason"] == "bad_field"
    assert "source" not in letter
    assert counted == {"events_dead": 1}


async def test_a_source_name_has_up_to_128_characters(score_only: Streams) -> None:
    source = a_source("Az09._:-").ljust(128, "x")

    await score_only.event(source)
    await score_only.settled(source)

    assert len(await score_only.scores(source)) == 1


async def test_an_event_in_another_partition_is_told_the_right_one(score_only: Streams) -> None:
    source = a_source(partition=7)

    bad = await score_only.add("events", source, {"channel": "motion", "value": "1"}, partition=8)
    await score_only.settled_in({7, 8})

    letters = await score_only.entries("percipio:{p008}:dead")
    (letter,) = [letter for letter in letters if letter["id"] == bad]
    assert (letter["reason"], letter["source"]) == ("wrong_partition", source)
    assert "p007" in letter["error"]
    assert not await score_only.scores(source)


async def test_a_source_has_room_for_16_channels(score_only: Streams) -> None:
    source = a_source()

    async with score_only.counting(source) as counted:
        for name in NAMES[:17]:
            last = await score_only.event(source, channel=name, value="1")
        await score_only.event(source, channel=NAMES[0], value="1")

    (letter,) = await score_only.of("dead", source)
    assert (letter["id"], letter["reason"]) == (last, "bad_field")
    assert NAMES[16] in letter["error"]
    assert counted == {"events_scored": 17, "events_dead": 1}


async def test_a_refused_event_takes_no_room(score_only: Streams) -> None:
    source = a_source()

    async with score_only.counting(source) as counted:
        await score_only.event(source, values=pack(dict.fromkeys(NAMES[:17], 1.0)))
        await score_only.event(source, values=pack(dict.fromkeys(NAMES[1:17], 1.0)))

    assert counted == {"events_scored": 1, "events_dead": 1}


async def test_ts_is_the_time_of_the_entry_where_it_is_missing(score_only: Streams) -> None:
    source = a_source()

    entry_id = await score_only.event(source)
    await score_only.settled(source)

    (score,) = await score_only.scores(source)
    assert int(score["ts"]) == at(entry_id)[0]


async def test_ts_is_taken_as_given(score_only: Streams) -> None:
    source = a_source()

    await score_only.event(source, ts="1700000000123")
    await score_only.settled(source)

    (score,) = await score_only.scores(source)
    assert score["ts"] == "1700000000123"


async def test_meta_and_traceparent_are_echoed(score_only: Streams) -> None:
    source = a_source()
    meta = {"room": 3, "tags": ["a", "b"], "deep": {"er": None}, "raw": b"\x00\xff"}

    await score_only.event(source)
    await score_only.event(source, meta=pack(meta), traceparent=TRACEPARENT)
    await score_only.event(source)
    await score_only.settled(source)

    scores = await score_only.scores(source)
    assert [score["inputs"] for score in scores] == ["1", "1", "1"]
    assert scores[1].data["meta"] == meta, scores[1]
    assert scores[1].data["traceparent"] == TRACEPARENT
    assert "meta" not in scores[0].data
    assert "traceparent" not in scores[2].data


async def test_inputs_are_removed_once_they_are_done(score_only: Streams) -> None:
    source = a_source()

    entry_id = await score_only.event(source)
    await score_only.settled(source)

    assert not await score_only.redis.xrange(key("events", source), entry_id, entry_id)


async def test_a_dead_letter_shows_in_the_state_of_its_source(score_only: Streams) -> None:
    source = a_source()

    await score_only.event(source, value="much", channel="motion")
    await score_only.settled(source)

    state = await score_only.state(source)
    assert state["dead"] == "1"
    assert "bad_field" in state["last_problem"]
    (letter,) = await score_only.of("dead", source)
    assert unpack(letter.raw["entry"])
