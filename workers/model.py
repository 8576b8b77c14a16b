"""`percipio model`: what would run here, exports, and runtimes compared with each other."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import DependencyError, PercipioError, SettingsError
from pipeline.settings import Settings
from workers.detect import detector_options

if TYPE_CHECKING:
    from pipeline.detector import YoloDetector
    from pipeline.records import Detections, Picture

_RUNTIMES = ("torch", "openvino", "onnx", "tensorrt")
_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
_STRONG, _SAME_IOU = 0.3, 0.9
_ROUNDS = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("--json", action="store_true", help="one JSON object")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("info", help="what would run here, and why")
    export = actions.add_parser("export", help="write the model for another runtime")
    export.add_argument("target", type=Path, help="a .onnx file, or a folder for OpenVINO")
    export.add_argument(
        "--int8", type=Path, nargs="+", metavar="PICTURES", help="8-bit, calibrated on these"
    )
    verify = actions.add_parser("verify", help="compare the runtimes that work here on pictures")
    verify.add_argument("pictures", type=Path, nargs="+", help="files, or folders of them")
    verify.add_argument("--limit", type=int, default=32, help="at most so many (%(default)s)")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Do what the action says and print it."""
    actions = {"info": _info, "export": _export, "verify": _verify}
    found = actions[args.action](args, settings)
    if args.json:
        print(json.dumps(found))
    else:
        _print(found)
    return 0 if found.get("ok", True) else 1


def _info(_: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    from pipeline.detector import load_detector
    from pipeline.scoring.channels import VISION
    from pipeline.scoring.vision import vision_channel_of

    options = detector_options(settings.detect)
    info = load_detector(options).info
    feeds: dict[str, list[str]] = {}
    for label, place in zip(info.labels, vision_channel_of(info.labels), strict=True):
        feeds.setdefault(VISION[place.channel], []).append(label)
    more = {"image_size": options.image_size, "classes": len(info.labels), "feeds": feeds}
    return {**asdict(info), **more}


def _export(args: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    from pipeline.exports import onnx_of
    from pipeline.runtime_openvino import write_folder
    from pipeline.weights import Kind, find_weights

    mine, target = detector_options(settings.detect), args.target
    weights = find_weights(mine.model, mine.model_dir, mine.sha256)
    if weights.kind is not Kind.CHECKPOINT:
        raise SettingsError(f"{weights.path} is an export already: only .pt weights are exported")
    if target.suffix not in {"", ".onnx"}:
        raise SettingsError(f"{target}: expected a .onnx file or a folder for OpenVINO")
    if args.int8 and target.suffix:
        raise SettingsError(f"{target}: int8 is for OpenVINO, name a folder")
    onnx = onnx_of(weights, mine.model_dir)
    try:
        if args.int8:
            return _quantize(onnx, args, mine.image_size)
        if target.suffix:
            shutil.copyfile(onnx, target)
        else:
            write_folder(onnx, target)
    except OSError as error:
        raise DependencyError(f"{target} cannot be written: {error}") from error
    return {"written": str(target)}


def _quantize(onnx: Path, args: argparse.Namespace, image_size: int) -> dict[str, Any]:
    from pipeline.quantize import write_int8
    from pipeline.weights import Kind, read_metadata

    pictures = [path.read_bytes() for path in _files_of(args.int8)]
    labels = read_metadata(onnx, Kind.ONNX).labels
    with redirect_stdout(sys.stderr):  # nncf shows its progress
        write_int8(onnx, args.target, pictures, image_size, labels)
    return {"written": str(args.target), "precision": "int8", "pictures": len(pictures)}


def _verify(args: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    from pipeline.detector import load_detector

    files = _files_of(args.pictures)[: args.limit]
    options = detector_options(settings.detect)
    rows: list[dict[str, Any]] = []
    first: list[Detections] = []
    for name in _RUNTIMES:
        try:
            detector = load_detector(replace(options, runtime=name))
        except PercipioError as error:
            rows.append({"runtime": name, "problem": str(error)})
            continue
        pictures = [detector.decode(path.read_bytes()) for path in files]
        found, ms = _timed(detector, pictures)
        first = first or found
        share = _agreement(first, found)
        rows.append({"runtime": name, "ms_per_picture": round(ms, 1), "same_boxes": share})
    if not first:
        problems = "; ".join(f"{row['runtime']}: {row['problem']}" for row in rows)
        raise DependencyError(f"no runtime works here: {problems}")
    ok = all(row.get("same_boxes", 1.0) >= 0.99 for row in rows)
    return {"pictures": len(files), "ok": ok, "runtimes": rows}


def _timed(detector: YoloDetector, pictures: Sequence[Picture]) -> tuple[list[Detections], float]:
    detector.warm_up()
    size = detector.info.batch_size
    batches = [pictures[start : start + size] for start in range(0, len(pictures), size)]
    found = [one for batch in batches for one in detector.detect(batch)]
    started = time.perf_counter()
    for batch in batches[:_ROUNDS]:
        detector.detect(batch)
    spent_s = time.perf_counter() - started
    return found, spent_s / sum(len(batch) for batch in batches[:_ROUNDS]) * 1e3


def _agreement(expected: Sequence[Detections], found: Sequence[Detections]) -> float:
    from pipeline.heads import matches

    total = same = 0
    for one, other in zip(expected, found, strict=True):
        strong = one.confidence > _STRONG
        total += int(strong.sum())
        same += int(matches(one, other, _SAME_IOU)[strong].sum())
    return round(same / total, 4) if total else 1.0


def _files_of(paths: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        inside = sorted(path.iterdir()) if path.is_dir() else [path]
        found += [file for file in inside if file.suffix.lower() in _SUFFIXES]
    if not found:
        raise SettingsError("no .jpg, .png or .webp among what was named")
    return found


def _print(found: dict[str, Any]) -> None:
    for key, value in found.items():
        if key == "runtimes":
            for row in value:
                print("  ", ", ".join(f"{name} {text}" for name, text in row.items()))
        elif key == "feeds":
            for channel, labels in value.items():
                print(f"{channel:<16} is fed by {', '.join(labels)}")
        elif key == "labels":
            print(f"{key:<12}{', '.join(value)}")
        else:
            print(f"{key:<12}{value}")
