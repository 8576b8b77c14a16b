from __future__ import annotations

import asyncio
import json
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.admission import Bounds
from pipeline.errors import DependencyError
from pipeline.image import encode_jpeg
from tests.api.conftest import KEYS, Api

JPEG = encode_jpeg(np.zeros((8, 8, 3), np.uint8))
EVENTS = "/v1/sources/robot-7/events"
FRAMES = "/v1/sources/cam-1/frames"


async def read(api: Api, stream: str, source: str) -> list[dict[bytes, bytes]]:
    found = await api.store.run("XRANGE", getattr(KEYS.of_source(source), stream), "-", "+")
    return [fields for _, fields in found]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b'[{"values":{"a":1}},{"values":{"b":2.5},"ts":5,"kind":"x","meta":{"k":1}}]', "json"),
        (b'{"values":{"a":1}}\n\n{"values":{"b":2.5},"ts":5,"kind":"x","meta":{"k":1}}\n', "lines"),
    ],
)
async def test_events_arrive_numbered_and_in_order(
    api: Api, body: bytes, content_type: str
) -> None:
    types = {"json": "application/json; charset=utf-8", "lines": "application/x-ndjson"}
    answer = await api.http.post(
        EVENTS, content=body, headers={"content-type": types[content_type]}
    )
    first, second = await read(api, "events", "robot-7")

    assert answer.status_code == 202
    assert answer.json()["accepted"] == 2
    assert all(
        each.startswith(f"{KEYS.tag_of_source('robot-7')}/") for each in answer.json()["ids"]
    )
    assert msgpack.unpackb(first[b"values"]) == {"a": 1.0}
    assert (second[b"ts"], second[b"kind"]) == (b"5", b"x")
    assert int(second[b"seq"]) == int(first[b"seq"]) + 1
    assert first[b"producer"] == second[b"producer"]


async def test_every_bad_event_is_named_and_none_is_taken(api: Api) -> None:
    events: list[Any] = [
        {"values": {"a": 1}},
        {"values": {"a": "high"}},
        {"values": {"a": 1}, "sorce": "x"},
        {"values": {"not a name": 1}},
        7,
        {"values": {"a": 1}, "ts": 10**15},
        {"kind": "heartbeat"},
    ]
    answer = await api.http.post(EVENTS, json=events)

    assert answer.status_code == 422
    assert [each["item"] for each in answer.json()["errors"]] == [1, 2, 3, 4, 5]
    assert await read(api, "events", "robot-7") == []


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
ITEMS = st.dictionaries(
    st.sampled_from(["values", "ts", "kind", "meta", "traceparent"]), JSON_VALUES
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(events=st.lists(ITEMS | JSON_VALUES, max_size=4))
async def test_whatever_comes_is_taken_whole_or_not_at_all(api: Api, events: list[Any]) -> None:
    before = len(await read(api, "events", "robot-7"))
    body = json.dumps(events).encode(errors="surrogatepass")
    answer = await api.http.post(EVENTS, content=body, headers={"content-type": "application/json"})
    added = len(await read(api, "events", "robot-7")) - before

    assert answer.status_code in (202, 422)
    assert added == (len(events) if answer.status_code == 202 else 0)


async def test_a_frame_goes_to_recordings_or_live(api: Api) -> None:
    headers = {"content-type": "image/jpeg"}
    kept = await api.http.post(FRAMES, content=JPEG, headers=headers)
    live = await api.http.post(FRAMES, content=JPEG, params={"live": 1}, headers=headers)

    assert (kept.json()["stream"], live.json()["stream"]) == ("recordings", "frames")
    (entry,) = await read(api, "frames", "cam-1")
    assert entry[b"image"] == JPEG
    assert len(await read(api, "recordings", "cam-1")) == 1


@pytest.mark.parametrize(
    ("path", "content", "content_type", "status"),
    [
        (FRAMES, b"not a picture", "image/jpeg", 422),
        (FRAMES, JPEG, "text/plain", 415),
        (FRAMES, JPEG, "", 415),
        (FRAMES, b"\xff\xd8\xff" + b"\0" * (16 << 20), "image/jpeg", 413),
        (EVENTS, b"{", "application/json", 422),
        (EVENTS, b"[]", "application/json", 422),
        (EVENTS, b'{"values":{"a":NaN}}', "application/json", 422),
        (EVENTS, b"{}\n{\n", "application/jsonl", 422),
        (EVENTS, b"a=1", "application/x-www-form-urlencoded", 415),
        (EVENTS, b"[" + b"1," * 3_000_000 + b"1]", "application/json", 413),
        ("/v1/sources/a%2Fb/events", b"{}", "application/json", 404),
    ],
)
async def test_what_cannot_be_taken_is_told_why(
    api: Api, path: str, content: bytes, content_type: str, status: int
) -> None:
    answer = await api.http.post(path, content=content, headers={"content-type": content_type})

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_full_stream_is_told_when_to_come_again(api: Api) -> None:
    key = KEYS.of_source("robot-7").events
    bounds = Bounds(10)
    api.service.publishing._admission._bounds["events"] = bounds
    for _ in range(10):
        await api.store.run("XADD", key, "*", "a", "b")

    answer = await api.http.post(EVENTS, json={"values": {"a": 1}})

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert int(await api.store.run("XLEN", key)) == 10


async def test_a_batch_that_does_not_fit_whole_is_not_taken(api: Api) -> None:
    """What a request brings in counts before it is written, however large its grants were."""
    api.service.publishing._admission._bounds["events"] = Bounds(100)

    fits = await api.http.post(EVENTS, json=[{"values": {"a": 1}}] * 90)
    not_whole = await api.http.post(EVENTS, json=[{"values": {"a": 1}}] * 40)

    assert (fits.status_code, not_whole.status_code) == (202, 503)
    assert int(await api.store.run("XLEN", KEYS.of_source("robot-7").events)) == 90


async def test_a_redis_at_maxmemory_takes_nothing_of_a_batch(api: Api) -> None:
    await api.store.run("CONFIG", "SET", "maxmemory", 1)
    try:
        answer = await api.http.post(EVENTS, json=[{"values": {"a": 1}}] * 3)
    finally:
        await api.store.run("CONFIG", "SET", "maxmemory", 0)

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert await read(api, "events", "robot-7") == []


async def test_a_lost_answer_is_asked_for_again_under_the_same_numbers(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_whole, tries = api.store.run_whole, 0

    async def lose_the_first(commands: Any) -> Any:
        nonlocal tries
        tries += 1
        answers = await run_whole(commands)
        if tries == 1:
            raise DependencyError("Redis: the answer was lost")
        return answers

    monkeypatch.setattr(type(api.store), "run_whole", lambda _, commands: lose_the_first(commands))
    answer = await api.http.post(EVENTS, json=[{"values": {"a": n}} for n in range(3)])
    found = await read(api, "events", "robot-7")

    assert answer.status_code == 202
    assert len(found) == 6
    assert [each[b"seq"] for each in found[:3]] == [each[b"seq"] for each in found[3:]]


async def test_requests_side_by_side_keep_the_order_of_their_numbers(api: Api) -> None:
    events = [{"values": {"a": 1}}] * 50
    answers = await asyncio.gather(*(api.http.post(EVENTS, json=events) for _ in range(8)))
    numbers = [int(each[b"seq"]) for each in await read(api, "events", "robot-7")]

    assert {answer.status_code for answer in answers} == {202}
    assert numbers == list(range(numbers[0], numbers[0] + 400))
