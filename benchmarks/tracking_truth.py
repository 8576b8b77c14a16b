"""Scenes with known truth for the tracker, and a detector that errs as real ones do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.records import Detections

Boxes = NDArray[np.float64]

_WIDTH, _HEIGHT = 640.0, 384.0
_SHOWN = 0.3  # an object of which less can be seen is not asked for


@dataclass(frozen=True, slots=True)
class Kind:
    """What sort of scene it is.

    Attributes:
        fps: frames per second; `jitter` is the share by which single intervals differ.
        objects: how many are there on average.
        speed: typical speed in object heights per second.
        turn: how strongly paths bend (standard deviation of acceleration, heights/s^2).
        pillars: standing obstacles that hide what passes behind them.
        miss: chance that a visible object is not found in a frame.
        false_per_frame: mean number of invented boxes.
        noise: standard deviation of box edges as a share of the object's size.
        flicker: chance that a detection has the class of a look-alike.
        twin: chance that the look-alike is reported beside the right one.
    """

    name: str
    fps: float = 15.0
    jitter: float = 0.0
    objects: float = 6.0
    speed: float = 0.8
    turn: float = 0.15
    pillars: int = 0
    miss: float = 0.03
    false_per_frame: float = 0.1
    noise: float = 0.03
    flicker: float = 0.0
    twin: float = 0.0


KINDS: tuple[Kind, ...] = (
    Kind("plain"),
    Kind("crossing", objects=12.0, speed=1.0),
    Kind("crowd", objects=25.0, speed=0.6),
    Kind("pillars", objects=7.0, pillars=5),
    Kind("noisy detector", miss=0.15, false_per_frame=1.0, noise=0.06),
    Kind("unsure classes", flicker=0.12, twin=0.06),
    Kind("60 fps", fps=60.0),
    Kind("5 fps", fps=5.0),
    Kind("2 fps", fps=2.0, speed=0.5, objects=4.0),
    Kind("1 fps", fps=1.0, speed=0.5, objects=4.0),
    Kind("uneven rate", fps=8.0, jitter=0.9),
)


@dataclass(frozen=True, slots=True)
class Frame:
    """Truth and detections of one moment; `box` float64 (n, 4), `ids` int64 (n,)."""

    ts_ms: int
    ids: NDArray[np.int64]
    box: Boxes
    detections: Detections


@dataclass(slots=True)
class _Actor:
    id: int
    kind: int
    centre: NDArray[np.float64]
    speed: NDArray[np.float64]
    height: float
    aspect: float
    growth: float


def frames(kind: Kind, seed: int, seconds: float = 30.0) -> Iterator[Frame]:
    """Give the frames of a scene; the same seed gives the same scene.

    At least 60 frames, so that slow cameras have a story too.
    """
    rng = np.random.default_rng([seed, *kind.name.encode()])
    actors: list[_Actor] = []
    pillars = _pillars(kind, rng)
    count = max(round(seconds * kind.fps), 60)
    now_s, next_id = 0.0, 1
    arrivals_hz = kind.objects / 9.0
    for index in range(count):
        step_s = 1 / kind.fps * (1 + kind.jitter * rng.uniform(-1, 1)) if index else 9.0
        now_s += step_s if index else 0.0
        for _ in range(rng.poisson(arrivals_hz * min(step_s, 9.0))):
            actors.append(_arrive(next_id, kind, rng))
            if not index:
                actors[-1].centre += actors[-1].speed * rng.uniform(0, 8)
            next_id += 1
        if index:
            for actor in actors:
                _move(actor, step_s, kind, rng)
        actors = [actor for actor in actors if _near(actor)]
        yield _look(actors, pillars, kind, round(now_s * 1000) + 1_000_000, rng)


def demo_frames(seed: int, seconds: float = 60.0, fps: float = 15.0) -> Iterator[Frame]:
    """Give the frames of the demo's scene (`pipeline.scene`), through the same erring detector."""
    from pipeline.scene import Scene

    rng, kind = np.random.default_rng(seed), Kind("demo scene")
    scene = Scene(seed, fps=fps)
    for index in range(round(seconds * fps)):
        truth = [seen for seen in scene.frame(index).truth if not seen.ignore]
        boxes = np.array([seen.xyxy for seen in truth], np.float64).reshape(-1, 4)
        shown = np.array([seen.visible for seen in truth])
        kinds = np.array([seen.class_id for seen in truth], np.int32)
        detections = _detect(boxes, shown, kinds, kind, rng)
        ids = np.array([seen.id for seen in truth], np.int64)
        yield Frame(1_000_000 + round(index * 1000 / fps), ids, boxes, detections)


def _pillars(kind: Kind, rng: np.random.Generator) -> Boxes:
    left = (np.arange(kind.pillars) + 0.5 + rng.uniform(-0.2, 0.2, kind.pillars)) * (
        _WIDTH / max(kind.pillars, 1)
    )
    wide = rng.uniform(20, 55, kind.pillars)
    zeros = np.zeros(kind.pillars)
    return np.stack([left, zeros, left + wide, zeros + _HEIGHT], axis=1)


