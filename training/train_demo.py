"""Trains the demo's YOLOv9t from random weights, on scenes rendered while it trains.

Run as `python -m training.train_demo --minutes 75`; started again, it goes on from its last
checkpoint. The number of frames is endless, so that augmentation only varies what a camera
varies: mirror, light, sensor noise and JPEG quality.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, IterableDataset
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel

from pipeline.scene import SCENE_LABELS, Scene, SceneObject
from training.evaluate_demo import MODEL_PATH, measure, network_input, to_tensor

_FRAMES_PER_SCENE = 10
_SHUFFLE = 120
_LAST_INDEX = 20_000
# Less than COCO's ignored objects lack, so that the limit itself is learned from both sides.
_LEARN_FROM_VISIBLE = 0.25
_LEARN_FROM_PX = 10
_WARMUP_STEPS = 150
_EVALUATE_EVERY_S = 600.0
_CHECKPOINT_EVERY = 100

Sample = tuple[NDArray[np.uint8], NDArray[np.float32]]  # picture; rows of class, x, y, w, h


@dataclass(slots=True)
class Run:
    """Everything a checkpoint keeps."""

    model: DetectionModel
    average: DetectionModel
    optimizer: torch.optim.Optimizer
    step: int = 0
    images: int = 0
    spent_s: float = 0.0


def samples(rng: np.random.Generator) -> Iterator[Sample]:
    """Yield labelled network inputs without end, neighbours from different scenes."""
    shelf: list[Sample] = []
    while True:
        scene = Scene(int(rng.integers(1, 1_000_000)), fps=float(rng.uniform(8, 30)))
        begin = int(rng.integers(_LAST_INDEX))
        for offset in rng.integers(600, size=_FRAMES_PER_SCENE).tolist():
            frame = scene.frame(begin + offset)
            shelf.append(_sample(frame.image, frame.truth, rng))
        while len(shelf) > _SHUFFLE:
            place = int(rng.integers(len(shelf)))
            shelf[place], shelf[-1] = shelf[-1], shelf[place]
            yield shelf.pop()


def _sample(image: NDArray[np.uint8], truth: list[SceneObject], rng: np.random.Generator) -> Sample:
    small = network_input(_vary(image, rng), int(rng.integers(70, 96)))
    height, width = image.shape[:2]
    rows = [_row(seen, width, height) for seen in truth if _is_learnable(seen)]
    boxes = np.array(rows, np.float32).reshape(-1, 5)
    if rng.uniform() < 0.5:
        small = np.ascontiguousarray(small[:, ::-1])
        boxes[:, 1] = 1 - boxes[:, 1]
    return small, boxes


def _vary(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    contrast, brightness = rng.uniform(0.8, 1.25), rng.uniform(-18, 18)
    varied = cv2.convertScaleAbs(image, alpha=contrast, beta=128 * (1 - contrast) + brightness)
    if rng.uniform() < 0.3:
        grain = np.empty(image.shape, np.int16)
        cv2.randn(grain, np.zeros(3), np.full(3, rng.uniform(1, 6)))
        varied = cv2.add(varied, grain, dtype=cv2.CV_8U)
    return np.asarray(varied, np.uint8)


def _is_learnable(seen: SceneObject) -> bool:
    sides = seen.xyxy[2:] - seen.xyxy[:2]
    return seen.visible >= _LEARN_FROM_VISIBLE and float(sides.min()) >= _LEARN_FROM_PX


def _row(seen: SceneObject, width: int, height: int) -> list[float]:
    x1, y1, x2, y2 = (float(value) for value in seen.xyxy)
    return [
        seen.class_id,
        (x1 + x2) / 2 / width,
        (y1 + y2) / 2 / height,
        (x2 - x1) / width,
        (y2 - y1) / height,
    ]


class Frames(IterableDataset[Sample]):
    """Endless samples for a loader, which renders them in a process of its own."""

    def __init__(self, seed: tuple[int, int]) -> None:
        self._seed = seed

    def __iter__(self) -> Iterator[Sample]:
        """Start rendering."""
        cv2.setNumThreads(1)
        cv2.setRNGSeed(self._seed[0])
        return samples(np.random.default_rng(self._seed))


def make_batch(pairs: list[Sample], device: torch.device) -> dict[str, torch.Tensor]:
    """Turn samples into what ultralytics' loss expects."""
    boxes = torch.from_numpy(np.concatenate([rows for _, rows in pairs])).to(device)
    owner = np.repeat(np.arange(len(pairs)), [len(rows) for _, rows in pairs])
    return {
        "img": to_tensor((image for image, _ in pairs), device),
        "cls": boxes[:, :1],
        "bboxes": boxes[:, 1:],
        "batch_idx": torch.from_numpy(owner).float().to(device),
    }


def new_run(device: torch.device, lr: float) -> Run:
    """Start from random weights."""
    # ultralytics has no types, and torch's stubs know neither its attributes nor memory formats.
    make: Any = DetectionModel
    model = make("yolov9t.yaml", ch=3, nc=len(SCENE_LABELS), verbose=False)
    model.names = dict(enumerate(SCENE_LABELS))
    model.args = get_cfg()
    model = model.to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(model).eval().requires_grad_(False)
    plain = [p for p in model.parameters() if p.ndim <= 1 and p.requires_grad]
    decayed = [p for p in model.parameters() if p.ndim > 1 and p.requires_grad]
    groups = [{"params": decayed, "weight_decay": 5e-4}, {"params": plain, "weight_decay": 0.0}]
    return Run(model, average, torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.99), fused=True))


