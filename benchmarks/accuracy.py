"""Accuracy of every runtime: mAP on labelled pictures, and box by box against torch in fp32.

    python -m benchmarks.accuracy --data DIR [--runtimes torch,openvino] [--json]

DIR holds coco/images with coco/labels (one `class cx cy w h` a line, 0 to 1) and media/*.mp4.
Protocol of the mAP: confidence above 0.001, suppression at IoU 0.7, at most 300 objects, one
object for each class of an anchor, as ultralytics evaluates.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.detector import DetectorOptions, YoloDetector, load_detector
from pipeline.errors import DependencyError, PercipioError
from pipeline.heads import Thresholds
from pipeline.image import encode_jpeg
from pipeline.records import Detections, Picture

REFERENCE = "torch"
EVALUATED = Thresholds(confidence=0.001, iou=0.7, every_label=True)
COMPARED_CONFIDENCE = 0.3
COMPARED_IOU = 0.9
BATCH = 4


@dataclass(frozen=True)
class Row:
    """What one runtime reached.

    Attributes:
        runtime: its name and precision.
        map50_95: mean average precision over IoU 0.50 to 0.95.
        map50: mean average precision at IoU 0.50.
        agreement: share of the reference's boxes over 0.3 found again at IoU 0.9 with the same
            class, by set of pictures.
    """

    runtime: str
    map50_95: float
    map50: float
    agreement: dict[str, float]


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate, print a table or JSON, and return the process's exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder with coco/ and media/")
    parser.add_argument("--model", default="yolov9t", help="name or path (default: %(default)s)")
    parser.add_argument("--model-dir", type=Path, help="default: weights/ in the data folder")
    parser.add_argument("--runtimes", default="torch,openvino,onnx", help="default: %(default)s")
    parser.add_argument("--precision", default="auto", help="auto, fp32 or fp16")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N")
    parser.add_argument("--image-size", type=int, default=640)
    parser.add_argument("--every", type=int, default=5, help="compare every Nth video frame")
    parser.add_argument("--pictures", type=int, default=128, help="evaluate the first N pictures")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    try:
        rows = evaluate(args)
    except PercipioError as error:
        print(f"accuracy: {error}", file=sys.stderr)
        return error.exit_code
    if args.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        print_table(rows)
    return 0


def evaluate(args: argparse.Namespace) -> list[Row]:
    """Run every runtime that works over all pictures and the chosen frames."""
    images = sorted((args.data / "coco" / "images").glob("*.jpg"))[: args.pictures]
    if not images:
        raise DependencyError(f"{args.data}: no coco/images/*.jpg")
    truth = read_truth(images)
    options = DetectorOptions(
        model=args.model,
        model_dir=args.model_dir or args.data / "weights",
        device=args.device,
        precision=args.precision,
        image_size=args.image_size,
        confidence=EVALUATED.confidence,
        iou=EVALUATED.iou,
    )
    names = [REFERENCE, *(name for name in args.runtimes.split(",") if name != REFERENCE)]
    reference: dict[str, list[Detections]] = {}
    rows = []
    for name in names:
        try:
            detector = open_detector(options, name)
        except DependencyError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
            continue
        found = {"pictures": detect_all(detector, (path.read_bytes() for path in images))}
        for video in sorted((args.data / "media").glob("*.mp4")):
            found[video.stem] = detect_all(detector, read_frames(video, args.every))
        reference = reference or found
        agreement = {key: agreement_of(reference[key], found[key]) for key in found}
        map50_95, map50 = mean_average_precision(truth, images, found["pictures"])
        label = f"{name} {detector.info.precision} {detector.info.device}"
        rows.append(Row(label, round(map50_95, 4), round(map50, 4), agreement))
    return rows


def open_detector(options: DetectorOptions, runtime: str) -> YoloDetector:
    """Open a runtime; the reference always in fp32."""
    precision = "fp32" if runtime == REFERENCE else options.precision
    detector = load_detector(replace(options, runtime=runtime, precision=precision))
    return detector.with_thresholds(EVALUATED)


def detect_all(detector: YoloDetector, encoded: Iterator[bytes]) -> list[Detections]:
    """Detect in batches, in order."""
    results: list[Detections] = []
    waiting: list[Picture] = []
    for data in encoded:
        waiting.append(detector.decode(data))
        if len(waiting) == BATCH:
            results += detector.detect(waiting)
            waiting = []
    return results + detector.detect(waiting)


def read_frames(path: Path, every: int) -> Iterator[bytes]:
    """Give every Nth frame of a video as JPEG of quality 90."""
    video = cv2.VideoCapture(str(path))
    index = 0
    while True:
        done, frame = video.read()
        if not done:
            video.release()
            return
        if index % every == 0:
            yield encode_jpeg(np.asarray(frame, np.uint8))
        index += 1


def read_truth(images: Sequence[Path]) -> dict[str, Any]:
    """Read the label files beside the pictures into a COCO dataset."""
    sizes = [cv2.imread(str(path), cv2.IMREAD_IGNORE_ORIENTATION).shape[:2] for path in images]
    annotations: list[dict[str, Any]] = []
    for index, (path, (height, width)) in enumerate(zip(images, sizes, strict=True)):
        labels = path.parents[1] / "labels" / f"{path.stem}.txt"
        for line in labels.read_text().splitlines() if labels.is_file() else []:
            kind, cx, cy, w, h = (float(part) for part in line.split())
            box = [(cx - w / 2) * width, (cy - h / 2) * height, w * width, h * height]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index,
                    "category_id": int(kind),
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    kinds = sorted({annotation["category_id"] for annotation in annotations})
    return {
        "images": [{"id": index} for index in range(len(images))],
        "annotations": annotations,
        "categories": [{"id": kind} for kind in kinds],
    }


def mean_average_precision(
    truth: dict[str, Any], images: Sequence[Path], found: Sequence[Detections]
) -> tuple[float, float]:
    """Give mAP50-95 and mAP50 as pycocotools computes them."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rows = [
        [index, x1, y1, x2 - x1, y2 - y1, confidence, kind]
        for index, one in zip(range(len(images)), found, strict=True)
        for (x1, y1, x2, y2), confidence, kind in zip(
            one.xyxy.tolist(), one.confidence.tolist(), one.class_id.tolist(), strict=True
        )
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        expected = COCO()
        expected.dataset = truth
        expected.createIndex()
        evaluation = COCOeval(expected, expected.loadRes(np.array(rows)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0]), float(evaluation.stats[1])


