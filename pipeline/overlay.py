"""Drawing what was found over a picture: boxes, names, track ids, and the level of its source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from pipeline.image import decode, encode_jpeg
from pipeline.records import Image

LONGEST_PX = 1280
QUALITY = 80
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_INK = (255, 255, 255)
_DARK = (24, 20, 18)
_LEVEL = (214, 168, 86)
# hues far apart, in BGR; an object keeps the colour of its track
_COLOURS = (
    (84, 182, 255),
    (193, 214, 64),
    (120, 120, 255),
    (232, 156, 72),
    (140, 230, 120),
    (214, 132, 220),
    (96, 208, 232),
    (180, 180, 90),
)


@dataclass(frozen=True, slots=True)
class Caption:
    """What is written at the foot of a picture.

    Attributes:
        source: its name.
        level: 0 to 1; None before anything was scored.
        phase: in words.
    """

    source: str
    level: float | None = None
    phase: str | None = None


def annotate(
    data: bytes,
    objects: Sequence[Mapping[str, Any]],
    width_px: int,
    caption: Caption,
    longest_px: int = LONGEST_PX,
) -> bytes:
    """Draw objects over an encoded picture and encode it as JPEG; blocks.

    Args:
        data: the picture.
        objects: each with `box` in pixels of the full frame, `label`, `confidence`, maybe `id`.
        width_px: of the full frame that boxes refer to; 0 for that of the picture itself.
        caption: for the foot.
        longest_px: a longer side is scaled down to this.

    Raises:
        EntryError: the picture does not decode.
    """
    picture = decode(data)
    image = np.ascontiguousarray(picture.image)
    height, width = image.shape[:2]
    shrink = min(1.0, longest_px / max(height, width))
    if shrink < 1:
        size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    scale = image.shape[1] / (width_px or picture.width)
    for each in objects:
        _draw_object(image, each, scale)
    _draw_caption(image, caption)
    return encode_jpeg(image, QUALITY)


def _draw_object(image: Image, each: Mapping[str, Any], scale: float) -> None:
    box = each.get("box")
    if not isinstance(box, Sequence) or len(box) != 4:
        return
    height, width = image.shape[:2]
    corners = np.clip(np.array(box, float) * scale, 0, [width - 1, height - 1] * 2)
    if not np.isfinite(corners).all():
        return
    left, top, right, bottom = (round(edge) for edge in corners)
    number = each.get("id")
    colour = _COLOURS[(number if isinstance(number, int) else hash_of(each)) % len(_COLOURS)]
    thick = max(1, round(min(height, width) / 320))
    cv2.rectangle(image, (left, top), (right, bottom), colour, thick, cv2.LINE_AA)
    name = f"{each.get('label', '?')}" + (f" #{number % 10_000}" if isinstance(number, int) else "")
    confidence = each.get("confidence")
    if isinstance(confidence, (int, float)):
        name += f" {confidence:.2f}"
    _write(image, name, (left, top), colour)


def hash_of(each: Mapping[str, Any]) -> int:
    """Give a number for an object that has no id: that of its class."""
    number = each.get("class_id")
    return number if isinstance(number, int) else 0


def _write(image: Image, text: str, at: tuple[int, int], colour: tuple[int, int, int]) -> None:
    """Write dark on a plate of the colour, above a corner, or below it at the upper edge."""
    size = _size(image)
    plain = text.encode("ascii", "replace").decode()[:48]
    (wide, high), base = cv2.getTextSize(plain, _FONT, size, 1)
    x = max(0, min(at[0], image.shape[1] - wide - 6))
    y = at[1] if at[1] > high + base + 4 else at[1] + high + base + 4
    cv2.rectangle(image, (x, y - high - base - 4), (x + wide + 6, y), colour, cv2.FILLED)
    cv2.putText(image, plain, (x + 3, y - base), _FONT, size, _DARK, 1, cv2.LINE_AA)


def _draw_caption(image: Image, caption: Caption) -> None:
    size = _size(image)
    text = caption.source[:40]
    if caption.level is not None:
        text += f"   level {caption.level:.3f}   {caption.phase or ''}"
    (_, high), base = cv2.getTextSize(text, _FONT, size, 1)
    height, width = image.shape[:2]
    top = max(0, height - high - base - 10)
    image[top:] = (image[top:] * 0.35).astype(np.uint8)
    if caption.level is not None:
        end = round(width * min(1.0, max(0.0, caption.level)))
        cv2.rectangle(image, (0, top), (end, top + 2), _LEVEL, cv2.FILLED)
    cv2.putText(image, text, (6, height - base - 4), _FONT, size, _INK, 1, cv2.LINE_AA)


def _size(image: Image) -> float:
    return max(0.35, float(min(image.shape[:2])) / 1000)
