"""What the still-camera gate saves and what it costs, by threshold.

    python -m benchmarks.still --data DIR [--pictures 128] [--frames 12] [--json]

Four sorts of footage, every frame a JPEG of quality 90:
    stills  pictures of DIR/coco, each a camera that stands still for so many frames
    frozen  the built-in scene, its objects standing still
    scene   the built-in scene as it is: the camera stands still, objects pass by
    cars    DIR/media/cars.mp4: the camera moves
stills and frozen have sensor noise (Gaussian, 5 of 256 levels) of their own in every frame; the
scene's own is 4. The network sees every frame once; then the gate is put before it, threshold by
threshold. Recall is that of the truth (labels of the pictures, the scene's own) at IoU 0.5 with
the right class; of cars it is what the network itself finds over 0.3.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy import read_frames, read_truth
from pipeline.answers import Answer
from pipeline.detector import DetectorOptions, YoloDetector, load_detector
from pipeline.errors import PercipioError
from pipeline.heads import matches
from pipeline.image import decode, encode_jpeg, thumbnail
from pipeline.records import Detections, Image
from pipeline.scene import Scene
from pipeline.still import StillGate, Thumbnail

THRESHOLDS = (2, 4, 6, 8, 12, 16, 32, 64, 96, 128)
LONGEST_RUN = 50
NOISE = 5.0
IOU = 0.5
STRONG = 0.3
BATCH = 4
DEMO = Path(__file__).parents[1] / "pipeline" / "data" / "demo.pt"
SCENE_SEED = 1_000_037


@dataclass(slots=True)
class Frame:
    """One frame: how it looks, what is to be seen, what the network finds in it."""

    thumbnail: Thumbnail
    truth: Detections
    found: Detections


Clip = list[Frame]


@dataclass(frozen=True)
class Row:
    """What the gate does at one threshold.

    Attributes:
        hits: share of frames that the network did not see.
        recall_network: of the truth, by the network in every frame.
        recall_gate: of the truth, with the gate.
        loss: the difference.
        kept: share of what the network finds over 0.3 in a frame that the result has too.
    """

    footage: str
    threshold: int
    frames: int
    hits: float
    recall_network: float
    recall_gate: float
    loss: float
    kept: float


def stills(args: argparse.Namespace, detector: YoloDetector) -> Iterator[Clip]:
    """Give each labelled picture as a clip."""
    paths = sorted((args.data / "coco" / "images").glob("*.jpg"))[: args.pictures]
    labels = read_truth(paths)
    rng = np.random.default_rng(1)
    for index, path in enumerate(paths):
        rows = [row for row in labels["annotations"] if row["image_id"] == index]
        boxes = np.array([row["bbox"] for row in rows], np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        kinds = np.array([row["category_id"] for row in rows], np.int32)
        truth = Detections(boxes, np.ones(len(rows), np.float32), kinds)
        base = decode(path.read_bytes()).image
        noisy = (with_noise(base, rng) for _ in range(args.frames))
        yield seen(detector, ((picture, truth) for picture in noisy))


def with_noise(base: Image, rng: np.random.Generator) -> bytes:
    """Give a picture as a sensor would see it, encoded."""
    noisy = base + rng.normal(0, NOISE, base.shape)
    return encode_jpeg(np.clip(noisy, 0, 255).astype(np.uint8))


def scene(args: argparse.Namespace, detector: YoloDetector, *, frozen: bool) -> Iterator[Clip]:
    """Give the built-in scene: as it is in one clip, or stopped at ten moments."""
    place, rng = Scene(SCENE_SEED, fps=15.0), np.random.default_rng(2)
    if frozen:
        for moment in range(10):
            shown = place.frame(150 * moment)
            truth = _visible(shown.truth)
            noisy = (with_noise(shown.image, rng) for _ in range(args.frames))
            yield seen(detector, ((picture, truth) for picture in noisy))
        return
    frames = (place.frame(index) for index in range(args.scene))
    yield seen(detector, ((encode_jpeg(f.image), _visible(f.truth)) for f in frames))


def _visible(truth: Sequence[Any]) -> Detections:
    wanted = [one for one in truth if not one.ignore]
    boxes = np.array([one.xyxy for one in wanted], np.float32).reshape(-1, 4)
    kinds = np.array([one.class_id for one in wanted], np.int32)
    return Detections(boxes, np.ones(len(wanted), np.float32), kinds)


def cars(args: argparse.Namespace, detector: YoloDetector) -> Iterator[Clip]:
    """Give the video; the truth is what the network finds."""
    unknown = Detections.empty()
    frames = read_frames(args.data / "media" / "cars.mp4", 1)
    clip = seen(detector, ((jpeg, unknown) for jpeg in frames))
    for frame in clip:
        frame.truth = _strong(frame.found)
    yield clip


def seen(detector: YoloDetector, shown: Iterator[tuple[bytes, Detections]]) -> Clip:
    """Let the network see every frame."""
    clip: Clip = []
    waiting: list[tuple[bytes, Detections]] = []
    for one in shown:
        waiting.append(one)
        if len(waiting) == BATCH:
            clip += _seen_batch(detector, waiting)
            waiting = []
    return clip + _seen_batch(detector, waiting)


def _seen_batch(detector: YoloDetector, batch: Sequence[tuple[bytes, Detections]]) -> Clip:
    found = detector.detect([detector.decode(jpeg) for jpeg, _ in batch])
    rows = zip(batch, found, strict=True)
    return [Frame(thumbnail(jpeg), truth, one) for (jpeg, truth), one in rows]


def _strong(found: Detections) -> Detections:
    kept = found.confidence > STRONG
    return Detections(found.xyxy[kept], found.confidence[kept], found.class_id[kept])


def gated(clip: Clip, threshold: float) -> list[Detections | None]:
    """Give what each frame takes from an earlier one; None where the network sees it."""
    gate = StillGate(threshold, LONGEST_RUN)
    taken: list[Detections | None] = []
    for number, frame in enumerate(clip):
        answer = gate.recall("s", frame.thumbnail, (1, 1), 0.0)
        if answer is None:
            gate.note("s", frame.thumbnail, Answer(frame.found, 1, 1, 0.0), (number, 0), 0.0)
        taken.append(None if answer is None else answer.detections)
    return taken


def row_of(footage: str, clips: Sequence[Clip], threshold: int) -> Row:
    """Count over all clips at one threshold."""
    frames = hits = there = by_network = by_gate = strong = kept = 0
    for clip in clips:
        for frame, taken in zip(clip, gated(clip, threshold), strict=True):
            result = frame.found if taken is None else taken
            expected = _strong(frame.found)
            frames, hits = frames + 1, hits + (taken is not None)
            there += len(frame.truth)
            by_network += int(matches(frame.truth, frame.found, IOU).sum())
            by_gate += int(matches(frame.truth, result, IOU).sum())
            strong += len(expected)
            kept += int(matches(expected, result, IOU).sum())
    network, gate = by_network / max(1, there), by_gate / max(1, there)
    shares = (hits / frames, network, gate, network - gate, kept / max(1, strong))
    return Row(footage, threshold, frames, *(round(share, 4) for share in shares))


def measure(args: argparse.Namespace) -> list[Row]:
    """Let the network see everything, then try every threshold."""
    options = DetectorOptions(model_dir=args.data / "weights", threads=args.threads)
    large = load_detector(options)
    demo = load_detector(
        DetectorOptions(str(DEMO), image_size=320, confidence=0.35, threads=args.threads)
    )
    footage = {
        "stills": list(stills(args, large)),
        "frozen": list(scene(args, demo, frozen=True)),
        "scene": list(scene(args, demo, frozen=False)),
        "cars": list(cars(args, large)),
    }
    return [row_of(name, clips, t) for name, clips in footage.items() for t in THRESHOLDS]


def print_table(rows: Sequence[Row]) -> None:
    """Print as a table of Markdown."""
    print("| footage | threshold | frames | hits | recall | with the gate | loss | kept |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        shares = (row.hits, row.recall_network, row.recall_gate, row.loss, row.kept)
        cells = " | ".join(f"{share:.2%}" for share in shares)
        print(f"| {row.footage} | {row.threshold} | {row.frames} | {cells} |")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; returns the process's exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with coco/ and media/")
    parser.add_argument("--pictures", type=int, default=128)
    parser.add_argument("--frames", type=int, default=10, help="of a clip that stands still")
    parser.add_argument("--scene", type=int, default=600, help="frames of the moving scene")
    parser.add_argument("--threads", type=int, default=0, help="of the network; 0 takes all cores")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    try:
        rows = measure(args)
    except PercipioError as error:
        print(f"still: {error}", file=sys.stderr)
        return error.exit_code
    if args.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        print_table(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
