"""What runs the network: one small interface, and the choice of the fastest that works here.

The libraries behind it are loaded by the `runtime_*` modules, each only when it is chosen.
"""

from __future__ import annotations

import ctypes
import importlib
import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DependencyError, SettingsError
from pipeline.weights import Kind, Weights

Pixels = NDArray[np.uint8]
"""uint8 (n, h, w, 3), BGR."""
Floats = NDArray[np.float32]

# Fastest first. Measured with YOLOv9t on CPUs: OpenVINO about 0.6 of torch's time a frame.
_ON_CPU = {
    Kind.CHECKPOINT: ("openvino", "onnx", "torch"),
    Kind.ONNX: ("openvino", "onnx"),
    Kind.OPENVINO: ("openvino",),
    Kind.ENGINE: (),
}
_ON_CUDA = {
    Kind.CHECKPOINT: ("torch",),
    Kind.ONNX: (),
    Kind.OPENVINO: (),
    Kind.ENGINE: ("tensorrt",),
}
_CPU_ONLY = frozenset({"openvino", "onnx"})
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?\Z")
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
NAMES = ("auto", "torch", "openvino", "onnx", "tensorrt")


class Runtime(Protocol):
    """A network ready to run, on one device, called by several threads at a time."""

    name: str
    device: str
    precision: str
    labels: tuple[str, ...]
    input_size: tuple[int, int] | None  # (height, width) of a network of fixed input, else None

    def infer(self, batch: Pixels) -> Floats:
        """Run the network on uint8 (n, h, w, 3) BGR, h and w multiples of the stride.

        Blocks, without the GIL. Gives what `heads.read_output` reads; valid until the same thread's
        next call.
        """
        ...

    @property
    def memory(self) -> Callable[[int], Pixels]:
        """Gives so many bytes, from which a batch reaches the network fastest."""
        ...


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a runtime needs to open a network.

    Attributes:
        weights: the file.
        model_dir: where an export may be kept.
        device: `cpu` or `cuda:N`.
        precision: `auto`, `fp32`, `fp16`, `bf16`.
        threads: CPU threads it may use, at least 1.
    """

    weights: Weights
    model_dir: Path
    device: str
    precision: str
    threads: int


Opener = Callable[[ModelSpec], Runtime]


def open_runtime(
    weights: Weights, *, model_dir: Path, runtime: str, device: str, precision: str, threads: int
) -> tuple[Runtime, str]:
    """Open the network with the runtime asked for, or with the fastest that works.

    Args:
        weights: the file to run.
        model_dir: where an export may be kept.
        runtime: `auto`, `torch`, `openvino`, `onnx` or `tensorrt`.
        device: `auto`, `cpu` or `cuda:N`.
        precision: `auto`, `fp32`, `fp16` or `bf16`.
        threads: CPU threads it may use, at least 1.

    Returns:
        The runtime, and one sentence that tells why this one.

    Raises:
        SettingsError: what was asked for does not go together.
        DependencyError: what was asked for is not there or does not work.
    """
    if runtime not in NAMES:
        raise SettingsError(f"PERCIPIO_RUNTIME={runtime}: expected {', '.join(NAMES)}")
    on_cpu = runtime in _CPU_ONLY or (runtime == "auto" and not _ON_CUDA[weights.kind])
    device, reason = choose_device(device, cpu_only=on_cpu)
    names = _candidates(weights.kind, runtime, device)
    spec = ModelSpec(weights, model_dir, device, precision, threads)
    passed_over = []
    for name in names:
        try:
            opened = _opener(name)(spec)
        except DependencyError as error:
            passed_over.append(f"{name}: {error}")
            continue
        why = "as set" if runtime != "auto" else f"usually the fastest that works on {device}"
        return opened, "; ".join([f"{name} {why}", reason, *passed_over])
    raise DependencyError(f"no runtime works for {weights.path}: {'; '.join(passed_over)}")


def choose_device(device: str, *, cpu_only: bool = False) -> tuple[str, str]:
    """Choose the device, proving CUDA with a real operation on it.

    Returns:
        `cpu` or `cuda:N`, and why.

    Raises:
        SettingsError: the name is none, or CUDA is asked of a runtime that has only the CPU.
        DependencyError: CUDA is asked for by name and does not work.
    """
    if not _DEVICE.match(device):
        raise SettingsError(f"PERCIPIO_DEVICE={device}: expected auto, cpu or cuda:N")
    if device.startswith("cuda") and cpu_only:
        raise SettingsError(f"PERCIPIO_DEVICE={device}: OpenVINO and ONNX Runtime use the CPU only")
    if device == "cpu" or cpu_only:
        return "cpu", "device cpu as set" if device == "cpu" else "device cpu is all it uses"
    name = "cuda:0" if device in {"auto", "cuda"} else device
    problem = _no_driver() or importlib.import_module("pipeline.runtime_torch").try_cuda(name)
    if problem is None:
        return name, f"device {name} answers"
    if device != "auto":
        raise DependencyError(f"PERCIPIO_DEVICE={device} does not work: {problem}")
    return "cpu", f"no CUDA: {problem}"


def available_cores(quota_file: Path = CPU_QUOTA) -> int:
    """Count the cores that this process may use: those it may run on, and a container's share.

    Args:
        quota_file: cgroup v2's `cpu.max`: microseconds (or `max`) of a period of microseconds.
    """
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    try:
        quota, period = quota_file.read_text().split()
    except (OSError, ValueError):
        return cores  # no cgroup v2 here
    return cores if quota == "max" else max(1, min(cores, math.ceil(int(quota) / int(period))))


def plain_memory(size: int) -> Pixels:
    """Give memory for a network on the CPU."""
    return np.empty(size, np.uint8)


def in_chunks(run: Callable[[Pixels], Floats], batch: Pixels, size: int) -> Floats:
    """Run a network of fixed batch size on any number of pictures, the last chunk padded."""
    outputs, counts = [], []
    for start in range(0, len(batch), size):
        chunk = batch[start : start + size]
        counts.append(len(chunk))
        padding = np.repeat(chunk[-1:], size - len(chunk), axis=0)
        outputs.append(run(np.concatenate([chunk, padding])).copy())
    return join(outputs, counts)


def join(outputs: Sequence[Floats], counts: Sequence[int]) -> Floats:
    """Put the outputs of parts of a batch together, without the padding behind `counts`.

    A flat output (k, 7) numbers the pictures of its own part, so its numbers are moved on.
    """
    if outputs[0].ndim != 2:
        return np.concatenate([one[:count] for one, count in zip(outputs, counts, strict=True)])
    parts, start = [], 0
    for one, count in zip(outputs, counts, strict=True):
        part = one[one[:, 0] < count]
        part[:, 0] += start
        parts.append(part)
        start += count
    return np.concatenate(parts)


def to_planes(batch: Pixels) -> Floats:
    """Turn uint8 (n, h, w, 3) BGR into (n, 3, h, w) RGB from 0 to 1, for networks that want it."""
    planes: Floats = np.ascontiguousarray(batch[..., ::-1].transpose(0, 3, 1, 2), np.float32)
    planes /= np.float32(255)
    return planes


def _candidates(kind: Kind, runtime: str, device: str) -> tuple[str, ...]:
    able = _ON_CPU[kind] if device == "cpu" else _ON_CUDA[kind]
    names = able if runtime == "auto" else tuple(name for name in able if name == runtime)
    if not names:
        raise SettingsError(
            f"PERCIPIO_RUNTIME={runtime} cannot run a model of kind {kind} on {device}"
            f" (on cpu: {', '.join(_ON_CPU[kind]) or 'none'};"
            f" on cuda: {', '.join(_ON_CUDA[kind]) or 'none'})"
        )
    return names


def _opener(name: str) -> Opener:
    opener: Opener = importlib.import_module(f"pipeline.runtime_{name}").open_runtime
    return opener


def _no_driver() -> str | None:
    """Tell cheaply that there is no GPU: importing torch only to learn it costs seconds."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        count = ctypes.c_int(0)
        failed = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    except (OSError, AttributeError):
        return "no NVIDIA driver (libcuda.so.1 does not load)"
    return "the NVIDIA driver shows no device" if failed or count.value < 1 else None
