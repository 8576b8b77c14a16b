"""What a picture's header says: format and size, before anything decodes.

A few header bytes decide whether a picture may be decoded at all, so an image bomb costs nothing.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from pipeline.errors import EntryError, Reason

MAX_BYTES = 16 * 1024 * 1024
MAX_PIXELS = 50_000_000
_MAX_SEGMENTS = 4096  # a JPEG has a few dozen; a hostile one millions, each a step in Python
_MAX_SCANS = 64  # progressive JPEGs have about 10; every further scan walks the whole picture
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class Format(StrEnum):
    """The encodings that an entry's image may have."""

    JPEG = "jpeg"
    PNG = "png"
    WEBP = "webp"


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """Format and size of a picture; EXIF orientation is ignored, as it is when decoding.

    Attributes:
        format: how it is encoded.
        width: pixels.
        height: pixels.
    """

    format: Format
    width: int
    height: int


def probe(data: bytes) -> ImageInfo:
    """Read format and size from the header of a JPEG, PNG or WebP.

    Raises:
        EntryError: `too_large` above 16 MiB or 50 megapixels; `undecodable` for everything else
            that is wrong: another format, a header cut short, an end that is missing.
    """
    if len(data) > MAX_BYTES:
        raise EntryError(Reason.TOO_LARGE, f"image of {len(data)} bytes, at most {MAX_BYTES}")
    try:
        info = _parse(data)
    except (struct.error, IndexError) as error:
        raise _undecodable(f"image header cut short after {len(data)} bytes") from error
    if info.width < 1 or info.height < 1:
        raise _undecodable(f"{info.format} of {info.width}x{info.height} pixels")
    if info.width * info.height > MAX_PIXELS:
        text = f"image of {info.width}x{info.height} pixels, at most {MAX_PIXELS}"
        raise EntryError(Reason.TOO_LARGE, text)
    return info


def _parse(data: bytes) -> ImageInfo:
    if data[:3] == b"\xff\xd8\xff":
        return _parse_jpeg(data)
    if data[:8] == _PNG_SIGNATURE:
        return _parse_png(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _parse_webp(data)
    if not data:
        raise _undecodable("image is empty")
    raise _undecodable(f"image is neither JPEG, PNG nor WebP (starts with {data[:8].hex(' ')})")


def _parse_jpeg(data: bytes) -> ImageInfo:
    """Walk the segments to the frame header (ITU T.81, B.1 and B.2.2)."""
    at = 2
    for _ in range(_MAX_SEGMENTS):
        if data[at] != 0xFF:
            raise _undecodable(f"JPEG without a marker at byte {at}")
        while data[at] == 0xFF:
            at += 1
        marker = data[at]
        at += 1
        if marker in _STANDALONE:
            continue
        if marker in {0xD9, 0xDA}:
            raise _undecodable("JPEG without a frame header")
        (length,) = struct.unpack_from(">H", data, at)
        if marker in _START_OF_FRAME:
            height, width = struct.unpack_from(">HH", data, at + 3)
            _check_jpeg_body(data, at + length)
            return ImageInfo(Format.JPEG, width, height)
        if length < 2:
            raise _undecodable(f"JPEG segment of length {length} at byte {at}")
        at += length
    raise _undecodable(f"JPEG with more than {_MAX_SEGMENTS} segments before its frame header")


def _check_jpeg_body(data: bytes, start: int) -> None:
    # libjpeg pads a picture cut short with grey and calls it decoded: the end marker tells.
    if data.rfind(b"\xff\xd9") < start:
        raise _undecodable("JPEG cut short: no end marker")
    codes = np.frombuffer(data, np.uint8)[start:]  # seven times as fast as bytes.count
    if np.count_nonzero((codes[:-1] == 0xFF) & (codes[1:] == 0xDA)) > _MAX_SCANS:
        raise _undecodable(f"JPEG of more than {_MAX_SCANS} scans")


def _parse_png(data: bytes) -> ImageInfo:
    length, kind, width, height = struct.unpack_from(">I4sII", data, 8)
    if length != 13 or kind != b"IHDR":
        raise _undecodable("PNG without a header chunk")
    if b"IEND\xaeB`\x82" not in data[33:]:
        raise _undecodable("PNG cut short: no end chunk")
    return ImageInfo(Format.PNG, width, height)


def _parse_webp(data: bytes) -> ImageInfo:
    """Read the first chunk of the RIFF container: lossy, lossless or extended."""
    (riff_bytes,) = struct.unpack_from("<I", data, 4)
    kind = data[12:16]
    if kind == b"VP8X":
        packed = int.from_bytes(struct.unpack_from("<6s", data, 24)[0], "little")
        width, height = (packed & 0xFFFFFF) + 1, (packed >> 24) + 1
    elif kind == b"VP8L":
        signature, packed = struct.unpack_from("<BI", data, 20)
        if signature != 0x2F:
            raise _undecodable("WebP without its lossless signature")
        width, height = (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        start, width, height = struct.unpack_from("<3sHH", data, 23)
        if start != b"\x9d\x01\x2a":
            raise _undecodable("WebP without its lossy start code")
        width, height = width & 0x3FFF, height & 0x3FFF
    else:
        raise _undecodable(f"WebP with an unknown first chunk {kind!r}")
    if riff_bytes + 8 > len(data):
        raise _undecodable(f"WebP cut short: {len(data)} of {riff_bytes + 8} bytes")
    return ImageInfo(Format.WEBP, width, height)


def _undecodable(message: str) -> EntryError:
    return EntryError(Reason.UNDECODABLE, message)
