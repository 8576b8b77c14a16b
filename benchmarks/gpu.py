"""Everything that is to be known of a CUDA machine, from a checkout and without a network.

    python -m benchmarks.gpu [--data DIR] [--models t,s,m,c,e] [--batches 1,2,4,8,16,32,64] [--json]

1  selection  a GPU is taken, refused and done without as it should be; each line proves one case
2  network    YOLOv9 t to e, fp32 and fp16, by batch: with the copies, without, as a CUDA graph,
              with copies hidden behind the batch before. Random weights: speed only
3  path       frames stream to detections stream through a worker on the GPU, beside the bare
              network at the same batch and precision, and beside ultralytics on the same JPEG
              frames. Goal: at least 0.90 of the bare network

Frames are DIR/media/cars.mp4 with DIR/weights/yolov9t.pt, or the built-in scene with random
weights. `--device cpu` runs the same code where there is no GPU, to try the script: no figure of it
says anything of a GPU. Exit 1: selection is wrong; 3: no CUDA.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.accuracy import read_frames
from benchmarks.cache import OFF, deployment
from benchmarks.gpu_network import NetworkRow, make_weights, measure, open_network, timed
from benchmarks.soak import unique
from pipeline.errors import DependencyError, PercipioError, SettingsError
from pipeline.image import decode, encode_jpeg, letterbox
from pipeline.runtimes import available_cores, choose_device
from pipeline.scene import Scene

SHAPE_OF = (540, 960)
GOAL = 0.90
HIDDEN = {"CUDA_VISIBLE_DEVICES": "-1"}
CHOOSE = "from pipeline.runtimes import choose_device; print(*choose_device('auto'), sep='; ')"


@dataclass(frozen=True)
class Check:
    """One case of the choice of a device."""

    case: str
    found: str
    is_right: bool


@dataclass(frozen=True)
class PathRow:
    """The whole path beside what it stands on, images a second.

    Attributes:
        workers: detect workers that share the GPU; what they stand beside is one network.
        bare: the network on prepared tensors of the same batch.
        path: from stream to stream, over whole turns.
        share: of the two; the goal is 0.90.
        sustained: of what turns twice as long do more, so that how a turn begins and ends does
            not count.
        sustained_share: of the bare network.
        ultralytics: `YOLO.predict` on the same frames, one by one.
        ultralytics_batch: the same, a batch at a time.
    """

    model: str
    precision: str
    batch: int
    workers: int
    bare: float
    path: float
    share: float
    sustained: float
    sustained_share: float
    ultralytics: float
    ultralytics_batch: float


def prove_selection(device: str) -> list[Check]:
    """Try what the choice of a device promises, on this machine."""
    hidden = _choose_hidden()
    checks = [
        _check("auto", lambda: choose_device("auto")[0], device),
        _check("cpu as set", lambda: choose_device("cpu")[0], "cpu"),
        _check("cuda:99 is refused", lambda: choose_device("cuda:99")[0], DependencyError),
        _check("a wrong name is refused", lambda: choose_device("gpu")[0], SettingsError),
        _check(
            "OpenVINO on CUDA is refused",
            lambda: choose_device("cuda:0", cpu_only=True)[0],
            SettingsError,
        ),
        Check(
            "auto without a visible GPU takes the CPU", hidden, hidden.startswith("cpu; no CUDA")
        ),
    ]
    if device != "cpu":
        checks.append(_check("asked by name", lambda: choose_device(device)[0], device))
    return checks


def _check(case: str, act: Callable[[], str], expected: str | type[Exception]) -> Check:
    try:
        found = act()
    except PercipioError as error:
        is_right = isinstance(expected, type) and isinstance(error, expected)
        return Check(case, f"{type(error).__name__}: {error}", is_right)
    return Check(case, found, found == expected)


def _choose_hidden() -> str:
    """Choose in a process that sees no GPU."""
    command = [sys.executable, "-c", CHOOSE]
    done = subprocess.run(
        command, env=os.environ | HIDDEN, capture_output=True, text=True, check=False
    )
    return (done.stdout or done.stderr).strip().splitlines()[-1]


def load_frames(data: Path | None, count: int) -> list[bytes]:
    """Give JPEG frames of 960x540."""
    if data is not None:
        return list(islice(read_frames(data / "media" / "cars.mp4", 1), count))
    scene = Scene(7, fps=15.0, size_wh=(SHAPE_OF[1], SHAPE_OF[0]))
    return [encode_jpeg(scene.frame(number).image) for number in range(count)]


def measure_path(
    args: argparse.Namespace, path: Path, precision: str, batch: int
) -> Iterator[PathRow]:
    """Measure the bare network, ultralytics, and the path with one worker and more, in turn."""
    frames = load_frames(args.data, args.frames)
    shape = network_shape(frames[0], args.image_size)
    bare = bare_speed(args, path, precision, (batch, *shape, 3))
    settings = {
        "PERCIPIO_MODEL": str(path),
        "PERCIPIO_RUNTIME": "torch",
        "PERCIPIO_DEVICE": args.device,
        "PERCIPIO_PRECISION": precision,
        "PERCIPIO_BATCH_SIZE": str(batch),
        "PERCIPIO_IMAGE_SIZE": str(args.image_size),
        **OFF,
    }
    rivals = ultralytics_speeds(args, path, precision, batch, frames)
    for workers in args.path_workers:
        with deployment("path", settings, detectors=workers) as deployed:
            for turn in range(args.turns + 1):
                for times in (1, 2):
                    numbered = enumerate(frames * times, (3 * turn + times - 1) * len(frames))
                    deployed.take([("gpu", unique(jpeg, number)) for number, jpeg in numbered])
            spent_s = [turn.seconds for turn in deployed.turns[2:]]
        once_s, twice_s = float(np.median(spent_s[::2])), float(np.median(spent_s[1::2]))
        whole, sustained = len(frames) / once_s, len(frames) / (twice_s - once_s)
        shares = whole, whole / bare, sustained, sustained / bare
        yield PathRow(path.stem, precision, batch, workers, bare, *shares, *rivals)


def bare_speed(
    args: argparse.Namespace, path: Path, precision: str, shape: tuple[int, ...]
) -> float:
    """Give images a second of the runtime on prepared tensors."""
    runtime = open_network(path, args.device, precision, available_cores())
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    spent = timed(lambda: runtime.infer(pixels), args.seconds)
    return shape[0] * len(spent) / sum(spent)


def network_shape(jpeg: bytes, image_size: int) -> tuple[int, int]:
    """Give (height, width) of the network's input for a frame."""
    picture = decode(jpeg)
    box = letterbox(picture.width, picture.height, (image_size, image_size))
    return box.outer_height, box.outer_width


