"""The command line, as programs use it (contract, section 5)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.contract.conftest import Ground
from tests.streams import (
    EVENT_TERMS,
    FRAME_TERMS,
    PARTITIONS,
    SCORED_TERMS,
    Streams,
    a_source,
    partition_of,
    picture,
)

USAGE = 2


def percipio(
    ground: Ground, *arguments: str, words: str | None = None, timeout_s: float = 30
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "workers.main", *arguments],
        env=os.environ | {"PERCIPIO_REDIS_URL": ground.url},
        input=words,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def lines(ended: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """Read JSON lines, of which nothing but JSON is allowed."""
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


async def test_status_prints_the_terms_and_the_difference(
    score_only: Streams, ground: Ground
) -> None:
    source = a_source()
    await score_only.event(source)
    await score_only.event(source, value="much")
    await score_only.settled_in(range(PARTITIONS))

    (status,) = lines(percipio(ground, "status", "--json"))

    parts = {part["partition"]: part for part in status["partitions"]}
    assert sorted(parts) == [f"p{number:03d}" for number in range(PARTITIONS)]
    for number in range(PARTITIONS):
        told = parts[f"p{number:03d}"]["ledger"]
        counted = await score_only.ledger(number)
        for term in (*FRAME_TERMS, *EVENT_TERMS, *SCORED_TERMS):
            assert told[term] == counted.get(term, 0), (number, term)
        assert told["events_in"] == await score_only.added(number, "events")
    for term in ("frames_in", "events_in", *EVENT_TERMS):
        assert status["ledger"][term] == sum(part["ledger"][term] for part in parts.values())


async def test_status_tells_no_difference_at_rest(score_only: Streams, ground: Ground) -> None:
    source = a_source()
    await score_only.event(source)
    await score_only.settled_in(range(PARTITIONS))

    (status,) = lines(percipio(ground, "status", "--json"))

    # `frames` and `events` came in and went; other tests added detections of no frame.
    assert (status["difference"]["frames"], status["difference"]["events"]) == (0, 0)
    part = status["partitions"][partition_of(source)]
    for stream in part["streams"].values():
        assert (stream["lag"], stream["pending"]) == (0, 0)
    assert part["owner"]


async def test_a_dead_letter_is_listed_and_shown(score_only: Streams, ground: Ground) -> None:
    source = a_source()
    await score_only.event(source, value="much")
    await score_only.settled(source)
    (letter,) = await score_only.of("dead", source)
    name = f"p{partition_of(source):03d}/{letter.id}"

    listed = lines(percipio(ground, "dead", "list", "--source", source, "--json"))
    shown = lines(percipio(ground, "dead", "show", name, "--json"))

    assert [found["id"] for found in listed] == [name]
    (found,) = shown
    assert (found["id"], found["source"], found["stream"]) == (name, source, "events")
    assert found["reason"] == "bad_field"
    assert found["entry"] == {"source": source, "channel": "motion", "value": "much"}


async def test_dead_list_is_the_newest_first_and_can_be_narrowed(
    score_only: Streams, ground: Ground
) -> None:
    source = a_source()
    for value in ("one", "two", "three"):
        await score_only.event(source, value=value)
    await score_only.settled(source)

    listed = lines(percipio(ground, "dead", "list", "--source", source, "--limit", "2", "--json"))
    none = lines(
        percipio(ground, "dead", "list", "--source", source, "--reason", "poison", "--json")
    )

    assert [found["entry"]["value"] for found in listed] == ["three", "two"]
    assert none == []


async def test_a_replayed_event_is_a_new_entry_without_its_number(
    score_only: Streams, ground: Ground
) -> None:
    source = a_source()
    async with score_only.counting(source) as counted:
        await score_only.event(source, value="much", seq=3, producer="run-1")
        await score_only.settled(source)
        (letter,) = await score_only.of("dead", source)
        name = f"p{partition_of(source):03d}/{letter.id}"

        (replayed,) = lines(percipio(ground, "dead", "replay", name, "--json"))

    # It is as wrong as before, hence dead again, as what it is now.
    assert counted == {"events_dead": 2}
    (again,) = lines(percipio(ground, "dead", "list", "--source", source, "--json"))
    assert again["id"] != name
    entry = again["entry"]
    assert "replay_of" in entry
    assert entry.keys() == {"source", "channel", "value", "replay_of"}
    assert again["entry_id"] in str(replayed)


async def test_a_replayed_frame_goes_to_recordings(deployment: Streams, ground: Ground) -> None:
    source = a_source()
    await deployment.frame(source, b"no picture", kind="frames", seq=1, producer="run-1")
    await deployment.settled(source)
    (letter,) = await deployment.of("dead", source)
    name = f"p{partition_of(source):03d}/{letter.id}"

    percipio(ground, "dead", "replay", name)
    await deployment.settled(source)

    (again,) = await deployment.of("dead", source)
    assert again.id != letter.id
    assert (letter["stream"], again["stream"]) == ("frames", "recordings")


async def test_a_dropped_dead_letter_is_gone_and_still_counted(
    score_only: Streams, ground: Ground
) -> None:
    source = a_source()
    async with score_only.counting(source) as counted:
        await score_only.event(source, value="much")
        await score_only.settled(source)
        (letter,) = await score_only.of("dead", source)

        percipio(ground, "dead", "drop", f"p{partition_of(source):03d}/{letter.id}")

    assert counted == {"events_dead": 1}
    assert not await score_only.of("dead", source)


async def test_what_kept_only_sizes_cannot_be_replayed(score_only: Streams, ground: Ground) -> None:
    source = a_source()
    await score_only.event(source, value="much", note="x" * 1_100_000)
    await score_only.settled(source)
    (letter,) = await score_only.of("dead", source)

    ended = percipio(ground, "dead", "replay", f"p{partition_of(source):03d}/{letter.id}")

    assert ended.returncode == USAGE
    assert "1 MiB" in ended.stderr
    assert [found.id for found in await score_only.of("dead", source)] == [letter.id]


async def test_watch_ends_after_so_many(score_only: Streams, ground: Ground) -> None:
    source = a_source()
    for number in range(3):
        await score_only.event(source, seq=number, producer="run-1", meta=b"\x80")
    await score_only.settled(source)

    ended = percipio(
        ground, "watch", "--source", source, "--all", "--count", "2", "--json", timeout_s=15
    )

    found = lines(ended)
    assert [score["n"] for score in found] == [1, 2]
    assert {score["source"] for score in found} == {source}
    assert all(isinstance(score["level"], float) for score in found)
    assert all("components" in score for score in found)


async def test_watch_gives_one_kind(deployment: Streams, ground: Ground) -> None:
    source = a_source()
    await deployment.frame(source)
    await deployment.settled(source)

    arguments = ["watch", "--source", source, "--all", "--count", "1", "--json"]
    (found,) = lines(percipio(ground, *arguments, "--kind", "detections", timeout_s=15))

    assert found["source"] == source
    assert "objects" in found


async def test_events_are_produced_from_json_lines(score_only: Streams, ground: Ground) -> None:
    source = a_source()
    words = (
        '{"ts": 1700000000000, "values": {"motion": 0.5, "sound": 2}}\n{"values": {"sound": 1}}\n'
    )

    ended = percipio(
        ground, "produce", "events", "--source", source, "--input", "-", "--json", words=words
    )
    await score_only.settled(source)

    (summary,) = lines(ended)
    assert summary["published"] == 2
    assert (await score_only.state(source))["events"] == "2"
    assert not await score_only.of("dead", source)


async def test_events_are_produced_from_csv(
    score_only: Streams, ground: Ground, tmp_path: Path
) -> None:
    source = a_source()
    table = tmp_path / "events.csv"
    table.write_text("ts,channel,value\n1700000000000,motion,0.5\n1700000000250,sound,2\n")

    ended = percipio(
        ground, "produce", "events", "--source", source, "--input", str(table), "--json"
    )
    await score_only.settled(source)

    (summary,) = lines(ended)
    assert summary["published"] == 2
    scores = await score_only.scores(source)
    assert scores[-1]["n"] == "2"
    assert scores[-1]["ts"] == "1700000000250"


async def test_frames_are_produced_from_a_folder(
    deployment: Streams, ground: Ground, tmp_path: Path
) -> None:
    source = a_source()
    for number, suffix in enumerate((".jpg", ".png", ".jpg")):
        (tmp_path / f"{number}{suffix}").write_bytes(picture(number, suffix))

    ended = percipio(
        ground,
        *("produce", "frames", "--source", source, "--input", str(tmp_path)),
        *("--as-fast-as-possible", "--json"),
    )
    await deployment.settled(source)

    (summary,) = lines(ended)
    assert summary["published"] == 3
    found = await deployment.of("detections", source)
    assert len(found) == 3
    assert {entry["stream"] for entry in found} == {"recordings"}
    assert {entry["producer"] for entry in found} == {found[0]["producer"]}
    assert len({entry["seq"] for entry in found}) == 3
