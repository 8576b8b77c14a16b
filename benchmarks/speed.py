"""The pipeline beside the bare network and beside ultralytics, in one run on the same cores.

    python -m benchmarks.speed --data DIR [--rounds 9] [--frames 24] [--json]

a  bare      the runtime on prepared tensors, the limit
b  pipeline  frames stream to detections stream: embedded Redis (AOF on), one detect worker
   two       the same with two sources in turn
   lower     bare and pipeline in a lower precision, with --lower
c  torch     ultralytics predicting the same JPEG frames in a loop, as it comes
   torch all the same, given all cores (it leaves one free)
d  openvino, onnx   the same loop on ultralytics' own export, made for this very shape

They take turns, round by round, so that what else the machine does meets all alike. A share is the
median over rounds of the two of the same round. Then live frames: a table of ages.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.speed_frames import Sample, median
from benchmarks.speed_loops import Loop
from benchmarks.speed_stream import Ages, Stream

SHAPE = (384, 640)  # what a frame of 960x540 becomes at 640
EXPORT = """
import sys
from ultralytics import YOLO
print(YOLO(sys.argv[1]).export(format=sys.argv[2], imgsz=(384, 640), verbose=False))
"""
RIVALS = {
    "torch": "{stem}.pt",
    "torch all cores": "{stem}.pt",
    "openvino": "{stem}_openvino_model",
    "onnx": "{stem}.onnx",
}
PAIRS = (
    ("b of a: pipeline against bare network", "bare", "pipeline"),
    ("two sources against one", "pipeline", "two sources"),
    ("b of a in lower precision", "bare lower", "pipeline lower"),
    ("pipeline in lower precision against c: torch", "torch", "pipeline lower"),
    (
        "pipeline in lower precision against c: torch, all cores",
        "torch all cores",
        "pipeline lower",
    ),
    ("pipeline in lower precision against d: openvino", "openvino", "pipeline lower"),
    ("pipeline against c: torch", "torch", "pipeline"),
    ("pipeline against c: torch, all cores", "torch all cores", "pipeline"),
    ("pipeline against d: openvino", "openvino", "pipeline"),
    ("pipeline against d: onnx", "onnx", "pipeline"),
)
LIVE = ((16, 1.0), (1, 15.0))

Measure = Callable[[int], Sample]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder with media/ and weights/")
    parser.add_argument("--model", type=Path, help="default: yolov9t of the data folder")
    parser.add_argument("--model-dir", type=Path, default=Path.home() / ".cache" / "percipio")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--frames", type=int, default=192, help="of each in a round, by fours")
    parser.add_argument(
        "--live-s", type=float, default=20.0, help="seconds of live frames; 0: none"
    )
    parser.add_argument("--limit-s", type=float, default=600.0, help="begin no round after this")
    parser.add_argument("--lower", help="fp16 or bf16, where this CPU has it")
    parser.add_argument("--exports", type=Path, help="keep ultralytics' exports here")
    parser.add_argument("--only", help="names between commas, for a quick look")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    args.model = args.model or args.data / "weights" / "yolov9t.pt"
    samples, ages = run(args)
    if args.json:
        print(json.dumps(as_json(samples, ages)))
    else:
        print_tables(samples, ages)


def run(args: argparse.Namespace) -> tuple[dict[str, list[Sample]], dict[str, Ages]]:
    """Start all, then measure in turns."""
    samples: dict[str, list[Sample]] = {}
    with ExitStack() as stack:
        made = tempfile.TemporaryDirectory(prefix="percipio-speed-")
        folder = args.exports or Path(stack.enter_context(made))
        stream = stack.enter_context(Stream(args.data, args.model, args.model_dir, {}))
        measures = {"bare": _loop(stack, args, "bare", "--model-dir", str(args.model_dir))}
        measures["pipeline"] = stream.measure
        measures["two sources"] = lambda frames: stream.measure(frames, 2)
        streams = {"": stream}
        if args.lower:
            environ = {"PERCIPIO_PRECISION": args.lower}
            lower = stack.enter_context(Stream(args.data, args.model, args.model_dir, environ))
            streams[f", {args.lower}"] = lower
            more = ["--model-dir", str(args.model_dir), "--precision", args.lower]
            measures["bare lower"] = _loop(stack, args, "bare", *more)
            measures["pipeline lower"] = lower.measure
        names = args.only.split(",") if args.only else [*measures, *RIVALS]
        for name in (name for name in names if name in RIVALS):
            measures[name] = _rival(stack, args, folder, name)
        began_s = time.monotonic()
        for number in range(args.rounds):
            if number and time.monotonic() - began_s > args.limit_s:
                break
            print(f"round {number + 1} of {args.rounds}", file=sys.stderr)
            for name in names if number % 2 else reversed(names):
                samples.setdefault(name, []).append(measures[name](args.frames))
        ages = {}
        for name, one in streams.items() if args.live_s else ():
            for sources, rate in LIVE:
                ages[f"{sources} at {rate:g} frames/s{name}"] = one.live(sources, rate, args.live_s)
    return {name: samples[name] for name in measures if name in samples}, ages


def _loop(stack: ExitStack, args: argparse.Namespace, kind: str, *more: str) -> Measure:
    arguments = [kind, "--data", str(args.data)]
    if "--model" not in more:
        arguments += ["--model", str(args.model)]
    return stack.enter_context(Loop(*arguments, *more)).measure


def _rival(stack: ExitStack, args: argparse.Namespace, folder: Path, name: str) -> Measure:
    """Start one of ultralytics' loops: on the checkpoint, or on its own export of it."""
    folder.mkdir(parents=True, exist_ok=True)
    mine = folder / args.model.name
    if not mine.exists():
        shutil.copyfile(args.model, mine)
    target = RIVALS[name].format(stem=mine.stem)
    if not (folder / target).exists():
        command = [sys.executable, "-c", EXPORT, str(mine), name]
        environ = os.environ | {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"}
        subprocess.run(command, check=True, env=environ, stdout=subprocess.DEVNULL, cwd=folder)
    more = ["--model", str(folder / target)]
    if target != mine.name:
        more += ["--shape", *(str(side) for side in SHAPE)]
    if name == "torch all cores":
        more += ["--threads", str(len(os.sched_getaffinity(0)))]
    return _loop(stack, args, "predict", *more)


def shares(samples: dict[str, list[Sample]]) -> list[dict[str, Any]]:
    """Give how many times as fast the second of each pair is, by time and by CPU time."""
    rows = []
    for title, first, second in PAIRS:
        if first not in samples or second not in samples:
            continue
        pairs = list(zip(samples[first], samples[second], strict=True))
        wall = sorted(one.wall_ms / other.wall_ms for one, other in pairs)
        cpu = sorted(one.cpu_ms / other.cpu_ms for one, other in pairs)
        rows.append(
            {
                "pair": title,
                "times_as_fast": round(median(wall), 3),
                "from": round(wall[0], 3),
                "to": round(wall[-1], 3),
                "by_cpu_time": round(median(cpu), 3),
            }
        )
    return rows


def as_json(samples: dict[str, list[Sample]], ages: dict[str, Ages]) -> dict[str, Any]:
    """Give everything as JSON."""
    return {
        "rows": [_row(name, values) for name, values in samples.items()],
        "shares": shares(samples),
        "live": [
            {
                "sources": name,
                "offered": one.offered,
                "detected": one.detected,
                "p50_ms": one.percentile(50),
                "p95_ms": one.percentile(95),
                "max_ms": max(one.ms),
            }
            for name, one in ages.items()
        ],
    }


def _row(name: str, values: Sequence[Sample]) -> dict[str, Any]:
    wall = sorted(value.wall_ms for value in values)
    cpu = [value.cpu_ms for value in values]
    objects = [value.objects / value.frames for value in values]
    return {
        "what": name,
        "ms": round(median(wall), 1),
        "from": round(wall[0], 1),
        "to": round(wall[-1], 1),
        "frames_per_s": round(1e3 / median(wall), 1),
        "best_frames_per_s": round(1e3 / wall[0], 1),
        "cpu_ms": round(median(cpu), 1),
        "objects": round(median(objects), 2) if objects[0] >= 0 else "",
    }


def print_tables(samples: dict[str, list[Sample]], ages: dict[str, Ages]) -> None:
    """Print tables in Markdown."""
    found = as_json(samples, ages)
    for rows in found.values():
        if rows:
            print("|", " | ".join(rows[0]), "|")
            print("|", " | ".join("---" for _ in rows[0]), "|")
            for row in rows:
                print("|", " | ".join(str(value) for value in row.values()), "|")
            print()


if __name__ == "__main__":
    main()
