"""Loops that the pipeline is compared with, each in a process of its own that waits for its turn.

    python -m benchmarks.speed_loops KIND --data DIR ...    reads counts, writes samples as JSON

bare: the pipeline's runtime on prepared tensors, nothing else: the limit.
predict: ultralytics' `YOLO.predict` on each JPEG frame, decoded with OpenCV, one after the other.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np

from benchmarks.speed_frames import IMAGE_SIZE, Sample, load_frames
from pipeline.image import decode, letterbox
from pipeline.runtimes import Pixels, available_cores, open_runtime
from pipeline.weights import find_weights

BATCH = 4
"""What a worker takes on a CPU of few cores."""
Step = Callable[[int], int]
"""Does so many frames; gives how many objects were found."""


class Loop:
    """A loop in another process: started, warmed up, idle until it is asked to measure."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "benchmarks.speed_loops", *arguments]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        self._answer()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def measure(self, frames: int) -> Sample:
        """Let it do so many frames."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{frames}\n")
        self._process.stdin.flush()
        return Sample(**self._answer())

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise SystemExit(f"{self._process.args}: ended with {self._process.wait()}")


def bare(args: argparse.Namespace) -> Step:
    """The runtime alone, on batches made beforehand of the size that the worker uses."""
    runtime, _ = open_runtime(
        find_weights(str(args.model), args.model_dir),
        model_dir=args.model_dir,
        runtime=args.runtime,
        device="cpu",
        precision=args.precision,
        threads=args.threads or available_cores(),
    )
    batches = prepared(load_frames(args.data), args.batch)

    def step(frames: int) -> int:
        for batch in islice(cycle(batches), frames // args.batch):
            runtime.infer(batch)
        return -1

    return step


def prepared(frames: list[bytes], size: int) -> list[Pixels]:
    """Give full batches of the frames as the network takes them."""
    pictures = [decode(jpeg, IMAGE_SIZE) for jpeg in frames]
    box = letterbox(pictures[0].width, pictures[0].height, (IMAGE_SIZE, IMAGE_SIZE))
    rows = np.empty((len(pictures), box.outer_height, box.outer_width, 3), np.uint8)
    for row, picture in zip(rows, pictures, strict=True):
        box.fill(row, picture)
    return [rows[start : start + size] for start in range(0, len(rows) - size + 1, size)]


def predict(args: argparse.Namespace) -> Step:
    """Ultralytics' predict; only its warm-up is left out, for that imports torchvision."""
    os.environ |= {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false"}
    import torch
    from ultralytics import YOLO
    from ultralytics.nn.autobackend import AutoBackend

    AutoBackend.warmup = lambda *_, **__: None
    model = YOLO(str(args.model), task="detect")
    frames = load_frames(args.data)

    def step(count: int) -> int:
        objects = 0
        for jpeg in islice(cycle(frames), count):
            picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
            size = args.shape or IMAGE_SIZE
            (found,) = model.predict(picture, imgsz=size, device="cpu", verbose=False)
            objects += len(found.boxes)
        return objects

    step(1)
    if args.threads:  # it leaves one core free, which on two cores is half of them
        torch.set_num_threads(args.threads)
    return step


def main() -> None:
    """Set the loop up, then measure as often as asked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("bare", "predict"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--model-dir", type=Path)
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--shape", type=int, nargs=2)
    args = parser.parse_args()
    step = {"bare": bare, "predict": predict}[args.kind](args)
    step(BATCH)
    print("{}", flush=True)
    for line in sys.stdin:
        frames = int(line)
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        objects = step(frames)
        sample = Sample(frames, time.perf_counter() - wall_s, time.process_time() - cpu_s, objects)
        print(json.dumps(asdict(sample)), flush=True)


if __name__ == "__main__":
    main()
