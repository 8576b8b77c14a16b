"""The bare network on a GPU: how fast it is with and without copies, and what would hide them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

from pipeline.checkpoint import FromPixels, load_network
from pipeline.runtimes import Pixels, Runtime, open_runtime
from pipeline.weights import find_weights

CLASSES = 80
WARM = 3


@dataclass(frozen=True)
class NetworkRow:
    """Images a second of one network, precision and batch size, and what each way adds.

    Attributes:
        infer: the pipeline's runtime: pixels to the device, network, objects back.
        resident: the network alone, pixels on the device already.
        graph: the same, replayed as a CUDA graph; None where there is no CUDA, or it fails.
        overlap: copies of the next batch while this one computes, from pinned memory; None
            where there is no CUDA.
        call_ms: median of one call of `infer`.
    """

    model: str
    precision: str
    batch: int
    infer: float
    resident: float
    graph: float | None
    overlap: float | None
    call_ms: float


def make_weights(name: str, folder: Path) -> Path:
    """Write a YOLOv9 of random weights as a checkpoint: right for speed, for nothing else."""
    from ultralytics.nn.tasks import DetectionModel

    path = folder / f"{name}.pt"
    if not path.exists():
        torch.manual_seed(0)
        model = DetectionModel(f"{name}.yaml", nc=CLASSES, verbose=False)
        model.names = {number: f"class {number}" for number in range(CLASSES)}
        torch.save({"model": model.half(), "train_args": {}}, path)
    return path


def open_network(path: Path, device: str, precision: str, threads: int) -> Runtime:
    """Open a checkpoint with torch, as a worker does."""
    runtime, _ = open_runtime(
        find_weights(str(path), path.parent),
        model_dir=path.parent,
        runtime="torch",
        device=device,
        precision=precision,
        threads=threads,
    )
    return runtime


def measure(
    path: Path, device: str, precision: str, batches: list[int], shape: tuple[int, int], **how: Any
) -> Iterator[NetworkRow]:
    """Measure a network at every batch size.

    Args:
        path: a checkpoint.
        device: `cpu` or `cuda:N`.
        precision: `fp32`, `fp16`.
        batches: pictures a call.
        shape: (height, width) of the network's input.
        how: `seconds` for each figure, `threads` of the CPU.
    """
    runtime = open_network(path, device, precision, how["threads"])
    module = FromPixels(load_network(path).module).eval()
    module = module.half() if precision == "fp16" else module
    # mypy: torch's stubs know no memory_format of a module
    module = module.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for batch in batches:
        pixels = np.random.default_rng(batch).integers(0, 256, (batch, *shape, 3), dtype=np.uint8)
        seconds = how["seconds"]
        calls = timed(lambda pixels=pixels: runtime.infer(pixels), seconds)  # type: ignore[misc]
        yield NetworkRow(
            path.stem,
            precision,
            batch,
            infer=batch / median(calls),
            resident=resident(module, pixels, device, seconds),
            graph=graph(module, pixels, device, seconds),
            overlap=overlap(module, pixels, device, seconds),
            call_ms=median(calls) * 1e3,
        )


def timed(call: Callable[[], object], seconds: float) -> list[float]:
    """Give the time of each call, after a few that do not count; at least three."""
    for _ in range(WARM):
        call()
    spent: list[float] = []
    while len(spent) < 3 or sum(spent) < seconds:
        began_s = time.perf_counter()
        call()
        spent.append(time.perf_counter() - began_s)
    return spent


def resident(module: nn.Module, pixels: Pixels, device: str, seconds: float) -> float:
    """Give images a second of the network alone, pixels on the device already."""
    given = torch.from_numpy(pixels).to(device)

    def call() -> None:
        module(given)
        _finish(device)

    with torch.inference_mode():
        return len(pixels) / median(timed(call, seconds))


def graph(module: nn.Module, pixels: Pixels, device: str, seconds: float) -> float | None:
    """Give images a second of the network as a CUDA graph."""
    if device == "cpu":
        return None
    given = torch.from_numpy(pixels).to(device)
    try:
        with torch.inference_mode():
            side = torch.cuda.Stream(device)
            with torch.cuda.stream(side):
                for _ in range(WARM):
                    module(given)
            torch.cuda.synchronize(device)
            captured = torch.cuda.CUDAGraph()
            with torch.cuda.graph(captured):
                module(given)
    except RuntimeError as error:
        why = str(error).splitlines()[0]
        print(f"no CUDA graph of batch {len(pixels)}: {why}", file=sys.stderr)
        return None

    def call() -> None:
        captured.replay()
        _finish(device)

    return len(pixels) / median(timed(call, seconds))


def overlap(module: nn.Module, pixels: Pixels, device: str, seconds: float) -> float | None:
    """Give images a second when a batch is copied while the one before it computes."""
    if device == "cpu":
        return None
    pair = Pair(module, pixels, device)
    spent = timed(lambda: pair.run(4), seconds)
    return 4 * len(pixels) / median(spent)


class Pair:
    """Two buffers on each side, and a stream for copies beside the one that computes."""

    def __init__(self, module: nn.Module, pixels: Pixels, device: str) -> None:
        self._module, self._device = module, device
        self._host = [torch.from_numpy(pixels).pin_memory() for _ in range(2)]
        self._given = [torch.empty_like(one, device=device) for one in self._host]
        with torch.inference_mode():
            output = module(self._given[0])
        self._taken = [torch.empty(output.shape, dtype=output.dtype).pin_memory() for _ in range(2)]
        self._copies = torch.cuda.Stream(device)
        self._arrived = [torch.cuda.Event() for _ in range(2)]
        self._used = [torch.cuda.Event() for _ in range(2)]

    def run(self, batches: int) -> None:
        """Run so many batches and wait for the last result."""
        computing = torch.cuda.current_stream(self._device)
        with torch.inference_mode():
            for number in range(batches):
                side = number % 2
                with torch.cuda.stream(self._copies):
                    self._copies.wait_event(self._used[side])
                    self._given[side].copy_(self._host[side], non_blocking=True)
                    self._arrived[side].record(self._copies)
                computing.wait_event(self._arrived[side])
                output = self._module(self._given[side])
                self._used[side].record(computing)
                self._taken[side].copy_(output, non_blocking=True)
        torch.cuda.synchronize(self._device)


def _finish(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)
