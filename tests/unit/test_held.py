"""Results held in memory: what is let go of, and that the count of bytes comes out even."""

from __future__ import annotations

import random
from typing import Any

from pipeline.api.held import _SOURCE_BYTES, DETECTIONS, SCORES, Held, Item, _size_bytes, make_item
from pipeline.results import KINDS, Position, Result, Stream

MINUTE_MS = 60_000


def result(source: str, at_ms: int, kind: int, fields: dict[str, Any]) -> tuple[Item, Any]:
    stream: Stream = (0, kind)
    position: Position = (at_ms, 0, 1)
    one = Result(KINDS[kind], f"p000:{at_ms}-0", source, at_ms, fields, 0, {stream: position})
    return make_item(one, stream, position), fields


def frame(source: str, at_ms: int, boxes: int = 1) -> tuple[Item, Any]:
    objects = [{"label": "person", "box": [1, 2, 3, 4]}] * boxes
    fields = {"frame": f"{at_ms}-0", "objects": objects, "width": 640}
    return result(source, at_ms, DETECTIONS, fields)


def score(source: str, at_ms: int, kind: str = "event") -> tuple[Item, Any]:
    fields = {"kind": kind, "last": f"{at_ms}-0", "tracks": [], "level": 0.5, "phase": "active"}
    return result(source, at_ms, SCORES, fields)


def held(most_bytes: int = 1 << 20) -> Held:
    made = Held(most_bytes=most_bytes, quiet_ms=MINUTE_MS)
    made.floors = {(0, DETECTIONS): (0, 0, 0), (0, SCORES): (0, 0, 0)}
    return made


def counted(made: Held) -> int:
    return sum(
        _SOURCE_BYTES + sum(map(_size_bytes, each.items())) for each in made._sources.values()
    )


def test_a_source_that_has_long_been_quiet_is_gone() -> None:
    made = held()
    made.put(*score("gone", 1_000))
    made.put(*frame("here", 2_000))
    made.put(*frame("here", 1_001 + MINUTE_MS))

    assert made.ring("gone", SCORES) is None
    assert made.floor((0, SCORES), None)[0] == 1_000
    assert len(made) == 1
    assert made.size_bytes == counted(made)


def test_one_that_is_looked_up_stays_for_as_long() -> None:
    made = held()
    made.put(*score("here", 10 * MINUTE_MS))
    made.fill("old", SCORES, [score("old", 1_000)[0]], (0, 0, 0))
    made.put(*score("here", 11 * MINUTE_MS))

    assert made.ring("old", SCORES) is not None
    made.put(*score("here", 11 * MINUTE_MS + 1))
    assert made.ring("old", SCORES) is None


def test_what_is_drawn_is_the_newest_frame_found_and_tracked() -> None:
    made = held()
    made.put(*frame("cam-1", 1_000, boxes=2))
    made.put(*score("cam-1", 1_000, "frame"))
    made.put(*score("cam-1", 1_500))
    detected, tracked = made.sights("cam-1")

    assert detected is not None
    assert (detected.frame, len(detected.objects)) == ("1000-0", 2)
    assert tracked is not None
    assert (tracked.frame, tracked.level) == ("1000-0", 0.5)
    assert made.sights("cam-1")[0] is detected
    made.put(*frame("cam-1", 2_000))
    newest = made.sights("cam-1")[0]
    assert newest is not None
    assert newest.frame == "2000-0"
    assert made.sights("cam-2") == (None, None)


def test_the_budget_holds_for_many_sources_of_few_results() -> None:
    made, rng = held(most_bytes=200_000), random.Random(1)
    for number in range(3_000):
        source, at_ms = f"cam-{rng.randrange(400)}", 10_000 + number
        put = frame(source, at_ms, rng.randrange(9)) if number % 2 else score(source, at_ms)
        made.put(*put)
        assert made.size_bytes <= 200_000

    assert made.size_bytes == counted(made)
    assert len(made) < 100
