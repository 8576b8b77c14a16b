"""Frames as anybody may publish them, valid and invalid (contract, section 3)."""

from __future__ import annotations

import hashlib
import math
import struct
import time
import zlib
from collections.abc import Callable

import pytest

from tests.streams import Fields, Streams, a_source, key, pack, partition_of, picture, unpack

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
MIB = 1024 * 1024


def png(width: int, height: int, rows: bytes) -> bytes:
    """Make a PNG of one bit a pixel by hand, whatever its data may be."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows, 9)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def whole_png(width: int, height: int) -> bytes:
    return png(width, height, bytes(height * (1 + (width + 7) // 8)))


VALID: dict[str, Fields] = {
    "JPEG": {"image": picture()},
    "PNG": {"image": picture(suffix=".png")},
    "WebP": {"image": picture(suffix=".webp")},
    "one pixel": {"image": picture(suffix=".png", width=4, height=4)},
    "tall": {"image": picture(width=30, height=400)},
    "wide": {"image": picture(width=400, height=30)},
    "grey of one bit": {"image": whole_png(64, 48)},
    "ts": {"image": picture(), "ts": "1700000000000"},
    "meta": {"image": picture(), "meta": pack({"camera": "left"})},
    "traceparent": {"image": picture(), "traceparent": TRACEPARENT},
    "seq with producer": {"image": picture(), "seq": "0", "producer": "run-1"},
}


@pytest.mark.parametrize("kind", ["recordings", "frames"])
@pytest.mark.parametrize("fields", VALID.values(), ids=VALID.keys())
async def test_a_valid_frame_is_detected_and_scored(
    deployment: Streams, fields: Fields, kind: str
) -> None:
    source = a_source()

    async with deployment.counting(source) as counted:
        entry_id = await deployment.add(kind, source, fields)

    (found,) = await deployment.of("detections", source)
    assert (found["frame"], found["stream"]) == (entry_id, kind)
    (score,) = await deployment.scores(source)
    assert score["first"] == score["last"] == entry_id
    assert counted.pop("frames_detected", 0) + counted.pop("frames_cached", 0) == 1
    assert counted == {"frames_scored": 1}
    assert not await deployment.redis.xrange(key(kind, source), entry_id, entry_id)


INVALID: dict[str, tuple[Fields, str]] = {
    "no image": ({}, "bad_field"),
    "misspelt image": ({"imgae": picture()}, "bad_field"),
    "truncated JPEG": ({"image": picture()[:-400]}, "undecodable"),
    "truncated PNG": ({"image": picture(suffix=".png")[:-400]}, "undecodable"),
    "truncated WebP": ({"image": picture(suffix=".webp")[:-400]}, "undecodable"),
    "JPEG of a header alone": ({"image": picture()[:30]}, "undecodable"),
    "text": ({"image": b"no picture at all"}, "undecodable"),
    "GIF": (
        {
            "image": b"GIF89a\x01\x00\x01\x00\x80\x00\x00\xff\xff\xff\x00\x00\x00,"
            b"\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"
        },
        "undecodable",
    ),
    "BMP": ({"image": picture(suffix=".bmp")}, "undecodable"),
    "TIFF": ({"image": picture(suffix=".tiff")}, "undecodable"),
    "PNG without width": ({"image": png(0, 10, b"")}, "undecodable"),
    "PNG with damaged data": ({"image": png(200, 200, b"\x00\x01")}, "undecodable"),
    "ts NaN": ({"image": picture(), "ts": "nan"}, "bad_field"),
    "ts in the future": (
        {"image": picture(), "ts": str(int(time.time() * 1000) + 3_600_000)},
        "bad_field",
    ),
    "seq without producer": ({"image": picture(), "seq": "1"}, "bad_field"),
    "producer without seq": ({"image": picture(), "producer": "run-1"}, "bad_field"),
    "seq infinity": ({"image": picture(), "seq": "inf", "producer": "run-1"}, "bad_field"),
    "meta that is no map": ({"image": picture(), "meta": pack("left")}, "bad_field"),
    "meta over 4 KiB": ({"image": picture(), "meta": pack({"a": "x" * 4100})}, "bad_field"),
}


@pytest.mark.parametrize(("fields", "reason"), INVALID.values(), ids=INVALID.keys())
async def test_an_invalid_frame_is_a_dead_letter_between_unharmed_neighbours(
    deployment: Streams, fields: Fields, reason: str
) -> None:
    await _judge(deployment, lambda source: fields, {reason})


GARBAGE: dict[str, tuple[Fields, set[str]]] = {
    "empty image": ({"image": b""}, {"bad_field", "undecodable"}),
    "garbage in meta": (
        {"image": picture(), "meta": b"\xc1\xff\x00"},
        {"bad_field", "undecodable"},
    ),
    "NaN alone in meta": ({"image": picture(), "meta": pack(math.nan)}, {"bad_field"}),
}


@pytest.mark.parametrize(("fields", "reasons"), GARBAGE.values(), ids=GARBAGE.keys())
async def test_garbage_is_a_dead_letter(
    deployment: Streams, fields: Fields, reasons: set[str]
) -> None:
    await _judge(deployment, lambda source: fields, reasons)


HUGE: dict[str, Callable[[], bytes]] = {
    "over 16 MiB": lambda: picture() + bytes(16 * MIB),
    "16 MiB that are no picture": lambda: b"x" * (16 * MIB + 1),
    "a bomb of 64 megapixels": lambda: whole_png(8000, 8000),
    "a bomb of 400 megapixels without data": lambda: png(20_000, 20_000, b""),
    "a bomb of 2^62 pixels": lambda: png(2**31 - 1, 2**31 - 1, b""),
}


@pytest.mark.parametrize("image", HUGE.values(), ids=HUGE.keys())
async def test_a_huge_image_is_too_large(deployment: Streams, image: Callable[[], bytes]) -> None:
    await _judge(deployment, lambda source: {"image": image()}, {"too_large"})


async def test_50_megapixels_are_not_too_many(deployment: Streams) -> None:
    source = a_source()

    await deployment.frame(source, whole_png(7000, 7000))
    await deployment.settled(source)

    (found,) = await deployment.of("detections", source)
    assert (found.data["width"], found.data["height"]) == (7000, 7000)


async def _judge(deployment: Streams, bad: Callable[[str], Fields], reasons: set[str]) -> None:
    """Publish a bad frame of a source between good ones of it and of another source."""
    source = a_source()
    other = a_source(partition=partition_of(source))

    async with deployment.counting(source) as counted:
        good = [await deployment.frame(source, picture(1)), await deployment.frame(other)]
        bad_id = await deployment.add("recordings", source, bad(source))
        good += [await deployment.frame(source, picture(2)), await deployment.frame(other)]

    (letter,) = await deployment.of("dead", source)
    assert (letter["id"], letter["stream"]) == (bad_id, "recordings")
    assert letter["reason"] in reasons
    assert letter["error"]
    assert int(letter["deliveries"]) >= 1
    assert [score["first"] for score in await deployment.scores(source)] == good[0::2]
    assert [score["first"] for score in await deployment.scores(other)] == good[1::2]
    assert counted.pop("frames_detected", 0) + counted.pop("frames_cached", 0) == 4
    assert counted == {"frames_scored": 4, "frames_dead": 1}
    state = await deployment.state(source)
    assert (state["frames"], state["dead"]) == ("2", "1")


async def test_a_frame_in_another_partition_is_told_the_right_one(deployment: Streams) -> None:
    source = a_source(partition=7)

    bad = await deployment.add("recordings", source, {"image": picture()}, partition=8)
    await deployment.settled_in({7, 8})

    letters = await deployment.entries("percipio:{p008}:dead")
    (letter,) = [letter for letter in letters if letter["id"] == bad]
    assert (letter["reason"], letter["source"]) == ("wrong_partition", source)
    assert "p007" in letter["error"]
    assert not await deployment.of("detections", source)


async def test_a_frame_with_a_bad_source_name_is_a_bad_field(deployment: Streams) -> None:
    bad = await deployment.frame("cam/1")
    await deployment.settled("cam/1")

    letters = await deployment.entries(key("dead", "cam/1"))
    (letter,) = [letter for letter in letters if letter["id"] == bad]
    assert letter["reason"] == "bad_field"


async def test_once_a_source_sent_a_frame_8_channels_are_kept_for_what_is_seen(
    deployment: Streams,
) -> None:
    source = a_source()

    async with deployment.counting(source) as counted:
        await deployment.frame(source)
        await deployment.settled(source)
        for number in range(9):
            last = await deployment.event(source, channel=f"c{number}")

    assert counted["events_scored"] == 8
    (letter,) = await deployment.of("dead", source)
    assert (letter["id"], letter["reason"]) == (last, "bad_field")


async def test_names_a_source_had_before_its_first_frame_stay(deployment: Streams) -> None:
    source = a_source()
    values = pack({f"c{number}": 1.0 for number in range(16)})

    async with deployment.counting(source) as counted:
        await deployment.event(source, values=values)
        await deployment.settled(source)
        await deployment.frame(source)
        await deployment.settled(source)
        await deployment.event(source, values=values)

    assert counted["events_scored"] == 2
    assert "events_dead" not in counted


async def test_a_dead_letter_over_1_mib_keeps_size_and_digest_of_its_image(
    deployment: Streams,
) -> None:
    source = a_source()
    image = b"x" * (MIB + 1)

    await deployment.frame(source, image)
    await deployment.settled(source)

    (letter,) = await deployment.of("dead", source)
    assert len(letter.raw["entry"]) < 10_000
    kept = str(unpack(letter.raw["entry"]))
    assert hashlib.sha256(image).hexdigest() in kept
    assert str(len(image)) in kept
