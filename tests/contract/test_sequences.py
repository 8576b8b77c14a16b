"""Order, duplicates and stragglers among a source's inputs (contract, sections 3 and 4)."""

from __future__ import annotations

import itertools
import random
import time
from typing import Any

from tests.streams import Streams, a_source, at, pack, picture

REMEMBERED = 4096


async def publish(streams: Streams, source: str, numbers: list[int], producer: str = "run") -> None:
    """Publish events with these `seq`, each with an entry of its own in the results."""
    for number in numbers:
        fields: dict[str, Any] = {
            "seq": number,
            "producer": producer,
            "meta": pack({"seq": number}),
        }
        await streams.event(source, **fields)


async def accepted(streams: Streams, source: str) -> list[int]:
    scores = await streams.scores(source)
    assert all(score["seq_first"] == score["seq_last"] for score in scores)
    return [int(score["seq_first"]) for score in scores]


async def test_a_number_seen_before_is_dropped_and_counted(score_only: Streams) -> None:
    source = a_source()

    async with score_only.counting(source) as counted:
        await publish(score_only, source, [1, 2, 2, 3, 1])

    assert await accepted(score_only, source) == [1, 2, 3]
    assert counted == {"events_scored": 3, "events_dropped_duplicate": 2}
    assert (await score_only.scores(source))[-1]["n"] == "3"


async def test_numbers_come_in_any_order(score_only: Streams) -> None:
    source = a_source()
    numbers = list(range(100, 130)) * 2
    random.Random(5).shuffle(numbers)

    async with score_only.counting(source) as counted:
        await publish(score_only, source, numbers)

    assert await accepted(score_only, source) == list(dict.fromkeys(numbers))
    assert counted == {"events_scored": 30, "events_dropped_duplicate": 30}


async def test_the_last_4096_numbers_are_remembered(score_only: Streams) -> None:
    source = a_source()
    newest = 10_000
    oldest = newest - REMEMBERED + 1

    async with score_only.counting(source) as counted:
        await publish(score_only, source, [newest, oldest - 1, oldest, oldest, 1])

    assert await accepted(score_only, source) == [newest, oldest]
    assert counted == {"events_scored": 2, "events_dropped_duplicate": 3}


async def test_every_run_of_a_publisher_has_its_own_numbers(score_only: Streams) -> None:
    source, other = a_source(), a_source()

    await publish(score_only, source, [1], "run-1")
    await publish(score_only, source, [1], "run-2")
    await publish(score_only, other, [1], "run-1")
    await score_only.settled(source, other)

    assert await accepted(score_only, source) == [1, 1]
    assert [score["producer"] for score in await score_only.scores(source)] == ["run-1", "run-2"]
    assert await accepted(score_only, other) == [1]


async def test_an_event_without_number_is_never_a_duplicate(score_only: Streams) -> None:
    source = a_source()

    async with score_only.counting(source) as counted:
        for _ in range(3):
            await score_only.event(source, ts="1700000000000")

    assert counted == {"events_scored": 3}


async def test_a_frame_seen_before_is_dropped_and_counted(deployment: Streams) -> None:
    source = a_source()

    async with deployment.counting(source) as counted:
        for number in [1, 2, 1, 2, 3]:
            await deployment.frame(source, picture(number), seq=number, producer="run")

    found = await deployment.of("detections", source)
    assert sorted(entry["seq"] for entry in found) == ["1", "2", "3"]
    assert {entry["producer"] for entry in found} == {"run"}
    assert counted.pop("frames_dropped_duplicate") == 2
    assert counted.pop("frames_detected", 0) + counted.pop("frames_cached", 0) == 3
    assert counted == {"frames_scored": 3}


async def test_scores_count_every_input_once(score_only: Streams) -> None:
    source = a_source()

    ids = [await score_only.event(source, value=number / 50) for number in range(50)]
    await score_only.settled(source)

    scores = await score_only.scores(source)
    count = 0
    for score in scores:
        count += int(score["inputs"])
        assert int(score["n"]) == count
    assert count == 50
    assert scores[0]["first"] == ids[0]
    assert scores[-1]["last"] == ids[-1]


async def test_an_entry_speaks_for_consecutive_events_of_one_producer(score_only: Streams) -> None:
    source = a_source()
    producers = ["a"] * 10 + ["b"] * 10 + ["a"] * 10

    ids = {}
    for number, producer in enumerate(producers):
        ids[await score_only.event(source, seq=number, producer=producer)] = number
    await score_only.settled(source)

    for score in await score_only.scores(source):
        first, last = int(score["seq_first"]), int(score["seq_last"])
        assert set(producers[first : last + 1]) == {score["producer"]}
        assert int(score["inputs"]) == last - first + 1
        assert (ids[score["first"]], ids[score["last"]]) == (first, last)


async def test_scores_stand_in_the_order_of_the_inputs(score_only: Streams) -> None:
    sources = [a_source(partition=3) for _ in range(3)]

    for number in range(60):
        await score_only.event(sources[number % 3], channel=f"c{number % 2}")
    await score_only.settled(*sources)

    for source in sources:
        scores = await score_only.scores(source)
        spans = [(at(score["first"]), at(score["last"])) for score in scores]
        assert spans == sorted(spans)
        assert all(first <= last for first, last in spans)
        assert all(before[1] < after[0] for before, after in itertools.pairwise(spans))


async def test_a_straggler_is_scored_and_told(score_only: Streams) -> None:
    source = a_source()
    now_ms = int(time.time() * 1000)

    async with score_only.counting(source) as counted:
        await score_only.event(source, ts=now_ms)
        await score_only.event(source, ts=now_ms - 3_600_000)

    scores = await score_only.scores(source)
    assert [score.get("late") for score in scores] == [None, "1"]
    assert counted == {"events_scored": 2, "events_late": 1}
    assert (await score_only.state(source))["late"] == "1"


async def test_frames_are_scored_in_their_order(deployment: Streams) -> None:
    source = a_source()

    ids = [await deployment.frame(source, picture(number)) for number in range(12)]
    await deployment.settled(source)

    scores = await deployment.scores(source)
    assert [score["first"] for score in scores] == ids
    assert [score["last"] for score in scores] == ids
    assert [score["n"] for score in scores] == [str(number) for number in range(1, 13)]
    assert {score["kind"] for score in scores} == {"frame"}
    assert {score["inputs"] for score in scores} == {"1"}
