"""Whatever is published is accounted for exactly once, by many random mixtures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.streams import Entry, Fields, Streams, a_source, at, pack, picture

# Workers stay and every example has new sources: a fixture for all examples is what is meant.
quickly: Callable[[Any], Any] = settings(
    max_examples=40,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

INVALID: list[Fields] = [
    {"channel": "c1"},
    {"channel": "c1", "value": "nan"},
    {"channel": "c1", "value": "-inf"},
    {"channel": "no name", "value": "1"},
    {"channel": "c1", "value": "1", "ts": "99999999999999"},
    {"values": b"\xc1"},
    {"values": pack({"c1": float("inf")})},
    {"kind": "door"},
]
numbers = st.floats(allow_nan=False, allow_infinity=False, width=32)
channels = st.sampled_from([f"c{number}" for number in range(8)])
one_value = st.builds(lambda c, v: {"channel": c, "value": repr(v)}, channels, numbers)
values = st.dictionaries(channels, numbers, min_size=1).map(lambda found: {"values": pack(found)})
heartbeats = st.just({"kind": "heartbeat"})
# (source of three, what it observes, seq or None)
events = st.lists(
    st.tuples(
        st.integers(0, 2),
        one_value | values | heartbeats | st.sampled_from(INVALID),
        st.none() | st.integers(0, 30),
    ),
    min_size=1,
    max_size=40,
)


@quickly
@given(published=events)
async def test_events_are_scored_dropped_or_dead_as_the_contract_says(
    score_only: Streams, published: list[tuple[int, dict[str, str | bytes], int | None]]
) -> None:
    sources = [a_source(partition=9) for _ in range(3)]
    scored: dict[str, list[str]] = {source: [] for source in sources}
    dead: list[str] = []
    seen: set[tuple[str, int]] = set()

    async with score_only.counting(sources[0]) as counted:
        for number, (which, fields, seq) in enumerate(published):
            source = sources[which]
            numbered: dict[str, str | int] = {} if seq is None else {"seq": seq, "producer": "run"}
            meta = {"meta": pack({"number": number})}
            entry_id = await score_only.add("events", source, {**fields, **numbered, **meta})
            if fields in INVALID:
                dead.append(entry_id)
            elif seq is None or (source, seq) not in seen:
                scored[source].append(entry_id)
            if seq is not None and fields not in INVALID:
                seen.add((source, seq))

    expected = {
        "events_scored": sum(map(len, scored.values())),
        "events_dead": len(dead),
        "events_dropped_duplicate": len(published) - len(dead) - sum(map(len, scored.values())),
    }
    counted.pop("events_late", None)
    assert counted == {name: count for name, count in expected.items() if count}
    letters = [letter for source in sources for letter in await score_only.of("dead", source)]
    assert sorted(letter["id"] for letter in letters) == sorted(dead)
    for source in sources:
        scores = await score_only.scores(source)
        assert [score["first"] for score in scores] == scored[source]
        assert [int(score["n"]) for score in scores] == list(range(1, len(scores) + 1))


NAMES = ["values", "channel", "value", "ts", "seq", "producer", "kind", "meta", "traceparent", "x"]
anything = st.one_of(
    st.binary(max_size=30),
    st.text(max_size=10).map(str.encode),
    st.integers(-(10**20), 10**20).map(lambda number: str(number).encode()),
    st.recursive(
        st.none() | st.booleans() | numbers | st.text(max_size=5) | st.binary(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
        max_leaves=5,
    ).map(pack),
)
nonsense = st.lists(
    st.dictionaries(st.sampled_from(NAMES), anything, max_size=6), min_size=1, max_size=20
)


@quickly
@given(published=nonsense)
async def test_nonsense_is_accounted_for_exactly_once(
    score_only: Streams, published: list[dict[str, bytes]]
) -> None:
    source = a_source()

    async with score_only.counting(source) as counted:
        ids = [await score_only.add("events", source, fields) for fields in published]

    dead = {letter["id"] for letter in await score_only.of("dead", source)}
    covered = 0
    for score in await score_only.scores(source):
        covered += int(score["inputs"])
        assert int(score["n"]) == covered
    duplicates = counted.get("events_dropped_duplicate", 0)
    assert dead <= set(ids)
    assert counted.get("events_dead", 0) == len(dead)
    assert covered + duplicates + len(dead) == len(ids)


whole = [picture(suffix=suffix) for suffix in (".jpg", ".png", ".webp")]
damages = st.lists(
    st.tuples(
        st.sampled_from(whole),
        st.floats(0, 1),  # where it ends
        st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=3),  # what is changed
    ),
    min_size=1,
    max_size=6,
)


def damaged(image: bytes, end: float, changes: list[tuple[float, int]]) -> bytes:
    data = bytearray(image[: int(end * len(image))])
    for place, value in changes if data else []:
        data[int(place * (len(data) - 1))] = value
    return bytes(data)


@settings(quickly, max_examples=15)  # type: ignore[arg-type]
@given(published=damages)
async def test_damaged_pictures_are_detected_or_dead(
    deployment: Streams, published: list[tuple[bytes, float, list[tuple[float, int]]]]
) -> None:
    source = a_source()

    ids = [
        await deployment.add("recordings", source, {"image": damaged(*picked)})
        for picked in published
    ]
    good = await deployment.frame(source)
    await deployment.settled(source)

    found = [entry["frame"] for entry in await deployment.of("detections", source)]
    letters: list[Entry] = await deployment.of("dead", source)
    dead = [letter["id"] for letter in letters]
    assert sorted(found + dead) == sorted([*ids, good])
    assert good in found
    assert {letter["reason"] for letter in letters} <= {"undecodable", "too_large", "bad_field"}
    scores = await deployment.scores(source)
    assert [score["first"] for score in scores] == sorted(found, key=at)
