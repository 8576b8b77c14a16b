"""Measures the demo's detector on scenes it never saw: COCO's mean average precision.

Run as `python -m training.evaluate_demo [--json]`. Ignored objects count as COCO's crowds do:
finding one is neither right nor wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from ultralytics.utils.nms import non_max_suppression

from pipeline.scene import SCENE_LABELS, Scene, SceneObject, match_truth

HELD_OUT_SEED = 1_000_000
MODEL_PATH = Path(__file__).parents[1] / "pipeline" / "data" / "demo.pt"
_SCALE = 2  # scene pixels per network pixel
_BATCH = 8
_LOWEST_CONFIDENCE = 0.005
_NMS_IOU = 0.7  # the pipeline's default


@dataclass(frozen=True, slots=True)
class Detected:
    """The boxes found on one frame: xyxy in scene pixels, best confidence first."""

    xyxy: NDArray[np.float32]
    confidence: NDArray[np.float32]
    class_id: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How well a model knows scenes it never saw.

    The last three describe the confidence threshold at which precision and recall are closest.
    """

    frames: int
    seeds: int
    map50: float
    map50_95: float
    per_class: dict[str, float]
    threshold: float
    precision: float
    recall: float


def network_input(image: NDArray[np.uint8], jpeg_quality: int) -> NDArray[np.uint8]:
    """Send a picture through JPEG and halve it while decoding, as the pipeline does."""
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_REDUCED_COLOR_2), np.uint8)


def to_tensor(images: Iterable[NDArray[np.uint8]], device: torch.device) -> torch.Tensor:
    """Stack BGR pictures into the float RGB batch that the network expects."""
    stacked = np.stack([image[..., ::-1] for image in images])
    tensor = torch.from_numpy(stacked).to(device).permute(0, 3, 1, 2).float().div_(255)
    return tensor.contiguous(memory_format=torch.channels_last)


def detect(model: torch.nn.Module, images: torch.Tensor) -> list[Detected]:
    """Find objects on a batch from `to_tensor`."""
    with torch.inference_mode():
        raw = model(images)
        rows = non_max_suppression(
            raw, _LOWEST_CONFIDENCE, _NMS_IOU, max_det=50, max_time_img=10.0, nc=len(SCENE_LABELS)
        )
    return [_detected(found.cpu().numpy()) for found in rows]


def _detected(found: NDArray[np.float32]) -> Detected:
    return Detected(found[:, :4] * _SCALE, found[:, 4], found[:, 5].astype(np.int64))


def held_out(seeds: int, frames_per_seed: int) -> Iterator[tuple[NDArray[np.uint8], Any]]:
    """Render frames of unseen scenes, spread over their quiet and busy times."""
    for seed in range(HELD_OUT_SEED, HELD_OUT_SEED + seeds):
        scene = Scene(seed)
        for nth in range(frames_per_seed):
            frame = scene.frame(nth * 29 + 5)
            yield network_input(frame.image, 80 + nth % 15), frame.truth


def measure(model: torch.nn.Module, seeds: int, frames_per_seed: int) -> Accuracy:
    """Score a model in evaluation mode on held-out scenes."""
    device = next(model.parameters()).device
    truths: list[list[SceneObject]] = []
    found: list[Detected] = []
    frames = held_out(seeds, frames_per_seed)
    while batch := list(islice(frames, _BATCH)):
        found += detect(model, to_tensor((image for image, _ in batch), device))
        truths += [truth for _, truth in batch]
    map50, map50_95, per_class = _coco(truths, found)
    threshold, precision, recall = _balance(truths, found)
    return Accuracy(len(truths), seeds, map50, map50_95, per_class, threshold, precision, recall)


def precision_recall(
    truths: list[list[SceneObject]], found: list[Detected], threshold: float
) -> tuple[float, float]:
    """Count over all frames what a single confidence threshold gives."""
    total = np.zeros(3)
    for truth, boxes in zip(truths, found, strict=True):
        keep = boxes.confidence >= threshold
        total += match_truth(truth, boxes.xyxy[keep], boxes.class_id[keep])
    hits, false_alarms, misses = total
    return float(hits / max(hits + false_alarms, 1)), float(hits / max(hits + misses, 1))


def _balance(truths: list[list[SceneObject]], found: list[Detected]) -> tuple[float, float, float]:
    points = []
    for threshold in np.arange(0.1, 0.9, 0.05).round(2).tolist():
        precision, recall = precision_recall(truths, found, threshold)
        points.append((abs(precision - recall), threshold, precision, recall))
    return min(points)[1:]


def _coco(
    truths: list[list[SceneObject]], found: list[Detected]
) -> tuple[float, float, dict[str, float]]:
    annotations = [
        _annotation(image_id, seen) for image_id, truth in enumerate(truths) for seen in truth
    ]
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
    results = [
        {"image_id": image_id, "category_id": int(kind), "bbox": _xywh(box), "score": float(score)}
        for image_id, boxes in enumerate(found)
        for box, score, kind in zip(boxes.xyxy, boxes.confidence, boxes.class_id, strict=True)
    ]
    if not results:
        return 0.0, 0.0, {}
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": image_id} for image_id in range(len(truths))],
            "categories": [{"id": i, "name": name} for i, name in enumerate(SCENE_LABELS)],
            "annotations": annotations,
        }
        coco.createIndex()
        score = COCOeval(coco, _as_results(coco, results), "bbox")
        score.evaluate()
        score.accumulate()
        score.summarize()
    # Axes: IoU threshold, recall step, kind, area range (all), detections per image (100).
    precision = score.eval["precision"][:, :, :, 0, 2]
    per_class = {name: float(precision[:, :, i].mean()) for i, name in enumerate(SCENE_LABELS)}
    return float(score.stats[1]), float(score.stats[0]), per_class


def _as_results(coco: Any, results: list[dict[str, Any]]) -> Any:
    coco.dataset.setdefault("info", {})
    return coco.loadRes(results)


def _annotation(image_id: int, seen: SceneObject) -> dict[str, Any]:
    box = _xywh(seen.xyxy)
    return {
        "image_id": image_id,
        "category_id": seen.class_id,
        "bbox": box,
        "area": box[2] * box[3],
        "iscrowd": int(seen.ignore),
    }


def _xywh(box: NDArray[np.float32]) -> list[float]:
    x1, y1, x2, y2 = (float(value) for value in box)
    return [x1, y1, x2 - x1, y2 - y1]


def _table(accuracy: Accuracy) -> str:
    lines = [f"{name:<10}{value:8.3f}" for name, value in accuracy.per_class.items()]
    return "\n".join(
        [
            f"{accuracy.frames} frames of {accuracy.seeds} unseen scenes",
            f"{'kind':<10}mAP50-95",
            *lines,
            f"{'all':<10}{accuracy.map50_95:8.3f}   mAP50 {accuracy.map50:.3f}",
            f"at confidence {accuracy.threshold:.2f}: "
            f"precision {accuracy.precision:.3f}, recall {accuracy.recall:.3f}",
        ]
    )


def main() -> None:
    """Print the accuracy of a trained model."""
    from ultralytics.nn.tasks import load_checkpoint

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL_PATH)
    parser.add_argument("--seeds", type=int, default=25)
    parser.add_argument("--frames-per-seed", type=int, default=41)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    model, _ = load_checkpoint(options.model)  # type: ignore[no-untyped-call]
    accuracy = measure(model.eval(), options.seeds, options.frames_per_seed)
    text = json.dumps(asdict(accuracy)) if options.json else _table(accuracy)
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
