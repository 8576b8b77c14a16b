"""YOLOv9 t s m c e on this machine's CPU: runtime, precision and batch, the bare network.

    python -m benchmarks.speed_models --data DIR [--models t,s,m,c,e] [--repeats 3] [--json]

Only t has weights here; the others are built from ultralytics' files with random weights, which
changes no time. int8 needs the pictures of DIR/coco. Times are those of `Runtime.infer` on noise of
640x384, the rectangle of a 16:9 video; CPU time is that of all threads.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed_frames import IMAGE_SIZE
from pipeline.checkpoint import _ultralytics
from pipeline.errors import PercipioError
from pipeline.exports import onnx_of
from pipeline.runtimes import Pixels, Runtime, available_cores, open_runtime
from pipeline.weights import Kind, Weights, find_weights, read_metadata

SHAPE = (384, 640)
BATCHES = (1, 4)
RUNTIMES = (
    ("torch", "fp32"),
    ("onnx", "fp32"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("openvino", "int8"),
)
CALIBRATION = 4  # enough for a speed; accuracy takes more, see benchmarks.accuracy


@dataclass(frozen=True)
class Row:
    """One cell of the table.

    Attributes:
        ms: median time of a picture.
        least_ms: the fastest.
        most_ms: the slowest.
        cpu_ms: median CPU time of a picture.
    """

    model: str
    runtime: str
    precision: str
    batch: int
    ms: float
    least_ms: float
    most_ms: float
    cpu_ms: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder with weights/ and coco/")
    parser.add_argument("--models", default="t,s,m,c,e", help="default: %(default)s")
    parser.add_argument("--models-dir", type=Path, help="keep networks and exports here")
    parser.add_argument("--precisions", default="fp32,bf16,int8", help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--shape", type=int, nargs=2, default=SHAPE, help="height and width")
    parser.add_argument("--prepare-only", action="store_true", help="make the exports only")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        made = tempfile.TemporaryDirectory(prefix="percipio-models-")
        folder = args.models_dir or Path(stack.enter_context(made))
        folder.mkdir(parents=True, exist_ok=True)
        for row in measure(args, folder):
            print(json.dumps(row.__dict__) if args.json else _line(row), flush=True)


def measure(args: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """Give the rows, network by network."""
    if not args.json:
        names = [*Row.__dataclass_fields__]
        print("|", " | ".join(names), "|\n|", " | ".join("---" for _ in names), "|")
    for letter in args.models.split(","):
        weights = weights_of(letter, args.data, folder)
        for name, precision in RUNTIMES:
            if precision not in args.precisions.split(","):
                continue
            try:
                runtime = _open(weights, name, precision, folder, args.data)
            except PercipioError as error:
                print(f"yolov9{letter} {name} {precision}: {error}", file=sys.stderr)
                continue
            for batch in () if args.prepare_only else BATCHES:
                pixels = np.random.default_rng(1).integers(
                    0, 255, (batch, *args.shape, 3), np.uint8
                )
                yield _row(f"yolov9{letter}", runtime, precision, pixels, args.repeats)


def weights_of(letter: str, data: Path, folder: Path) -> Weights:
    """Give the real weights where they are, else the network with random ones."""
    real = data / "weights" / f"yolov9{letter}.pt"
    path = real if real.is_file() else folder / f"yolov9{letter}.pt"
    if not path.is_file():
        import torch

        torch.manual_seed(0)
        network = _ultralytics("nn.tasks").DetectionModel(f"yolov9{letter}.yaml", verbose=False)
        network.names = {index: str(index) for index in range(80)}
        torch.save({"model": network, "train_args": {}}, path)
    return find_weights(str(path), folder)


def _open(weights: Weights, name: str, precision: str, folder: Path, data: Path) -> Runtime:
    if precision == "int8":
        weights = find_weights(str(_int8(weights, folder, data)), folder)
    common = {"model_dir": folder, "runtime": name, "device": "cpu"}
    asked = precision if precision == "bf16" else "auto"
    runtime, _ = open_runtime(weights, precision=asked, threads=available_cores(), **common)
    return runtime


def _int8(weights: Weights, folder: Path, data: Path) -> Path:
    from pipeline.quantize import write_int8

    target = folder / f"{weights.name}-int8_openvino_model"
    if not target.is_dir():
        pictures = sorted((data / "coco" / "images").glob("*.jpg"))[:CALIBRATION]
        onnx = onnx_of(weights, folder)
        labels = read_metadata(onnx, Kind.ONNX).labels
        with contextlib.redirect_stdout(sys.stderr):
            encoded = [path.read_bytes() for path in pictures]
            write_int8(onnx, target, encoded, IMAGE_SIZE, labels)
    return target


def _row(model: str, runtime: Runtime, precision: str, pixels: Pixels, repeats: int) -> Row:
    batch = len(pixels)
    runtime.infer(pixels)
    wall, cpu = [], []
    for _ in range(repeats):
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        runtime.infer(pixels)
        wall.append((time.perf_counter() - wall_s) / batch * 1e3)
        cpu.append((time.process_time() - cpu_s) / batch * 1e3)
    middle = statistics.median(wall)
    row = Row(model, runtime.name, precision, batch, middle, min(wall), max(wall), 0.0)
    return replace(row, cpu_ms=statistics.median(cpu))


def _line(row: Row) -> str:
    values: list[Any] = list(row.__dict__.values())
    return "| " + " | ".join(f"{v:.1f}" if isinstance(v, float) else str(v) for v in values) + " |"


if __name__ == "__main__":
    main()
