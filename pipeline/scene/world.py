"""A synthetic scene with known truth: the demo's camera, and what its detector was trained on.

Every frame is a pure function of (seed, index), so that any of them can be rendered again, by
anyone, in any order. `actors` says who moves where; this module composes and labels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.records import Image
from pipeline.scene.actors import BLOCK_S, Actor, Pose, Use, generator, schedule
from pipeline.scene.backdrop import backdrop, foreground
from pipeline.scene.sprites import SPRITE_KINDS, sprite
from pipeline.scene.truth import SceneObject

SCENE_LABELS: tuple[str, ...] = tuple(name for name, _ in SPRITE_KINDS)

_IGNORE_BELOW_VISIBLE = 0.4
_IGNORE_BELOW_PX = 16
_NOISE_PAD_PX = 64
_FOREGROUND_SLOT = 255
_BLOCKS_KEPT = 4


@dataclass(frozen=True, slots=True)
class SceneFrame:
    """A rendered frame: image is uint8 (h, w, 3) BGR, truth lists the objects back to front."""

    image: Image
    truth: list[SceneObject]


@dataclass(frozen=True, slots=True)
class _Patch:
    """A premultiplied BGRA picture and where its left top corner lies; may reach outside."""

    x: int
    y: int
    bgra: Image


class Scene:
    """A place where objects of SCENE_LABELS pass by, in quiet and in busy times.

    An instance keeps what it drew last, so share it between threads only with a lock.

    Args:
        seed: what the place looks like and who passes when; not negative.
        fps: frames per second of scene time.
        size_wh: width and height of a frame in pixels.
    """

    def __init__(
        self, seed: int, *, fps: float = 15.0, size_wh: tuple[int, int] = (640, 384)
    ) -> None:
        self._seed = seed
        self._fps = fps
        self._size_wh = size_wh
        rng = generator(seed, Use.SCENE, 0)
        self._backdrop = backdrop(size_wh, rng)
        self._foreground = [_Patch(*part) for part in foreground(size_wh, rng)]
        self._phases: list[float] = rng.uniform(0, 2 * math.pi, 5).tolist()
        self._band_angle = float(rng.uniform(-0.6, 0.6))
        self._blocks: dict[int, list[Actor]] = {}
        self._sprites: dict[int, Image] = {}

    def frame(self, index: int) -> SceneFrame:
        """Render a frame.

        Args:
            index: 0, 1, 2, ...; any order, always the same result.

        Returns:
            The picture and what can be seen on it.
        """
        at_s = index / self._fps
        image = self._backdrop.copy()
        owner = np.zeros(image.shape[:2], np.uint8)
        shown: list[tuple[Actor, _Patch]] = []
        for slot, actor in enumerate(self._actors(at_s), start=1):
            patch = self._patch(actor, actor.pose(at_s))
            _paste(image, owner, patch, slot)
            shown.append((actor, patch))
        for patch in self._foreground:
            _paste(image, owner, patch, _FOREGROUND_SLOT)
        truth = [_label(owner, *pair, slot) for slot, pair in enumerate(shown, start=1)]
        lit = np.asarray(cv2.multiply(image, self._light(at_s), scale=1 / 200), np.uint8)
        return SceneFrame(self._add_noise(lit, index), [seen for seen in truth if seen])

    def events(self, index: int) -> dict[str, float]:
        """Read the sensors of the place.

        Args:
            index: the frame to which the readings belong.

        Returns:
            motion, sound (follows motion a third of a second later), door (1 two frames after an
            object came in, else 0), load (follows the number of objects, smoothed), and
            temperature and chatter, which follow nothing that can be seen.
        """
        noise = generator(self._seed, Use.READING, index).normal(0, 1, 4).tolist()
        at_s = index / self._fps
        heard = sum(self._motion(index - lag) for lag in (4, 5, 6)) / 3
        load = sum(len(self._present(index - lag)) for lag in range(0, 12, 2)) / 6
        came = self._present(index - 2) - self._present(index - 3)
        is_burst = generator(self._seed, Use.CHATTER, int(at_s // 3)).uniform() > 0.7
        chatter = generator(self._seed, Use.CHATTER, index).poisson(6 if is_burst else 1)
        drift = math.sin(at_s / 40 + self._phases[0]) + 0.4 * math.sin(at_s / 13 + self._phases[1])
        return {
            "motion": self._motion(index) + 0.05 * abs(noise[0]),
            "sound": max(0.0, 30 + 6 * heard + noise[1]),
            "door": 1.0 if came else 0.0,
            "temperature": 21 + 2 * drift + 0.05 * noise[2],
            "load": 0.1 + 0.1 * load + 0.01 * noise[3],
            "chatter": float(chatter),
        }

    def _actors(self, at_s: float) -> list[Actor]:
        """List who is under way, back to front."""
        block = math.floor(at_s / BLOCK_S)
        known = self._block(block - 1) + self._block(block)
        alive = [actor for actor in known if 0 <= at_s - actor.start_s < actor.life_s]
        return sorted(alive, key=lambda actor: actor.depth)

    def _block(self, block: int) -> list[Actor]:
        if block not in self._blocks:
            if len(self._blocks) > _BLOCKS_KEPT:
                self._blocks.clear()
                self._sprites.clear()
            self._blocks[block] = schedule(self._seed, block, self._size_wh, self._phases[2])
        return self._blocks[block]

    def _patch(self, actor: Actor, pose: Pose) -> _Patch:
        picture = self._sprite(actor)
        height, width = picture.shape[:2]
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), pose.tilt_deg, pose.scale)
        cos, sin = abs(turn[0, 0]), abs(turn[0, 1])
        wide = math.ceil(cos * width + sin * height) + 3
        high = math.ceil(sin * width + cos * height) + 3
        x, y = math.floor(pose.x - wide / 2), math.floor(pose.y - high / 2)
        turn[:, 2] += (pose.x - x - width / 2, pose.y - y - height / 2)
        turned = cv2.warpAffine(picture, turn, (wide, high), flags=cv2.INTER_LINEAR)
        return _Patch(x, y, np.asarray(turned, np.uint8))

    def _sprite(self, actor: Actor) -> Image:
        if actor.id not in self._sprites:
            rng = generator(self._seed, Use.SPRITE, actor.id)
            picture = sprite(actor.class_id, actor.size_px, rng)
            if actor.path[2][0] < actor.path[0][0]:  # faces the way it goes
                picture = np.ascontiguousarray(picture[:, ::-1])
            self._sprites[actor.id] = picture
        return self._sprites[actor.id]

    def _light(self, at_s: float) -> Image:
        """Daylight that comes and goes, and the shadow of a cloud that drifts through."""
        gain = 186 + 20 * math.sin(at_s / 11 + self._phases[3])
        xs = np.linspace(0, 1.6, 32, dtype=np.float32)
        ys = np.linspace(0, 1, 20, dtype=np.float32)
        x, y = np.meshgrid(xs, ys)
        across = x * math.cos(self._band_angle) + y * math.sin(self._band_angle)
        middle = (at_s / 9 + self._phases[4]) % 3 - 0.6
        band = gain * (1 - 0.3 * np.exp(-(((across - middle) / 0.28) ** 2)))
        large = cv2.resize(band.astype(np.uint8), self._size_wh, interpolation=cv2.INTER_LINEAR)
        return np.asarray(cv2.cvtColor(large, cv2.COLOR_GRAY2BGR), np.uint8)

    def _add_noise(self, image: Image, index: int) -> Image:
        height, width = image.shape[:2]
        x, y = generator(self._seed, Use.NOISE, index).integers(_NOISE_PAD_PX, size=2)
        grain = _noise(self._size_wh)[y : y + height, x : x + width]
        return np.asarray(cv2.add(image, grain, dtype=cv2.CV_8U), np.uint8)

    def _present(self, index: int) -> set[int]:
        """Ids of the objects of which a part is inside the frame."""
        return {actor.id for actor, _ in self._inside(index / self._fps)}

    def _inside(self, at_s: float) -> list[tuple[Actor, Pose]]:
        poses = [(actor, actor.pose(at_s)) for actor in self._actors(at_s)]
        return [pair for pair in poses if pair[0].is_inside(pair[1], self._size_wh)]

    def _motion(self, index: int) -> float:
        """Total path per frame of what is in the frame, in tenths of its own size."""
        at_s = index / self._fps
        total = 0.0
        for actor, pose in self._inside(at_s):
            before = actor.pose(at_s - 1 / self._fps)
            total += 10 * math.hypot(pose.x - before.x, pose.y - before.y) / actor.size_px
        return total


@lru_cache(maxsize=2)
def _noise(size_wh: tuple[int, int]) -> NDArray[np.int16]:
    """Make sensor noise with a margin; each frame cuts its own piece out of it."""
    shape = (size_wh[1] + _NOISE_PAD_PX, size_wh[0] + _NOISE_PAD_PX, 3)
    return np.random.default_rng(0).normal(0, 4, shape).round().astype(np.int16)


def _clip(owner: Image, patch: _Patch) -> tuple[slice, slice, Image]:
    """Cut a patch to the frame: rows and columns of the frame, and what of the patch is left."""
    height, width = owner.shape
    top, left = max(0, patch.y), max(0, patch.x)
    bottom = max(top, min(height, patch.y + patch.bgra.shape[0]))
    right = max(left, min(width, patch.x + patch.bgra.shape[1]))
    inner = patch.bgra[top - patch.y : bottom - patch.y, left - patch.x : right - patch.x]
    return slice(top, bottom), slice(left, right), inner


def _paste(image: Image, owner: Image, patch: _Patch, slot: int) -> None:
    rows, columns, inner = _clip(owner, patch)
    if not inner.size:
        return
    alpha = np.ascontiguousarray(inner[..., 3])
    under = image[rows, columns]
    rest = cv2.cvtColor(cv2.bitwise_not(alpha), cv2.COLOR_GRAY2BGR)
    colour = cv2.cvtColor(inner, cv2.COLOR_BGRA2BGR)
    cv2.add(cv2.multiply(under, rest, scale=1 / 255), colour, dst=under)
    owner[rows, columns][alpha >= 128] = slot


def _label(owner: Image, actor: Actor, patch: _Patch, slot: int) -> SceneObject | None:
    rows, columns, inner = _clip(owner, patch)
    if not inner.size:
        return None
    mine = (owner[rows, columns] == slot).astype(np.uint8)
    count = cv2.countNonZero(mine)
    if not count:
        return None
    x, y, width, height = cv2.boundingRect(mine)
    x, y = x + columns.start, y + rows.start
    visible = count / cv2.countNonZero(cv2.inRange(patch.bgra[..., 3], 128, 255))
    return SceneObject(
        id=actor.id,
        class_id=actor.class_id,
        label=SCENE_LABELS[actor.class_id],
        xyxy=np.array([x, y, x + width, y + height], np.float32),
        visible=visible,
        ignore=visible < _IGNORE_BELOW_VISIBLE or min(width, height) < _IGNORE_BELOW_PX,
    )