def ultralytics_speeds(
    args: argparse.Namespace, path: Path, precision: str, batch: int, frames: Sequence[bytes]
) -> tuple[float, float]:
    """Give images a second of `YOLO.predict`: one by one, and a batch at a time."""
    os.environ |= {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false"}
    from ultralytics import YOLO
    from ultralytics.nn.autobackend import AutoBackend

    # Its warm-up imports torchvision, which need not be there; ours is the first call.
    AutoBackend.warmup = lambda *_, **__: None
    model = YOLO(str(path), task="detect")
    options = {"imgsz": args.image_size, "device": args.device, "verbose": False}
    options["half"] = precision == "fp16"

    def predict(count: int) -> None:
        shown = [
            cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
            for jpeg in islice(endless, count)
        ]
        model.predict(shown, **options)

    endless = cycle(frames)
    speeds = []
    for count in (1, batch):
        spent = timed(lambda count=count: predict(count), args.seconds)  # type: ignore[misc]
        speeds.append(count * len(spent) / sum(spent))
    return speeds[0], speeds[1]


def table(rows: Sequence[NetworkRow] | Sequence[PathRow] | Sequence[Check]) -> str:
    """Give rows as a table of Markdown; what was not measured is `-`."""
    names = [field.name for field in fields(rows[0])]
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(_cell(getattr(row, name)) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.2f}" if value < 10 else f"{value:.0f}"
    return str(value)


def describe(device: str) -> str:
    """Name the machine in one line."""
    card = "no GPU" if device == "cpu" else torch.cuda.get_device_name(device)
    cuda = torch.version.cuda or "none"
    today = time.strftime("%Y-%m-%d")
    return f"{today}: {card}, {available_cores()} cores, torch {torch.__version__}, CUDA {cuda}"


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Run the parts asked for, printing each as soon as it is there."""
    found: dict[str, Any] = {"machine": describe(args.device)}
    print(found["machine"], file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="percipio-gpu-") as made:
        folder = Path(made)
        for part in args.parts:
            rows: list[Any] = list(PARTS[part](args, folder))
            found[part] = [asdict(row) for row in rows]
            if not args.json:
                print(f"\n{part}\n\n{table(rows)}", flush=True)
    return found


def _networks(args: argparse.Namespace, folder: Path) -> list[NetworkRow]:
    shape = (round(args.image_size * 0.6 / 32) * 32, args.image_size)  # of 16:9 video
    rows: list[NetworkRow] = []
    for letter in args.models:
        path = make_weights(f"yolov9{letter}", folder)
        for precision in _precisions(args.device):
            how = {"seconds": args.seconds, "threads": available_cores()}
            rows += measure(path, args.device, precision, args.batches, shape, **how)
    return rows


def _paths(args: argparse.Namespace, folder: Path) -> list[PathRow]:
    rows = []
    for letter in args.models:
        real = None if args.data is None else args.data / "weights" / f"yolov9{letter}.pt"
        path = real if real and real.exists() else make_weights(f"yolov9{letter}", folder)
        precision = _precisions(args.device)[-1]
        rows += measure_path(args, path, precision, args.path_batch)
    return rows


def _precisions(device: str) -> tuple[str, ...]:
    return ("fp32",) if device == "cpu" else ("fp32", "fp16")


PARTS: dict[str, Callable[[argparse.Namespace, Path], Sequence[Any]]] = {
    "selection": lambda args, _folder: prove_selection(args.device),
    "network": _networks,
    "path": _paths,
}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""

    def listed(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with media/cars.mp4 and weights/")
    parser.add_argument("--device", default="cuda:0", help="default: %(default)s")
    parser.add_argument("--parts", type=listed, default=list(PARTS), help="some of the three")
    parser.add_argument("--models", type=listed, default=list("tsmce"), help="default: t,s,m,c,e")
    parser.add_argument("--batches", type=listed, default=[str(2**n) for n in range(7)])
    parser.add_argument("--path-batch", type=int, default=32, help="batch of the whole path")
    parser.add_argument("--path-workers", type=listed, default=list("124"), help="default: 1,2,4")
    parser.add_argument("--image-size", type=int, default=640, help="a multiple of 32")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each figure")
    parser.add_argument("--frames", type=int, default=640, help="of a turn through the path")
    parser.add_argument("--turns", type=int, default=3, help="through the path")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    wrong = [part for part in args.parts if part not in PARTS]
    wrong += [letter for letter in args.models if letter not in "tsmce"]
    numbers = [*args.batches, *args.path_workers]
    wrong += [text for text in numbers if not text.isdigit() or not int(text)]
    if wrong:
        parser.error(f"not understood: {', '.join(wrong)}")
    args.batches = [int(text) for text in args.batches]
    args.path_workers = [int(text) for text in args.path_workers]
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the process's exit code."""
    args = parse(argv)
    try:
        args.device, why = choose_device(args.device)
    except PercipioError as error:
        print(f"gpu: {error}; --device cpu only tries the script", file=sys.stderr)
        return error.exit_code
    print(why, file=sys.stderr)
    found = run(args)
    if args.json:
        print(json.dumps(found, indent=2))
    return int(not all(check["is_right"] for check in found.get("selection", ())))


if __name__ == "__main__":
    sys.exit(main())
