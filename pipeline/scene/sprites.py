"""Draws the kinds of objects that pass through the scene, each in colours of its own (only cv2).

A sprite is premultiplied BGRA, so that scaling and turning it leaves no dark rim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from pipeline.records import Image

Colour = tuple[int, int, int, int]
Points = Sequence[tuple[float, float]]

_CANVAS_PX = 256
_INK: Colour = (38, 30, 34, 255)
_WHITE: Colour = (250, 250, 250, 255)
_GLASS: Colour = (250, 226, 176, 255)


def sprite(kind: int, size_px: int, rng: np.random.Generator) -> Image:
    """Draw one object of a kind in colours of its own.

    Args:
        kind: index into SPRITE_KINDS.
        size_px: length of the longer side of the result.
        rng: gives the colours and details.

    Returns:
        uint8 (h, w, 4), premultiplied BGRA, without an empty border.
    """
    canvas = np.zeros((_CANVAS_PX, _CANVAS_PX, 4), np.uint8)
    hue = int(rng.integers(180))
    bright = hsv(hue, int(rng.integers(150, 235)), int(rng.integers(185, 250)))
    accent = hsv(hue + int(rng.integers(50, 130)), int(rng.integers(90, 220)), 235)
    dark = hsv(hue, 200, 110)
    SPRITE_KINDS[kind][1](canvas, (bright, accent, dark), rng)
    x, y, width, height = cv2.boundingRect(canvas[..., 3])
    scale = size_px / max(width, height)
    target = (max(1, round(width * scale)), max(1, round(height * scale)))
    cropped = canvas[y : y + height, x : x + width]
    return np.asarray(cv2.resize(cropped, target, interpolation=cv2.INTER_AREA), np.uint8)


def hsv(hue: int, saturation: int, value: int) -> Colour:
    """Give an opaque BGRA colour; hue in half degrees, wrapping."""
    pixel = np.array([[[hue % 180, saturation, value]]], np.uint8)
    b, g, r = cv2.cvtColor(pixel, cv2.COLOR_HSV2BGR)[0, 0].tolist()
    return b, g, r, 255


def fill(canvas: Image, points: Points, colour: Colour) -> None:
    """Fill a polygon given in pixels, smooth to a sixteenth of one."""
    corners = np.round(np.array(points) * 16).astype(np.int32)
    cv2.fillPoly(canvas, [corners], colour, cv2.LINE_AA, 4)


def _oval(canvas: Image, centre: tuple[int, int], axes: tuple[int, int], colour: Colour) -> None:
    cv2.ellipse(canvas, centre, axes, 0, 0, 360, colour, -1, cv2.LINE_AA)


def _box(canvas: Image, left_top: tuple[int, int], wh: tuple[int, int], colour: Colour) -> None:
    corner = (left_top[0] + wh[0], left_top[1] + wh[1])
    cv2.rectangle(canvas, left_top, corner, colour, -1, cv2.LINE_AA)


def _inside(canvas: Image, paint: Callable[[Image], None]) -> None:
    """Paint a texture over what is drawn so far, and nowhere else."""
    alpha = canvas[..., 3].copy()
    paint(canvas)
    canvas[alpha == 0] = 0


def _balloon(canvas: Image, colours: Sequence[Colour], _: np.random.Generator) -> None:
    bright, accent, dark = colours
    _oval(canvas, (128, 96), (92, 94), bright)
    fill(canvas, [(48, 142), (208, 142), (150, 212), (106, 212)], bright)

    def gores(layer: Image) -> None:
        for axis, colour in ((66, accent), (40, bright), (15, accent)):
            _oval(layer, (128, 104), (axis, 112), colour)
        cv2.ellipse(layer, (128, 118), (110, 34), 0, 0, 180, dark, 7, cv2.LINE_AA)

    _inside(canvas, gores)
    _box(canvas, (106, 208), (44, 38), (62, 104, 158, 255))
    for y in (218, 228, 238):
        cv2.line(canvas, (106, y), (150, y), (34, 62, 104, 255), 3)


def _beetle(canvas: Image, colours: Sequence[Colour], rng: np.random.Generator) -> None:
    bright = colours[0]
    for y, reach in ((88, 112), (140, 120), (192, 110)):
        cv2.line(canvas, (128 - reach, y + 12), (128 + reach, y + 12), _INK, 15, cv2.LINE_AA)
    _oval(canvas, (128, 52), (52, 42), _INK)
    _oval(canvas, (128, 146), (92, 98), bright)
    for x in (108, 148):
        _oval(canvas, (x, 36), (11, 11), _WHITE)
    cv2.line(canvas, (128, 52), (128, 243), _INK, 8, cv2.LINE_AA)
    radius = int(rng.integers(15, 22))
    for x, y in ((84, 104), (172, 104), (76, 164), (180, 164), (100, 214), (156, 214)):
        _oval(canvas, (x, y), (radius, radius), _INK)


def _bus(canvas: Image, colours: Sequence[Colour], rng: np.random.Generator) -> None:
    bright, accent, dark = colours
    _box(canvas, (14, 66), (228, 112), bright)
    fill(canvas, [(14, 66), (34, 50), (226, 50), (242, 66)], dark)
    _box(canvas, (14, 132), (228, 16), accent)
    panes = int(rng.integers(4, 6))
    step = 212 // panes
    for pane in range(panes):
        _box(canvas, (24 + pane * step, 80), (step - 12, 40), _GLASS)
    for x in (66, 190):
        _oval(canvas, (x, 178), (28, 28), _INK)
        _oval(canvas, (x, 178), (12, 12), (190, 190, 190, 255))
    _oval(canvas, (232, 158), (9, 9), (150, 240, 255, 255))


def _fish(canvas: Image, colours: Sequence[Colour], _: np.random.Generator) -> None:
    bright, accent, dark = colours
    fill(canvas, [(70, 128), (10, 70), (28, 128), (10, 186)], accent)
    fill(canvas, [(100, 80), (128, 42), (186, 72)], accent)
    _oval(canvas, (152, 128), (96, 60), bright)

    def scales(layer: Image) -> None:
        for column in range(5):
            for row in range(5):
                centre = (84 + column * 26, 78 + row * 26 + (column % 2) * 13)
                cv2.ellipse(layer, centre, (16, 16), 0, -80, 80, dark, 5, cv2.LINE_AA)

    _inside(canvas, scales)
    cv2.ellipse(canvas, (206, 128), (12, 52), 0, 90, 270, dark, 7, cv2.LINE_AA)
    _oval(canvas, (220, 112), (15, 15), _WHITE)
    _oval(canvas, (224, 112), (8, 8), _INK)


def _kite(canvas: Image, colours: Sequence[Colour], _: np.random.Generator) -> None:
    bright, accent, dark = colours
    top, left, right, bottom = (128, 6), (48, 84), (208, 84), (128, 204)
    centre = (128, 84)
    for triangle, colour in (
        ((top, left, centre), bright),
        ((top, right, centre), accent),
        ((bottom, left, centre), accent),
        ((bottom, right, centre), bright),
    ):
        fill(canvas, triangle, colour)
    cv2.line(canvas, top, bottom, _INK, 6, cv2.LINE_AA)
    cv2.line(canvas, left, right, _INK, 6, cv2.LINE_AA)
    for y, colour in ((204, dark), (228, bright)):
        fill(canvas, [(128, y + 10), (94, y - 6), (94, y + 24)], colour)
        fill(canvas, [(128, y + 10), (162, y - 6), (162, y + 24)], colour)


def _robot(canvas: Image, colours: Sequence[Colour], _: np.random.Generator) -> None:
    bright, accent, dark = colours
    cv2.line(canvas, (128, 8), (128, 40), dark, 9, cv2.LINE_AA)
    _oval(canvas, (128, 14), (13, 13), accent)
    _box(canvas, (70, 34), (116, 76), bright)
    _box(canvas, (58, 120), (140, 88), dark)
    for x in (28, 206):
        _box(canvas, (x, 124), (22, 74), bright)
    for x in (74, 142):
        _box(canvas, (x, 212), (40, 38), _INK)
    for x in (102, 154):
        _oval(canvas, (x, 64), (17, 17), _WHITE)
        _oval(canvas, (x, 66), (8, 8), _INK)
    cv2.line(canvas, (94, 94), (162, 94), _INK, 7)
    for row in range(2):
        for column in range(3):
            light = accent if (row + column) % 2 else _GLASS
            _box(canvas, (78 + column * 36, 134 + row * 34), (24, 22), light)


def _rocket(canvas: Image, colours: Sequence[Colour], _: np.random.Generator) -> None:
    bright, accent, dark = colours
    fill(canvas, [(104, 200), (152, 200), (128, 252)], (40, 150, 255, 255))
    fill(canvas, [(116, 200), (140, 200), (128, 230)], (130, 240, 255, 255))
    fill(canvas, [(84, 124), (40, 210), (84, 196)], bright)
    fill(canvas, [(172, 124), (216, 210), (172, 196)], bright)
    fill(canvas, [(128, 4), (164, 52), (176, 110), (168, 202), (88, 202), (80, 110), (92, 52)],
          (232, 232, 236, 255))  # fmt: skip
    fill(canvas, [(128, 4), (164, 52), (92, 52)], bright)
    _oval(canvas, (128, 92), (25, 25), dark)
    _oval(canvas, (128, 92), (16, 16), _GLASS)
    for y in (134, 160):
        _box(canvas, (82, y), (92, 12), accent)
    _box(canvas, (120, 150), (16, 60), dark)


def _saucer(canvas: Image, colours: Sequence[Colour], rng: np.random.Generator) -> None:
    bright, accent, dark = colours
    _oval(canvas, (128, 104), (62, 58), _GLASS)
    _oval(canvas, (128, 112), (22, 30), dark)
    _oval(canvas, (128, 156), (68, 40), dark)
    _oval(canvas, (128, 142), (120, 36), bright)
    cv2.ellipse(canvas, (128, 136), (92, 17), 0, 0, 180, _INK, 5, cv2.LINE_AA)
    for light in range(int(rng.integers(5, 7))):
        _oval(canvas, (42 + light * 34, 152 + (light in {1, 2, 3}) * 8), (10, 8), accent)


_Paint = Callable[[Image, Sequence[Colour], np.random.Generator], None]
SPRITE_KINDS: tuple[tuple[str, _Paint], ...] = (
    ("balloon", _balloon),
    ("beetle", _beetle),
    ("bus", _bus),
    ("fish", _fish),
    ("kite", _kite),
    ("robot", _robot),
    ("rocket", _rocket),
    ("saucer", _saucer),
)
