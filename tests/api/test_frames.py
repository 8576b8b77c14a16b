from __future__ import annotations

import asyncio

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pipeline.image import decode, encode_jpeg
from pipeline.overlay import Caption, annotate
from tests.api.conftest import KEYS, Api
from tests.conftest import eventually

GREY = encode_jpeg(np.full((48, 64, 3), 128, np.uint8), 95)
OBJECT = {"id": 7, "label": "car", "confidence": 0.9, "box": [8.0, 8.0, 40.0, 30.0]}


async def put_frame(api: Api, source: str, jpeg: bytes = GREY) -> None:
    await api.store.run("SET", KEYS.of_source(source).last(source), jpeg)


async def test_a_frame_has_what_was_tracked_drawn_in(api: Api) -> None:
    await put_frame(api, "cam-1")
    await api.detection("cam-1", "1-0", [OBJECT])
    await api.score("cam-1", kind="frame", last="1-0", data={"tracks": [OBJECT]})
    await api.has_scores("cam-1", 1)

    answer = await api.http.get("/v1/sources/cam-1/frame.jpg")
    again = await api.http.get(
        "/v1/sources/cam-1/frame.jpg", headers={"If-None-Match": answer.headers["etag"]}
    )

    image = decode(answer.content).image
    edge = image[8:30, 8].astype(int)
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["x-frame"] == "1-0"
    assert image.shape == (48, 64, 3)
    assert np.abs(edge - 128).max() > 40
    assert again.status_code == 304


async def test_what_was_found_before_the_start_is_looked_up(api: Api) -> None:
    await put_frame(api, "cam-1")
    await api.detection("cam-1", "5-0", [OBJECT])
    api.service.feed.held._sources.clear()

    answer = await api.http.get("/v1/sources/cam-1/frame.jpg")

    assert answer.headers["x-frame"] == "5-0"


async def test_a_source_without_frames_has_none(api: Api) -> None:
    answer = await api.http.get("/v1/sources/robot-7/frame.jpg")

    assert answer.status_code == 404


async def test_frames_that_nobody_asks_for_are_let_go(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.api.frames.GOOD_S", 0.0)
    for source in ("cam-1", "cam-2"):
        await put_frame(api, source)
        assert (await api.http.get(f"/v1/sources/{source}/frame.jpg")).status_code == 200

    assert list(api.service.frames._easels) == ["cam-2"]


async def test_a_frame_is_drawn_once_for_all_who_look(api: Api) -> None:
    await put_frame(api, "cam-1")
    await api.detection("cam-1", "1-0", [OBJECT])
    await eventually(lambda: api.service.feed.held.sights("cam-1")[0])
    frames = api.service.frames
    draws = 0
    draw = frames._draw

    async def counted(*given: object) -> object:
        nonlocal draws
        draws += 1
        return await draw(*given)  # type: ignore[arg-type]

    frames._draw = counted  # type: ignore[method-assign,assignment]
    path = "/v1/sources/cam-1/frame.jpg"
    answers = await asyncio.gather(*(api.http.get(path) for _ in range(20)))

    assert {answer.status_code for answer in answers} == {200}
    assert draws == 1


async def test_a_stream_shows_each_new_frame(api: Api) -> None:
    await put_frame(api, "cam-1")
    await api.detection("cam-1", "1-0", [])
    async with api.http.stream("GET", "/v1/sources/cam-1/live.mjpg", timeout=None) as answer:
        parts = answer.aiter_raw()
        first = await asyncio.wait_for(anext(parts), 5)
        await put_frame(api, "cam-1", encode_jpeg(np.zeros((48, 64, 3), np.uint8)))
        await api.detection("cam-1", "2-0", [OBJECT])
        second = await asyncio.wait_for(anext(parts), 5)

    assert answer.headers["content-type"].startswith("multipart/x-mixed-replace; boundary=")
    for part in (first, second):
        assert b"Content-Type: image/jpeg" in part
    assert first != second


BOXES = st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=5)
OBJECTS = st.fixed_dictionaries(
    {}, optional={"box": BOXES, "label": st.text(), "id": st.integers(), "confidence": st.floats()}
)


@settings(max_examples=60, deadline=None)
@given(
    image=arrays.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3))),
    objects=st.lists(OBJECTS, max_size=3),
    width=st.integers(0, 100),
    level=st.none() | st.floats(allow_nan=True),
)
def test_anything_can_be_drawn_over_anything(
    image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    objects: list[dict[str, object]],
    width: int,
    level: float | None,
) -> None:
    done, png = cv2.imencode(".png", image)
    assert done

    drawn = annotate(png.tobytes(), objects, width, Caption("cam-1", level, "active"))

    assert decode(drawn).image.shape == image.shape
