"""Accuracy of every runtime: mAP on labelled pictures, and box by box against torch in fp32.

    python -m benchmarks.accuracy --data DIR [--runtimes NAMES] [--exported FOLDERS] [--json]

DIR holds coco/images with coco/labels (one `class cx cy w h` a line, 0 to 1) and media/*.mp4.
Protocol of the mAP: pictures padded to a square, confidence above 0.001, suppression at IoU 0.7,
at most 300 objects, one object for each class of an anchor. The third figure is the same with the
smallest rectangle instead of the square: what the pipeline runs.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipeline.detector import DetectorOptions, YoloDetector, load_detector
from pipeline.errors import DependencyError, PercipioError
from pipeline.heads import Thresholds, matches
from pipeline.image import encode_jpeg, probe
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
        map50_95_rectangle: with the smallest rectangle instead of a square.
        agreement: share of the reference's boxes over 0.3 found again at IoU 0.9 with the same
            class, by set of pictures.
    """

    runtime: str
    map50_95: float
    map50: float
    map50_95_rectangle: float
    agreement: dict[str, float]


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate, print a table or JSON, and return the process's exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder with coco/ and media/")
    parser.add_argument("--model", default="yolov9t", help="name or path (default: %(default)s)")
    parser.add_argument("--model-dir", type=Path, help="default: weights/ in the data folder")
    parser.add_argument("--runtimes", default="torch,openvino,onnx", help="default: %(default)s")
    parser.add_argument(
        "--exported", nargs="*", default=[], help="other files of the same model: int8, say"
    )
    parser.add_argument("--precision", default="auto", help="auto, fp32, fp16 or bf16")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N")
    parser.add_argument("--image-size", type=int, default=640)
    parser.add_argument("--threads", type=int, default=0, help="of the CPU, 0 for all")
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
        threads=args.threads,
        confidence=EVALUATED.confidence,
        iou=EVALUATED.iou,
    )
    reference: dict[str, list[Detections]] = {}
    rows = []
    first = replace(options, runtime=REFERENCE, precision="fp32")
    named = [replace(options, runtime=name) for name in args.runtimes.split(",")]
    others = [replace(options, model=path) for path in args.exported]
    for wanted in [first, *(one for one in named if one.runtime != REFERENCE), *others]:
        name = wanted.runtime if wanted.model == options.model else Path(wanted.model).name
        try:
            detector = load_detector(wanted)
        except DependencyError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
            continue
        started = time.perf_counter()
        found = detect_sets(detector, images, args)
        print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
        reference = reference or found
        square = mean_average_precision(truth, found["square"])
        rows.append(
            Row(
                runtime=f"{name} {detector.info.precision}",
                map50_95=square[0],
                map50=square[1],
                map50_95_rectangle=mean_average_precision(truth, found["pictures"])[0],
                agreement={key: agreement_of(reference[key], found[key]) for key in found},
            )
        )
    return rows


def detect_sets(
    detector: YoloDetector, images: Sequence[Path], args: argparse.Namespace
) -> dict[str, list[Detections]]:
    """Detect on the pictures, padded both ways, and on the videos."""
    square = detector.for_evaluation(EVALUATED, square=True)
    rectangle = detector.for_evaluation(EVALUATED, square=False)
    found = {
        "square": detect_all(square, (path.read_bytes() for path in images)),
        "pictures": detect_all(rectangle, (path.read_bytes() for path in images)),
    }
    for video in sorted((args.data / "media").glob("*.mp4")):
        found[video.stem] = detect_all(rectangle, read_frames(video, args.every))
    return found


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
    infos = [probe(path.read_bytes()) for path in images]
    annotations: list[dict[str, Any]] = []
    for index, (path, info) in enumerate(zip(images, infos, strict=True)):
        labels = path.parents[1] / "labels" / f"{path.stem}.txt"
        for line in labels.read_text().splitlines() if labels.is_file() else []:
            kind, cx, cy, w, h = (float(part) for part in line.split())
            box = [(cx - w / 2) * info.width, (cy - h / 2) * info.height]
            box += [w * info.width, h * info.height]
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
    truth: dict[str, Any], found: Sequence[Detections]
) -> tuple[float, float]:
    """Give mAP50-95 and mAP50 as pycocotools computes them."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rows = [
        [index, x1, y1, x2 - x1, y2 - y1, confidence, kind]
        for index, one in enumerate(found)
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
    return round(float(evaluation.stats[0]), 4), round(float(evaluation.stats[1]), 4)


def agreement_of(reference: Sequence[Detections], found: Sequence[Detections]) -> float:
    """Give the share of the reference's boxes over 0.3 that `found` has too."""
    total = matched = 0
    for expected, actual in zip(reference, found, strict=True):
        strong = expected.confidence > COMPARED_CONFIDENCE
        total += int(strong.sum())
        matched += int(matches(expected, actual, COMPARED_IOU)[strong].sum())
    return round(matched / total, 5) if total else 1.0


def print_table(rows: Sequence[Row]) -> None:
    """Print one line a runtime."""
    sets = list(rows[0].agreement)
    heads = (f"{key:>10}" for key in ("mAP50-95", "mAP50", "rectangle", *sets))
    print(f"{'runtime':<20}", *heads)
    for row in rows:
        figures = (f"{value:>10.4f}" for value in (row.map50_95, row.map50, row.map50_95_rectangle))
        shares = (f"{row.agreement[key]:>10.2%}" for key in sets)
        print(f"{row.runtime:<20}", *figures, *shares)
    print("Shares: boxes of the first runtime over 0.3 found again, IoU 0.9, same class.")


if __name__ == "__main__":
    sys.exit(main())
