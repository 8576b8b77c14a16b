"""Pictures: headers, limits, decoding at a scale, and their place in the network's input."""

from __future__ import annotations

import struct
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.errors import EntryError, Reason
from pipeline.image import PADDING, decode, encode_jpeg, letterbox, thumbnail
from pipeline.image_header import MAX_BYTES, Format, ImageInfo, probe
from pipeline.records import Image, Picture

SIZES = st.integers(1, 5000)


def scene(width: int, height: int) -> Image:
    """A smooth picture with a bright rectangle in its lower right quarter."""
    made = np.full((height, width, 3), 60, np.uint8)
    made[height // 2 :, width // 2 :] = (20, 120, 240)
    return made


def encode(extension: str, picture: Image, *parameters: int) -> bytes:
    done, data = cv2.imencode(extension, picture, list(parameters))
    assert done
    return data.tobytes()


def with_exif_orientation(jpeg: bytes, orientation: int) -> bytes:
    """Put an EXIF segment that asks for a rotation behind the start marker."""
    tiff = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    body = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


PICTURE = scene(161, 91)
ENCODED = {
    "baseline": (Format.JPEG, encode(".jpg", PICTURE)),
    "progressive": (Format.JPEG, encode(".jpg", PICTURE, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
    "png": (Format.PNG, encode(".png", PICTURE)),
    "lossy": (Format.WEBP, encode(".webp", PICTURE, cv2.IMWRITE_WEBP_QUALITY, 80)),
    "lossless": (Format.WEBP, encode(".webp", PICTURE, cv2.IMWRITE_WEBP_QUALITY, 101)),
    "extended": (
        Format.WEBP,
        encode(".webp", np.dstack([PICTURE, PICTURE[..., :1]]), cv2.IMWRITE_WEBP_QUALITY, 80),
    ),
}
JPEG, PNG, LOSSY = (ENCODED[name][1] for name in ("baseline", "png", "lossy"))


@pytest.mark.parametrize("name", ENCODED)
def test_header_and_pixels_agree(name: str) -> None:
    """Every encoding that the contract allows gives its size from the header, and decodes to it."""
    data = ENCODED[name][1]

    info = probe(data)
    picture = decode(data)

    assert info == ImageInfo(ENCODED[name][0], 161, 91)
    assert picture.image.shape == (91, 161, 3)
    assert np.abs(picture.image.astype(int) - scene(161, 91)).mean() < 6


@pytest.mark.parametrize("name", ENCODED)
def test_a_picture_cut_short_is_refused(name: str) -> None:
    """Wherever a picture is cut, it is undecodable, never a half-grey frame."""
    data = ENCODED[name][1]

    for length in range(len(data)):
        with pytest.raises(EntryError) as caught:
            decode(data[:length])
        assert caught.value.reason is Reason.UNDECODABLE


@given(st.binary(max_size=200), st.sampled_from(["", *ENCODED]), st.integers(0, 60))
@example(b"", "", 0)
@example(b"\xff" * 40, "baseline", 2)
def test_arbitrary_bytes_give_an_entry_error_or_a_size(noise: bytes, name: str, at: int) -> None:
    """Whatever is in the bytes, probe gives a size within the limits or says what is wrong."""
    whole = ENCODED[name][1] if name else b""

    try:
        info = probe(whole[:at] + noise + whole[at + len(noise) :])
    except EntryError:
        return

    assert 0 < info.width * info.height <= 50_000_000


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "empty"),
        (b"GIF89a" + bytes(20), "neither JPEG, PNG nor WebP"),
        (b"\xff\xd8\xff\xd9", "without a frame header"),
        (b"\xff\xd8\xff" + b"\xff" * 40, "cut short"),
        (b"RIFF\x20\0\0\0WEBPVP8?" + bytes(30), "unknown first chunk"),
        (PNG.replace(b"IHDR", b"IHDX"), "header chunk"),
    ],
)
def test_the_message_tells_what_is_wrong(data: bytes, word: str) -> None:
    """A dead letter's message names the fault."""
    with pytest.raises(EntryError, match=word) as caught:
        probe(data)

    assert caught.value.reason is Reason.UNDECODABLE


def png_header(width: int, height: int) -> bytes:
    data = PNG
    return data[:16] + struct.pack(">II", width, height) + data[24:]


@pytest.mark.parametrize(
    "data",
    [
        bytes(MAX_BYTES + 1),
        png_header(60_000, 60_000),
        png_header(50_001, 1_000),
    ],
    ids=["bytes", "bomb", "pixels"],
)
def test_a_bomb_is_refused_by_its_header(data: bytes) -> None:
    """A small file that would unfold to gigabytes is too large before anything decodes."""
    with pytest.raises(EntryError) as caught:
        decode(data)

    assert caught.value.reason is Reason.TOO_LARGE


def test_a_header_that_lies_about_the_size_is_refused() -> None:
    """Boxes are scaled by the header's size, so pixels of another size are no picture of it."""
    data = LOSSY
    canvas = struct.pack("<I", 40 - 1)[:3] + struct.pack("<I", 30 - 1)[:3]
    chunk = b"VP8X" + struct.pack("<I", 10) + bytes(4) + canvas + data[12:]
    lying = b"RIFF" + struct.pack("<I", len(chunk) + 4) + b"WEBP" + chunk

    assert probe(lying) == ImageInfo(Format.WEBP, 40, 30)
    with pytest.raises(EntryError) as caught:
        decode(lying)
    assert caught.value.reason is Reason.UNDECODABLE


def test_endless_scans_are_refused() -> None:
    """A JPEG may repeat its scans without end, each a walk over all pixels."""
    data = JPEG

    with pytest.raises(EntryError, match="scans"):
        probe(data[:-2] + b"\xff\xda" * 100 + data[-2:])


