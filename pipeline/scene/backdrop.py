"""Paints the place of the scene: the landscape behind the objects and what stands in front."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.records import Image
from pipeline.scene.sprites import fill, hsv

# Sky, horizon, far hill, near hill (BGR): noon, dusk, morning mist, mint, late night.
_MOODS = (
    ((226, 178, 118), (246, 228, 200), (150, 168, 128), (84, 142, 96)),
    ((122, 72, 96), (140, 176, 244), (116, 86, 110), (74, 62, 84)),
    ((214, 206, 190), (226, 224, 220), (178, 172, 150), (124, 138, 116)),
    ((196, 206, 146), (222, 238, 214), (160, 172, 104), (112, 132, 70)),
    ((96, 58, 40), (150, 112, 86), (92, 72, 52), (62, 56, 38)),
)


def backdrop(size_wh: tuple[int, int], rng: np.random.Generator) -> Image:
    """Paint a landscape: sky, a disc of sun, clouds, hills with houses, and a grainy meadow."""
    width, height = size_wh
    sky, horizon, far, near = (
        np.array(c, np.float32) for c in _MOODS[int(rng.integers(len(_MOODS)))]
    )
    ramp = np.linspace(0, 1, height, dtype=np.float32)[:, None, None] ** 0.8
    image = np.ascontiguousarray(
        np.broadcast_to(sky + (horizon - sky) * ramp, (height, width, 3))
    ).astype(np.uint8)
    _sun(image, rng)
    _clouds(image, rng)
    middle = ((far + near) / 2).astype(np.float32)
    for layer, colour in enumerate((far, middle, near)):
        _hill(image, 0.5 + 0.16 * layer, colour, rng)
    grain = _soft_noise(size_wh, (9, 14), rng) * 11 + _soft_noise(size_wh, (48, 80), rng) * 6
    return np.clip(image + grain[..., None], 0, 255).astype(np.uint8)


def foreground(size_wh: tuple[int, int], rng: np.random.Generator) -> list[tuple[int, int, Image]]:
    """Draw what stands between the objects and the camera.

    Returns:
        (x, y, premultiplied BGRA) of a lamp post, perhaps a second one, and bushes at the bottom.
    """
    width, height = size_wh
    posts = [(int(rng.uniform(0.12, 0.42) * width), 0), (int(rng.uniform(0.58, 0.9) * width), 0)]
    parts = [(x, y, _post(height, rng)) for x, y in posts[: int(rng.integers(1, 3))]]
    for _ in range(int(rng.integers(2, 4))):
        bush = _bush(int(rng.integers(70, 120)), rng)
        x = int(rng.integers(-20, width - 60))
        parts.append((x, height - bush.shape[0] * 3 // 4, bush))
    return parts


def _soft_noise(
    size_wh: tuple[int, int], cells_hw: tuple[int, int], rng: np.random.Generator
) -> NDArray[np.float32]:
    coarse = rng.standard_normal(cells_hw, np.float32)
    return np.asarray(cv2.resize(coarse, size_wh, interpolation=cv2.INTER_CUBIC), np.float32)


def _sun(image: Image, rng: np.random.Generator) -> None:
    height, width = image.shape[:2]
    centre = (int(rng.uniform(0.1, 0.9) * width), int(rng.uniform(0.08, 0.3) * height))
    cv2.circle(image, centre, int(rng.integers(18, 40)), (206, 236, 250), -1, cv2.LINE_AA)


def _clouds(image: Image, rng: np.random.Generator) -> None:
    height, width = image.shape[:2]
    veil = np.zeros((height // 4, width // 4), np.uint8)
    for _ in range(int(rng.integers(3, 7))):
        x, y = rng.uniform(0, width / 4), rng.uniform(0, height / 9)
        for _ in range(5):
            centre = (int(x + rng.normal(0, 9)), int(y + rng.normal(0, 2)))
            cv2.ellipse(veil, centre, (int(rng.integers(7, 15)), 4), 0, 0, 360, 150, -1)
    veil = np.asarray(cv2.resize(cv2.blur(veil, (3, 3)), (width, height)), np.uint8)
    share = veil[..., None] / np.float32(255)
    image[:] = (image + (255 - image) * share).astype(np.uint8)


def _hill(
    image: Image, level: float, colour: NDArray[np.float32], rng: np.random.Generator
) -> None:
    height, width = image.shape[:2]
    xs = np.linspace(0, 1, 64)
    waves = sum(
        rng.uniform(0.01, 0.04) * np.sin(xs * rng.uniform(3, 14) + rng.uniform(0, 6))
        for _ in range(3)
    )
    ridge = np.stack([xs * width, (level + waves) * height], axis=1)
    for x, y in ridge[rng.choice(60, int(rng.integers(1, 5)), replace=False)]:
        _house(image, (int(x), int(y)), colour, rng)
    outline = [*ridge.tolist(), (width, height), (0, height)]
    b, g, r = colour.tolist()
    fill(image, outline, (int(b), int(g), int(r), 255))
    for _ in range(int(rng.integers(4, 12))):
        spot = (int(rng.uniform(0, width)), int((level + rng.uniform(0.06, 0.4)) * height))
        shade = (colour * rng.uniform(0.75, 1.2)).clip(0, 255).tolist()
        cv2.ellipse(image, spot, (int(rng.integers(4, 30)), int(rng.integers(2, 8))),
                    0, 0, 360, shade, -1, cv2.LINE_AA)  # fmt: skip


def _house(
    image: Image, base: tuple[int, int], colour: NDArray[np.float32], rng: np.random.Generator
) -> None:
    x, y = base
    wide, high = int(rng.integers(14, 30)), int(rng.integers(14, 34))
    wall = (colour * rng.uniform(0.7, 1.5, 3)).clip(0, 255).tolist()
    roof = (colour * rng.uniform(0.4, 0.9, 3)).clip(0, 255).tolist()
    cv2.rectangle(image, (x, y - high), (x + wide, y + 20), wall, -1)
    corners = np.array(
        [(x - 4, y - high), (x + wide + 4, y - high), (x + wide // 2, y - high - 14)]
    )
    cv2.fillPoly(image, [corners.astype(np.int32)], roof, cv2.LINE_AA)


def _post(height: int, rng: np.random.Generator) -> Image:
    wide = int(rng.integers(16, 28))
    post = np.zeros((height, wide, 4), np.uint8)
    shade = np.sin(np.linspace(0.5, 2.6, wide))[None, :, None]
    colour = np.array(rng.uniform(60, 130, 3))
    post[..., :3] = (shade * colour).astype(np.uint8)
    post[..., 3] = 255
    for y in range(int(rng.integers(10, 60)), height, int(rng.integers(50, 90))):
        post[y : y + 7, :, :3] //= 2
    return post


def _bush(size_px: int, rng: np.random.Generator) -> Image:
    bush = np.zeros((size_px, size_px + 30, 4), np.uint8)
    hue = int(rng.integers(35, 75))
    for _ in range(70):
        centre = (int(rng.uniform(12, size_px + 18)), int(size_px * rng.uniform(0.3, 1)))
        leaf = hsv(hue + int(rng.integers(-8, 8)), 140, int(rng.integers(60, 150)))
        angle = int(rng.integers(180))
        cv2.ellipse(bush, centre, (15, 6), angle, 0, 360, leaf, -1, cv2.LINE_AA)
    return bush
