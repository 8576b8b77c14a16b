"""Pictures: encoded bytes to arrays and back, and into the network's input. Home of OpenCV.

EXIF orientation is ignored everywhere: boxes are in the coordinates of the stored pixels, which
is also what the header's width and height count.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DependencyError, EntryError, Reason
from pipeline.image_header import Format, ImageInfo, probe
from pipeline.records import Image, Picture

try:
    import cv2
except ImportError as error:
    raise DependencyError(
        f"OpenCV does not load ({error}): install the system libraries it wants"
        " (Debian, Ubuntu: apt-get install libgl1 libglib2.0-0), or the build that needs none"
        " (pip uninstall opencv-python; pip install opencv-python-headless)"
    ) from error

__all__ = [
    "Format",
    "ImageInfo",
    "Letterbox",
    "decode",
    "encode_jpeg",
    "letterbox",
    "probe",
    "thumbnail",
]

PADDING = 114  # the grey that YOLO networks were trained to ignore

# One thread a call: pictures are decoded side by side, and the network owns the other cores.
cv2.setNumThreads(1)

THUMBNAIL_PX = 80
"""Longer side of a thumbnail: a cell is 8 pixels of what a network of 640 sees."""

_REDUCED = {
    8: cv2.IMREAD_REDUCED_COLOR_8,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    1: cv2.IMREAD_COLOR,
}


@dataclass(frozen=True, slots=True)
class Letterbox:
    """Where a picture lies in the network's input: scaled to `inner`, padded to `outer`.

    Attributes:
        outer_width: pixels of the padded rectangle.
        outer_height: pixels of the padded rectangle.
        inner_width: pixels of the scaled picture in it.
        inner_height: pixels of the scaled picture in it.
        left: padding before the picture.
        top: padding before the picture.
    """

    outer_width: int
    outer_height: int
    inner_width: int
    inner_height: int
    left: int
    top: int

    def fill(self, target: Image, picture: Picture) -> None:
        """Scale `picture` into `target`, uint8 (outer_height, outer_width, 3) BGR, and pad it."""
        bottom, right = self.top + self.inner_height, self.left + self.inner_width
        target[: self.top] = PADDING
        target[bottom:] = PADDING
        target[:, : self.left] = PADDING
        target[:, right:] = PADDING
        size = (self.inner_width, self.inner_height)
        cv2.resize(picture.image, size, dst=target[self.top : bottom, self.left : right])

    def to_frame(self, xyxy: NDArray[np.float32], picture: Picture) -> NDArray[np.float32]:
        """Map boxes (n, 4) from the network's input to pixels of the full frame, clipped to it."""
        span_x = _span(picture.image.shape[1], picture.width)
        span_y = _span(picture.image.shape[0], picture.height)
        scale = np.array([span_x / self.inner_width, span_y / self.inner_height] * 2, np.float32)
        offset = np.array([self.left, self.top] * 2, np.float32)
        limit = np.array([picture.width, picture.height] * 2, np.float32)
        boxes: NDArray[np.float32] = np.clip((xyxy - offset) * scale, np.float32(0), limit)
        return boxes


def letterbox(
    width: int, height: int, outer: tuple[int, int], stride: int | None = 32
) -> Letterbox:
    """Lay a picture of the given size into the network's input.

    The same rounding as ultralytics' `LetterBox`, so that results equal those of its `predict`.

    Args:
        width: pixels of the full frame.
        height: pixels of the full frame.
        outer: (height, width) that the input may have.
        stride: shrink the rectangle to the smallest whose padding keeps multiples of this;
            None for a network of fixed input size.
    """
    ratio = min(outer[0] / height, outer[1] / width)
    inner_w, inner_h = max(round(width * ratio), 1), max(round(height * ratio), 1)
    pad_w, pad_h = outer[1] - inner_w, outer[0] - inner_h
    if stride is not None:
        pad_w, pad_h = pad_w % stride, pad_h % stride
    return Letterbox(
        outer_width=inner_w + pad_w,
        outer_height=inner_h + pad_h,
        inner_width=inner_w,
        inner_height=inner_h,
        left=round(pad_w / 2 - 0.1),
        top=round(pad_h / 2 - 0.1),
    )


def decode(data: bytes, longer_side_px: int | None = None) -> Picture:
    """Decode a JPEG, PNG or WebP, a JPEG no finer than is needed.

    Blocks, and releases the GIL while OpenCV works. A JPEG whose entropy-coded data is damaged in
    the middle is accepted as libjpeg repairs it; one that is cut short is not.

    Args:
        data: the encoded picture.
        longer_side_px: what the network sees of the longer side; a JPEG is decoded at the
            smallest of 1, 1/2, 1/4, 1/8 that is not below it. None decodes it in full.

    Raises:
        EntryError: `too_large` or `undecodable`.
    """
    info = probe(data)
    factor = _reduction(info, longer_side_px)
    image = _decode(data, info, _REDUCED[factor], factor)
    return Picture(image, info.width, info.height)


def thumbnail(data: bytes) -> NDArray[np.uint8]:
    """Give a picture in grey with a longer side of at most 80 pixels, uint8 (h, w).

    Blocks, for a JPEG about a tenth of what decoding in full takes: it is decoded at an eighth.

    Raises:
        EntryError: `too_large` or `undecodable`.
    """
    info = probe(data)
    is_jpeg = info.format is Format.JPEG
    flags = cv2.IMREAD_REDUCED_GRAYSCALE_8 if is_jpeg else cv2.IMREAD_GRAYSCALE
    image = _decode(data, info, flags, 8 if is_jpeg else 1)
    ratio = THUMBNAIL_PX / max(image.shape)
    if ratio < 1:
        size = [max(1, round(side * ratio)) for side in (image.shape[1], image.shape[0])]
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    return image


def _decode(data: bytes, info: ImageInfo, flags: int, factor: int) -> NDArray[np.uint8]:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise EntryError(Reason.UNDECODABLE, f"{info.format}: {error}") from error
    if image is None:
        raise EntryError(Reason.UNDECODABLE, f"{info.format} does not decode")
    expected = (-(-info.height // factor), -(-info.width // factor))
    if image.shape[:2] != expected:
        text = f"{info.format} decodes to {image.shape}, its header says {expected}"
        raise EntryError(Reason.UNDECODABLE, text)
    return np.asarray(image, np.uint8)


def encode_jpeg(image: Image, quality: int = 90) -> bytes:
    """Encode uint8 (h, w, 3) BGR as JPEG; `quality` 1 to 100."""
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError(f"OpenCV cannot encode an image of {image.shape} {image.dtype}")
    return data.tobytes()


def _reduction(info: ImageInfo, longer_side_px: int | None) -> int:
    if longer_side_px is None or info.format is not Format.JPEG:
        return 1
    box = letterbox(info.width, info.height, (longer_side_px, longer_side_px))
    for factor in (8, 4, 2):
        wide = -(-info.width // factor) >= box.inner_width
        if wide and -(-info.height // factor) >= box.inner_height:
            return factor
    return 1


def _span(decoded_px: int, full_px: int) -> int:
    # A JPEG decoded at 1/f has ceil(full / f) pixels, which stand for up to f - 1 more than full.
    return decoded_px * round(full_px / decoded_px)