def _arrive(actor_id: int, kind: Kind, rng: np.random.Generator) -> _Actor:
    height = float(rng.uniform(35, 95))
    aspect = float(rng.choice([0.45, 1.0, 1.8]))
    heading = rng.choice([-1.0, 1.0])
    pace = kind.speed * height * rng.uniform(0.5, 1.6)
    slope = rng.normal(0, 0.25)
    side = -height * aspect / 2 if heading > 0 else _WIDTH + height * aspect / 2
    centre = np.array([side, rng.uniform(0.12, 0.88) * _HEIGHT])
    speed = np.array([heading, slope]) * pace
    return _Actor(actor_id, int(aspect > 0.5), centre, speed, height, aspect,
                  float(rng.normal(0, 0.03)))  # fmt: skip


def _move(actor: _Actor, step_s: float, kind: Kind, rng: np.random.Generator) -> None:
    actor.speed += rng.normal(0, kind.turn * actor.height, 2) * np.sqrt(step_s)
    actor.centre += actor.speed * step_s
    actor.height = float(np.clip(actor.height * np.exp(actor.growth * step_s), 25, 140))


def _near(actor: _Actor) -> bool:
    wide = actor.height * actor.aspect
    x, y = actor.centre
    return bool(-wide <= x <= _WIDTH + wide and -actor.height <= y <= _HEIGHT + actor.height)


def _box(actor: _Actor) -> Boxes:
    half = np.array([actor.height * actor.aspect, actor.height]) / 2
    return np.concatenate([actor.centre - half, actor.centre + half])


def _look(
    actors: list[_Actor], pillars: Boxes, kind: Kind, ts_ms: int, rng: np.random.Generator
) -> Frame:
    """See the actors from the front: the lower the foot, the nearer, as in a street."""
    limits = np.array([_WIDTH, _HEIGHT, _WIDTH, _HEIGHT])
    actors = sorted(actors, key=lambda actor: -_box(actor)[3])
    full = [_box(actor) for actor in actors]
    clipped = [np.clip(box, 0, limits) for box in full]
    ids, boxes, shown, kinds = [], [], [], []
    for row, actor in enumerate(actors):
        visible = _visible(full[row], [*pillars, *clipped[:row]])
        if visible >= _SHOWN:
            ids.append(actor.id)
            boxes.append(clipped[row])
            shown.append(visible)
            kinds.append(actor.kind)
    truth = np.array(boxes).reshape(-1, 4)
    detections = _detect(truth, np.array(shown), np.array(kinds, np.int32), kind, rng)
    return Frame(ts_ms, np.array(ids, np.int64), truth, detections)


def _visible(box: Boxes, hiding: list[Boxes]) -> float:
    """Share of a grid of points on the box that is in the frame and not hidden."""
    u = (np.arange(12) + 0.5) / 12
    x = (box[0] + u * (box[2] - box[0]))[None, :]
    y = (box[1] + u * (box[3] - box[1]))[:, None]
    seen = (x >= 0) & (x < _WIDTH) & (y >= 0) & (y < _HEIGHT)
    for other in hiding:
        seen &= ~((x >= other[0]) & (x < other[2]) & (y >= other[1]) & (y < other[3]))
    return float(seen.mean())


def _detect(
    truth: Boxes, shown: NDArray[np.float64], kinds: NDArray[np.int32], kind: Kind,
    rng: np.random.Generator,
) -> Detections:  # fmt: skip
    """Find most of it: the less is seen, the less sure, the more often missed, the less exact."""
    sure = np.clip(0.12 + 0.75 * shown + rng.normal(0, 0.08, len(shown)), 0.02, 0.98)
    found = (rng.random(len(shown)) > kind.miss) & (sure > 0.1)
    truth, sure, kinds, shown = truth[found], sure[found], kinds[found], shown[found]
    size = np.tile(truth[:, 2:] - truth[:, :2], 2)
    spread = kind.noise * size * (2.0 - shown[:, None])
    boxes = truth + rng.normal(0, 1, truth.shape) * spread
    mistaken = rng.random(len(sure)) < kind.flicker
    doubled = rng.random(len(sure)) < kind.twin
    kinds = np.where(mistaken, 1 - kinds, kinds)
    invented = int(rng.poisson(kind.false_per_frame))
    corner = rng.uniform(0, 1, (invented, 2)) * [_WIDTH * 0.9, _HEIGHT * 0.8]
    extent = rng.uniform(25, 90, (invented, 2))
    boxes = np.concatenate([boxes, boxes[doubled] + rng.normal(0, 1.5, (int(doubled.sum()), 4)),
                            np.concatenate([corner, corner + extent], axis=1)])  # fmt: skip
    sure = np.concatenate([sure, sure[doubled] * 0.7, rng.beta(2, 4, invented) * 0.6 + 0.1])
    kinds = np.concatenate([kinds, 1 - kinds[doubled], rng.integers(0, 2, invented)])
    order = np.argsort(-sure, kind="stable")
    return Detections(
        boxes[order].astype(np.float32), sure[order].astype(np.float32),
        kinds[order].astype(np.int32),
    )  # fmt: skip