def test_orientation_is_ignored() -> None:
    """Width and height count the stored pixels, and so do the boxes: nothing is turned."""
    data = with_exif_orientation(JPEG, 6)

    picture = decode(data)

    assert (picture.width, picture.height) == (161, 91)
    assert picture.image.shape == (91, 161, 3)


@pytest.mark.parametrize(
    ("width", "height", "seen", "factor"),
    [
        (960, 540, 640, 1),
        (1280, 720, 640, 2),
        (1921, 1081, 640, 2),
        (1278, 718, 640, 1),
        (2560, 1440, 640, 4),
        (2000, 3000, 320, 8),
    ],
)
def test_a_jpeg_is_decoded_no_finer_than_needed(
    width: int, height: int, seen: int, factor: int
) -> None:
    """The network sees `seen` pixels of the longer side; a coarser scale would lose detail."""
    data = encode_jpeg(scene(width, height))

    picture = decode(data, seen)

    assert picture.image.shape[:2] == (-(-height // factor), -(-width // factor))
    assert (picture.width, picture.height) == (width, height)


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_boxes_do_not_depend_on_the_decode_scale(factor: int) -> None:
    """An edge at 1/2 of an odd-sized frame is found at the same full-frame place at every scale."""
    width, height = 2571, 1447
    image = np.zeros((-(-height // factor), -(-width // factor), 3), np.uint8)
    picture = Picture(image, width, height)
    box = letterbox(width, height, (320, 320))
    covered = image.shape[1] * factor
    edge = box.left + (width / 2) * box.inner_width / covered

    found = box.to_frame(np.array([[edge, 0, edge, 0]], np.float32), picture)

    assert found[0, 0] == pytest.approx(width / 2, abs=0.01)


@given(SIZES, SIZES, st.sampled_from([320, 416, 640]), st.booleans())
def test_a_letterbox_holds_the_picture(width: int, height: int, outer: int, square: bool) -> None:
    """The rectangle is no larger than asked, a multiple of 32, and the picture lies inside it."""
    box = letterbox(width, height, (outer, outer), None if square else 32)

    assert max(box.outer_width, box.outer_height) == outer
    assert box.outer_width % 32 == box.outer_height % 32 == 0
    assert 0 <= box.left <= box.outer_width - box.inner_width - box.left + 1
    assert 0 <= box.top <= box.outer_height - box.inner_height - box.top + 1
    if not square:
        assert box.outer_width - box.inner_width < 32
        assert box.outer_height - box.inner_height < 32


@given(SIZES, SIZES, st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_boxes_survive_the_round_trip(width: int, height: int, at: list[float]) -> None:
    """A box of the frame, put into the network's input and back, is the same box."""
    box = letterbox(width, height, (640, 640))
    picture = Picture(np.zeros((height, width, 3), np.uint8), width, height)
    frame = np.array([at], np.float32) * np.array([width, height] * 2, np.float32)
    scale = np.array([box.inner_width / width, box.inner_height / height] * 2)
    inside = (frame * scale + np.array([box.left, box.top] * 2)).astype(np.float32)

    found = box.to_frame(inside, picture)

    assert found == pytest.approx(frame, abs=max(width, height) * 1e-5 + 1e-3)


def test_boxes_are_clipped_to_the_frame() -> None:
    """The network may see an object reach into the padding; results do not."""
    picture = Picture(scene(960, 540), 960, 540)

    found = letterbox(960, 540, (640, 640)).to_frame(
        np.array([[-50, -50, 900, 900]], np.float32), picture
    )

    assert found.tolist() == [[0, 0, 960, 540]]


def test_the_padding_is_the_grey_that_networks_know() -> None:
    """Memory is used again for other pictures, so nothing of the last one may show at the edges."""
    picture = Picture(scene(960, 540), 960, 540)
    box = letterbox(960, 540, (640, 640))
    target = np.full((box.outer_height, box.outer_width, 3), 7, np.uint8)

    box.fill(target, picture)

    assert (target[: box.top] == PADDING).all()
    assert (target[box.top + box.inner_height :] == PADDING).all()
    assert (target[box.top : box.top + box.inner_height] != PADDING).any(axis=2).all()


@pytest.mark.parametrize("name", ENCODED)
def test_a_thumbnail_is_small_and_grey_and_shows_the_same(name: str) -> None:
    small = thumbnail(ENCODED[name][1])

    assert small.ndim == 2
    assert max(small.shape) <= 80
    dark, bright = small[: small.shape[0] // 3], small[-3:, -3:]
    assert abs(int(np.median(dark)) - 60) <= 3
    assert bright.mean() > 120


def test_thumbnails_of_noise_differ_little_and_of_a_small_object_much() -> None:
    """What the still-camera gate stands on: an eighth of a JPEG averages the noise away."""
    numbers = np.random.default_rng(3)
    shown = cv2.resize(scene(64, 36), (1280, 720), interpolation=cv2.INTER_CUBIC)

    def seen(picture: NDArray[Any]) -> Image:
        noisy = picture + numbers.normal(0, 4, picture.shape)
        return thumbnail(encode(".jpg", np.clip(noisy, 0, 255).astype(np.uint8)))

    with_object = shown.copy()
    with_object[100:132, 200:216] = 200

    still = np.abs(seen(shown).astype(int) - seen(shown))
    moved = np.abs(seen(shown).astype(int) - seen(with_object))

    assert still.max() < 5
    assert moved.max() > 50


@pytest.mark.parametrize("data", [b"", b"GIF89a", JPEG[:-2], PNG[:40]])
def test_no_thumbnail_of_what_is_no_picture(data: bytes) -> None:
    with pytest.raises(EntryError):
        thumbnail(data)