def train_step(run: Run, batch: dict[str, torch.Tensor], lr: float) -> torch.Tensor:
    """Learn from one batch and move the average; returns box, class and distribution loss."""
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    run.model.train()
    loss, parts = run.model(batch)
    run.optimizer.zero_grad(set_to_none=True)
    (loss.sum() / len(batch["img"])).backward()
    torch.nn.utils.clip_grad_norm_(run.model.parameters(), 10.0)
    run.optimizer.step()
    run.step += 1
    run.images += len(batch["img"])
    keep = 0.998 * (1 - math.exp(-run.step / 300))
    with torch.no_grad():
        torch._foreach_lerp_(_numbers(run.average), _numbers(run.model), 1 - keep)
    return torch.stack([part.detach() for part in parts.values()])


def _numbers(model: torch.nn.Module) -> list[torch.Tensor]:
    values = [*model.parameters(), *model.buffers()]
    return [value for value in values if value.is_floating_point()]


def rate(run: Run, minutes: float, peak: float) -> float:
    """Warm up by steps, then follow a cosine over the time that there is."""
    progress = min(run.spent_s / (minutes * 60), 1.0)
    cosine = 0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2
    return peak * cosine * min(1.0, (run.step + 1) / _WARMUP_STEPS)


def save(run: Run, path: Path) -> None:
    """Write a checkpoint in one move."""
    partial = path.with_suffix(".partial")
    torch.save(
        {
            "model": run.model.state_dict(),
            "average": run.average.state_dict(),
            "optimizer": run.optimizer.state_dict(),
            "counts": (run.step, run.images, run.spent_s),
        },
        partial,
    )
    os.replace(partial, path)


def resume(run: Run, path: Path) -> None:
    """Go on from a checkpoint, if there is one."""
    if not path.exists():
        return
    kept = torch.load(path, weights_only=True)
    run.model.load_state_dict(kept["model"])
    run.average.load_state_dict(kept["average"])
    run.optimizer.load_state_dict(kept["optimizer"])
    run.step, run.images, run.spent_s = kept["counts"]


def export(run: Run, path: Path) -> None:
    """Write the averaged model as ultralytics writes checkpoints: folded, half precision."""
    model: Any = copy.deepcopy(run.average).cpu()
    model = (
        model.to(memory_format=torch.contiguous_format).float().eval().fuse(verbose=False).half()
    )
    model.args = {"task": "detect", "imgsz": [192, 320]}
    model.criterion = None
    path.parent.mkdir(exist_ok=True)
    torch.save({"model": model, "train_args": {}, "epoch": -1}, path)


def _log(text: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stdout.flush()


def _report(run: Run, seeds: int, frames_per_seed: int) -> None:
    result = measure(run.average, seeds, frames_per_seed)
    _log(
        f"step {run.step} held out: mAP50 {result.map50:.3f} mAP50-95 {result.map50_95:.3f}, "
        f"at {result.threshold}: precision {result.precision:.3f} recall {result.recall:.3f}"
    )


def train(run: Run, options: argparse.Namespace, device: torch.device) -> None:
    """Train until the time is spent or the checkpoint folder holds a file named `stop`."""
    frames = Frames((options.seed, run.step))
    loader = DataLoader(frames, options.batch, num_workers=1, collate_fn=list, prefetch_factor=6)
    source = iter(loader)
    stop = options.checkpoint.with_name("stop")
    next_report_s = run.spent_s + _EVALUATE_EVERY_S
    recent = torch.zeros(3)
    while run.spent_s < options.minutes * 60 and not stop.exists():
        started_s = time.monotonic()
        batch = make_batch(next(source), device)
        parts = train_step(run, batch, rate(run, options.minutes, options.lr))
        recent += parts.cpu() / 50
        run.spent_s += time.monotonic() - started_s
        if run.step % 50 == 0:
            losses = " ".join(f"{part:.3f}" for part in recent.tolist())
            _log(f"step {run.step} images {run.images} spent {run.spent_s:.0f} s loss {losses}")
            recent.zero_()
        if run.step % _CHECKPOINT_EVERY == 0:
            save(run, options.checkpoint)
        if run.spent_s > next_report_s:
            _report(run, 20, 10)
            next_report_s += _EVALUATE_EVERY_S


def main() -> None:
    """Train, export, and say how good it became."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=75)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--checkpoint", type=Path, default=Path("build/train_demo/last.pt"))
    parser.add_argument("--output", type=Path, default=MODEL_PATH)
    options = parser.parse_args()
    options.checkpoint.parent.mkdir(parents=True, exist_ok=True)
    # Importing ultralytics leaves torch with a single thread on a small machine.
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    run = new_run(device, options.lr)
    resume(run, options.checkpoint)
    train(run, options, device)
    save(run, options.checkpoint)
    export(run, options.output)
    _log(f"wrote {options.output.name}: {run.step} steps, {run.images} images")


if __name__ == "__main__":
    main()