def agreement_of(reference: Sequence[Detections], found: Sequence[Detections]) -> float:
    """Give the share of the reference's boxes over 0.3 that `found` has too."""
    total = matched = 0
    for expected, actual in zip(reference, found, strict=True):
        strong = expected.confidence > COMPARED_CONFIDENCE
        total += int(strong.sum())
        free = np.ones(len(actual), bool)
        for box, kind in zip(expected.xyxy[strong], expected.class_id[strong], strict=True):
            overlap = np.where(free & (actual.class_id == kind), iou(box, actual.xyxy), 0)
            if len(overlap) and overlap.max() >= COMPARED_IOU:
                free[overlap.argmax()] = False
                matched += 1
    return round(matched / total, 5) if total else 1.0


def iou(box: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give the overlap of one box (4,) with each of (n, 4), corners."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    overlap = np.prod(np.clip(high - low, 0, None), axis=1)
    area = np.prod(box[2:] - box[:2]) + np.prod(others[:, 2:] - others[:, :2], axis=1)
    result: NDArray[np.float32] = overlap / np.maximum(area - overlap, 1e-9)
    return result


def print_table(rows: Sequence[Row]) -> None:
    """Print one line a runtime."""
    sets = list(rows[0].agreement)
    print(f"{'runtime':<24}{'mAP50-95':>10}{'mAP50':>8}", *(f"{key:>10}" for key in sets))
    for row in rows:
        shares = (f"{row.agreement[key]:>10.2%}" for key in sets)
        print(f"{row.runtime:<24}{row.map50_95:>10.4f}{row.map50:>8.4f}", *shares)
    print("Shares: boxes of the first runtime over 0.3 found again, IoU 0.9, same class.")


if __name__ == "__main__":
    sys.exit(main())
