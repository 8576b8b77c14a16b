"""Dead letters: what is kept of an entry that can never succeed (contract, section 4)."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from tests.streams import Streams, a_source, at, key, key_in, pack, partition_of

REASONS = {"undecodable", "too_large", "bad_field", "wrong_partition", "bad_version", "poison"}


def original(data: bytes) -> Any:
    """Decode `entry` as fields of bytes, as Redis gives them."""
    return msgpack.unpackb(data, raw=True)


async def test_a_dead_letter_says_what_the_contract_says(score_only: Streams) -> None:
    source = a_source()

    bad = await score_only.event(source, value="much")
    await score_only.settled(source)

    (letter,) = await score_only.of("dead", source)
    assert set(letter.raw) >= {"stream", "id", "source", "reason", "error", "deliveries", "entry"}
    assert (letter["stream"], letter["id"], letter["source"]) == ("events", bad, source)
    assert letter["reason"] in REASONS
    assert "value" in letter["error"]
    assert int(letter["deliveries"]) >= 1
    assert at(letter.id) >= at(bad)


async def test_the_entry_of_a_dead_letter_is_the_original(score_only: Streams) -> None:
    source = a_source()
    fields: dict[str, str | bytes] = {
        "channel": "motion",
        "value": "nan",
        "meta": pack({"a": b"\xff"}),
        "note": "unknown fields, too",
        "raw": b"\x00\xff\xc1",
    }

    await score_only.add("events", source, {**fields})
    await score_only.settled(source)

    (letter,) = await score_only.of("dead", source)
    published = {"source": source, **fields}
    assert original(letter.raw["entry"]) == {
        name.encode(): value if isinstance(value, bytes) else value.encode()
        for name, value in published.items()
    }


async def test_bytes_that_are_no_text_survive_in_a_dead_letter(score_only: Streams) -> None:
    part = 5

    bad = await score_only.add_raw(part, "events", {"source": b"\xff\xfe", "value": b"\x80"})
    await score_only.settled_in({part})

    letters = await score_only.entries(key_in(part, "dead"))
    (letter,) = [letter for letter in letters if letter["id"] == bad]
    assert letter["reason"] == "bad_field"
    assert original(letter.raw["entry"]) == {b"source": b"\xff\xfe", b"value": b"\x80"}


async def test_a_dead_letter_has_no_source_where_the_name_is_no_name(score_only: Streams) -> None:
    bad = await score_only.event("no name")
    await score_only.settled("no name")

    letters = await score_only.entries(key("dead", "no name"))
    (letter,) = [letter for letter in letters if letter["id"] == bad]
    assert "source" not in letter
    assert not await score_only.redis.exists(key("state:no name", "no name"))
    assert await score_only.redis.zscore(key("sources", "no name"), "no name") is None


async def test_a_large_event_keeps_sizes_and_digest(score_only: Streams) -> None:
    source = a_source()

    await score_only.event(source, note="x" * 2_000_000, value="much")
    await score_only.settled(source)

    (letter,) = await score_only.of("dead", source)
    assert len(letter.raw["entry"]) < 10_000
    assert b"2000000" in letter.raw["entry"] or 2_000_000 in _numbers(original(letter.raw["entry"]))


@pytest.mark.parametrize("version", ["0", "3", "x", ""])
async def test_detections_of_an_unknown_version_are_a_dead_letter(
    score_only: Streams, version: str
) -> None:
    source = a_source()
    neighbour = a_source(partition=partition_of(source))
    before = await score_only.ledger(partition_of(source))

    fields: dict[str, str | bytes] = {
        "v": version,
        "frame": "1-0",
        "stream": "frames",
        "ts": "1",
        "data": pack({}),
    }
    bad = await score_only.add("detections", source, {**fields})
    score_only.foreign[partition_of(source)] += 1
    await score_only.event(neighbour)
    await score_only.settled(source)

    (letter,) = await score_only.of("dead", source)
    assert (letter["stream"], letter["id"]) == ("detections", bad)
    assert letter["reason"] == "bad_version"
    after = await score_only.ledger(partition_of(source))
    assert after["detections_dead"] == before.get("detections_dead", 0) + 1
    assert len(await score_only.scores(neighbour)) == 1


def _numbers(value: Any) -> set[int]:
    if isinstance(value, dict):
        return set[int]().union(*map(_numbers, value.values()))
    return {value} if isinstance(value, int) else set()
