"""Who passes through the scene, when, and on which path."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pipeline.scene.sprites import SPRITE_KINDS

Point = tuple[float, float]

# Objects are scheduled in blocks of this length and live no longer, so a frame needs two blocks.
BLOCK_S = 16.0
_CANDIDATES_PER_BLOCK = 24
_BUSY_PERIOD_S = 48.0


class Use(enum.IntEnum):
    """What a generator is for: each use draws from a sequence of its own."""

    SCENE = 0
    BLOCK = 1
    SPRITE = 2
    NOISE = 3
    READING = 4
    CHATTER = 5


@dataclass(frozen=True, slots=True)
class Pose:
    """Centre in pixels, size relative to the actor's own, and tilt."""

    x: float
    y: float
    scale: float
    tilt_deg: float


@dataclass(frozen=True, slots=True)
class Actor:
    """One object from its entry to its exit.

    Attributes:
        id: unique over the life of the scene.
        class_id: its kind.
        start_s: scene time of its entry.
        life_s: how long it takes to the exit.
        path: three control points of a quadratic curve in pixels.
        ease: how unevenly it moves, in (-1, 1); negative is slow first.
        size_px: longer side at middle age.
        growth: relative change of size from entry to exit.
        sway_deg: how far it tilts to each side.
        sway_hz: how often.
        depth: order in which objects cover one another; larger is nearer.
    """

    id: int
    class_id: int
    start_s: float
    life_s: float
    path: tuple[Point, Point, Point]
    ease: float
    size_px: int
    growth: float
    sway_deg: float
    sway_hz: float
    depth: float

    def pose(self, at_s: float) -> Pose:
        """Say where the object is and how it lies."""
        age_s = at_s - self.start_s
        u = age_s / self.life_s
        u += self.ease * u * (1 - u)
        a, b, c = (1 - u) ** 2, 2 * u * (1 - u), u * u
        (ax, ay), (bx, by), (cx, cy) = self.path
        x, y = a * ax + b * bx + c * cx, a * ay + b * by + c * cy
        swing = math.sin(2 * math.pi * self.sway_hz * age_s)
        scale = 1 + self.growth * (u - 0.5)
        return Pose(x, y + 4 * swing, scale, self.sway_deg * swing)

    def is_inside(self, pose: Pose, size_wh: tuple[int, int]) -> bool:
        """Tell whether about a part of it is inside the frame."""
        width, height = size_wh
        is_across = -self.size_px < 2 * pose.x < 2 * width + self.size_px
        return is_across and -self.size_px < 2 * pose.y < 2 * height + self.size_px


def generator(seed: int, use: Use, number: int) -> np.random.Generator:
    """Make the generator for one use and one frame, block or object; below 0 counts as 0."""
    return np.random.default_rng((seed, int(use), max(0, number)))


def schedule(seed: int, block: int, size_wh: tuple[int, int], phase: float) -> list[Actor]:
    """List who enters during a block of time.

    Args:
        seed: of the scene.
        block: time in units of BLOCK_S. -1 exists as well, so that a scene does not begin empty.
        size_wh: of the frame.
        phase: where in the tide of quiet and busy times the scene begins, in radians.
    """
    number = block + 1
    if number < 0:
        return []
    rng = generator(seed, Use.BLOCK, number)
    actors = []
    for nth in range(_CANDIDATES_PER_BLOCK):
        start_s = (block + (nth + float(rng.uniform())) / _CANDIDATES_PER_BLOCK) * BLOCK_S
        tide = math.sin(2 * math.pi * start_s / _BUSY_PERIOD_S + phase)
        actor = _actor(number * 1000 + nth + 1, start_s, size_wh, rng)
        if rng.uniform() < 0.62 + 0.34 * tide:
            actors.append(actor)
    return actors


def _actor(
    actor_id: int, start_s: float, size_wh: tuple[int, int], rng: np.random.Generator
) -> Actor:
    size_px = int(rng.integers(72, 146))
    path = _path(size_px, size_wh, rng)
    length_px = sum(math.dist(here, there) for here, there in pairwise(path))
    return Actor(
        id=actor_id,
        class_id=int(rng.integers(len(SPRITE_KINDS))),
        start_s=start_s,
        life_s=min(max(length_px / float(rng.uniform(80, 170)), 3.5), BLOCK_S),
        path=path,
        ease=float(rng.uniform(-0.5, 0.5)),
        size_px=size_px,
        growth=float(rng.uniform(-0.3, 0.3)),
        sway_deg=float(rng.uniform(0, 16)),
        sway_hz=float(rng.uniform(0.2, 0.7)),
        depth=float(rng.uniform()),
    )


def _path(
    size_px: int, size_wh: tuple[int, int], rng: np.random.Generator
) -> tuple[Point, Point, Point]:
    """Lead from one border to another through the middle part of the frame."""
    # Sides are left, top, right, bottom; left and right are likelier.
    first, last = rng.permutation([0, 0, 1, 2, 2, 3])[:2].tolist()
    if first == last:
        last = 2 - first
    beyond_px = size_px * 0.75
    begin = _border(first, float(rng.uniform(0.15, 0.85)), size_wh, beyond_px)
    end = _border(last, float(rng.uniform(0.15, 0.85)), size_wh, beyond_px)
    middle_x, middle_y = (rng.uniform(0.2, 0.8, 2) * size_wh).tolist()
    return begin, (middle_x, middle_y), end


def _border(side: int, along: float, size_wh: tuple[int, int], beyond_px: float) -> Point:
    width, height = size_wh
    return (
        (-beyond_px, along * height),
        (along * width, -beyond_px),
        (width + beyond_px, along * height),
        (along * width, height + beyond_px),
    )[side]
