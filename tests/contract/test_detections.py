"""What is found in a frame, as everybody reads it (contract, section 4)."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import pytest

from tests.streams import Entry, Streams, a_source, at, pack, picture

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def detect(deployment: Streams, image: bytes | None = None, **fields: Any) -> Entry:
    source = a_source()
    await deployment.frame(source, image, **fields)
    await deployment.settled(source)
    (found,) = await deployment.of("detections", source)
    return found


async def test_detections_say_which_frame_they_are_of(deployment: Streams) -> None:
    source = a_source()

    entry_id = await deployment.frame(source)
    await deployment.settled(source)

    (found,) = await deployment.of("detections", source)
    assert found["v"] == "1"
    assert (found["source"], found["frame"], found["stream"]) == (source, entry_id, "recordings")
    assert int(found["ts"]) == at(entry_id)[0]
    assert not found.raw.keys() & {"seq", "producer", "meta", "traceparent"}
    assert at(found.id) >= at(entry_id)


async def test_what_came_with_a_frame_is_echoed(deployment: Streams) -> None:
    meta = {"camera": "left", "exposure": [1, 2.5, None, b"\xff"]}

    found = await detect(
        deployment,
        ts="1700000000123",
        seq=41,
        producer="run-1",
        meta=pack(meta),
        traceparent=TRACEPARENT,
    )

    assert (found["ts"], found["seq"], found["producer"]) == ("1700000000123", "41", "run-1")
    assert found["traceparent"] == TRACEPARENT
    assert found.raw["meta"] == pack(meta)


async def test_data_holds_what_the_contract_says(deployment: Streams) -> None:
    found = await detect(deployment, picture(width=200, height=100))

    data = found.data
    assert set(data) >= {"model", "width", "height", "cached", "objects", "timing"}
    assert (data["width"], data["height"]) == (200, 100)
    assert re.search(r"[0-9a-f]{12}$", data["model"])
    assert isinstance(data["cached"], bool)
    assert set(data["timing"]) >= {"queued_ms", "decode_ms", "infer_ms", "batch"}
    assert all(value >= 0 for value in data["timing"].values())
    assert data["timing"]["batch"] >= 1


@pytest.mark.parametrize(("width", "height"), [(160, 120), (120, 400), (500, 90)])
async def test_objects_lie_in_pixels_of_the_full_frame(
    deployment: Streams, width: int, height: int
) -> None:
    pictures = [picture(seed, width=width, height=height) for seed in range(6)]
    source = a_source()

    for image in pictures:
        await deployment.frame(source, image)
    await deployment.settled(source)

    found = await deployment.of("detections", source)
    objects = [thing for entry in found for thing in entry.data["objects"]]
    assert objects, "nothing at all was found in six pictures of shapes"
    for thing in objects:
        assert set(thing) >= {"class_id", "label", "confidence", "box"}
        assert isinstance(thing["class_id"], int)
        assert thing["class_id"] >= 0
        assert isinstance(thing["label"], str)
        assert thing["label"]
        assert 0.01 <= thing["confidence"] <= 1
        x1, y1, x2, y2 = thing["box"]
        assert all(isinstance(edge, float) for edge in thing["box"])
        assert 0 <= x1 <= x2 <= width
        assert 0 <= y1 <= y2 <= height


async def test_labels_count_the_objects(deployment: Streams) -> None:
    found = [await detect(deployment, picture(seed)) for seed in range(3)]

    for entry in found:
        counted = Counter(thing["label"] for thing in entry.data["objects"])
        told = dict(pair.rsplit(":", 1) for pair in entry["labels"].split(",") if pair)
        assert {label: int(count) for label, count in told.items()} == counted


async def test_a_model_has_one_name_for_every_label(deployment: Streams) -> None:
    found = [await detect(deployment, picture(seed)) for seed in range(3)]

    names = {(thing["class_id"], thing["label"]) for it in found for thing in it.data["objects"]}
    assert len({class_id for class_id, _ in names}) == len(names)
    assert len({entry.data["model"] for entry in found}) == 1


async def test_frames_of_many_sources_come_each_to_its_own(deployment: Streams) -> None:
    sources = {a_source(): size for size in range(100, 180, 10)}

    for source, size in sources.items():
        await deployment.frame(source, picture(width=size, height=size + 5))
    await deployment.settled(*sources)

    for source, size in sources.items():
        (found,) = await deployment.of("detections", source)
        assert (found.data["width"], found.data["height"]) == (size, size + 5)


async def test_the_same_picture_twice_gives_the_same_objects(deployment: Streams) -> None:
    first, second = [await detect(deployment, picture(3)) for _ in range(2)]

    assert json.dumps(first.data["objects"]) == json.dumps(second.data["objects"])
