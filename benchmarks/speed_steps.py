"""What a frame costs beside the network, step by step, in CPU time of one thread.

    python -m benchmarks.speed_steps --data DIR [--repeats 200] [--json]

Frames of cars.mp4: as they are (960x540), and enlarged to 1920x1080, where decoding at reduced
scale begins to pay. CPU time, because other load stretches it least.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.speed_frames import IMAGE_SIZE, load_frames
from pipeline.heads import Thresholds, read_output
from pipeline.image import decode, encode_jpeg, letterbox
from pipeline.runtimes import open_runtime
from pipeline.weights import find_weights


def main() -> None:
    """Measure every step and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder with media/ and weights/")
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = {name: time_of(step, args.repeats) for name, step in steps(args.data).items()}
    if args.json:
        print(json.dumps(rows))
        return
    print("| step | least ms | median ms |\n| --- | --- | --- |")
    for name, (least, middle) in rows.items():
        print(f"| {name} | {least:.2f} | {middle:.2f} |")


def steps(data: Path) -> dict[str, Callable[[], Any]]:
    """Give the steps of one frame, ready to run."""
    small = load_frames(data)[20]
    large = encode_jpeg(np.asarray(cv2.resize(decode(small).image, (1920, 1080)), np.uint8))
    picture = decode(small, IMAGE_SIZE)
    box = letterbox(picture.width, picture.height, (IMAGE_SIZE, IMAGE_SIZE))
    batch = np.empty((1, box.outer_height, box.outer_width, 3), np.uint8)
    box.fill(batch[0], picture)
    runtime, _ = open_runtime(
        find_weights(str(data / "weights" / "yolov9t.pt"), data),
        model_dir=Path.home() / ".cache" / "percipio",
        runtime="openvino",
        device="cpu",
        precision="auto",
        threads=1,
    )
    output = runtime.infer(batch).copy()
    thresholds, evaluated = Thresholds(0.25, 0.7), Thresholds(0.001, 0.7)
    return {
        "decode 960x540": lambda: decode(small, IMAGE_SIZE),
        "decode 1920x1080 in full": lambda: decode(large),
        "decode 1920x1080 as the network needs": lambda: decode(large, IMAGE_SIZE),
        "letterbox into the batch": lambda: box.fill(batch[0], picture),
        "objects over 0.25": lambda: list(read_output(output, 1, 80, thresholds)),
        "objects over 0.001": lambda: list(read_output(output, 1, 80, evaluated)),
    }


def time_of(step: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Give the least and the median CPU time of a step, ms."""
    step()
    times = []
    for _ in range(repeats):
        began_s = time.thread_time()
        step()
        times.append((time.thread_time() - began_s) * 1e3)
    return min(times), statistics.median(times)


if __name__ == "__main__":
    main()
