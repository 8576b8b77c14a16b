"""YOLOv9 checkpoints: fetched, loaded and exported to ONNX. Home of ultralytics.

Ultralytics sits in a quiet room: it writes no settings, installs nothing, counts no users and
prints nothing. Checkpoints are unpickled with `weights_only`, known network classes and nothing
else, so a hostile file is refused rather than run.
"""

from __future__ import annotations

import importlib
import logging
import os
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from pipeline.errors import DependencyError, SettingsError
from pipeline.weights import labels_of, not_a_detector

ONNX_OPSET = 17
_import_lock = threading.Lock()
_QUIET = {
    "YOLO_OFFLINE": "true",
    "YOLO_AUTOINSTALL": "false",
    "YOLO_VERBOSE": "false",
}
# ultralytics sets these when it loads, for training; here they would leak to every child process
_LEAKED = ("OMP_NUM_THREADS", "NUMEXPR_MAX_THREADS", "YOLO_CONFIG_DIR", *_QUIET)


@dataclass(frozen=True, slots=True)
class Network:
    """A loaded detection network, fp32, in eval mode, batch normalisation folded in."""

    module: nn.Module
    labels: tuple[str, ...]


class FromPixels(nn.Module):
    """A network behind its input scaling: uint8 (n, h, w, 3) BGR in, raw head output out.

    The pixels travel as bytes, a quarter of what floats take, and are scaled where it is cheapest.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Give float (n, 4 + classes, anchors): centre x, y, width, height, class scores."""
        dtype = next(self.network.parameters()).dtype
        planes = pixels.permute(0, 3, 1, 2).flip(1).to(dtype) * (1 / 255)
        return cast("torch.Tensor", self.network(planes))


def load_network(path: Path) -> Network:
    """Load a checkpoint that ultralytics wrote.

    Raises:
        SettingsError: the file is something else; the message says what, and what would help.
    """
    checkpoint = _unpickle(path)
    module = checkpoint.get("ema") or checkpoint.get("model")
    if not isinstance(module, nn.Module):
        raise SettingsError(f"{path} holds no network (a bare state dict?): export it to ONNX")
    _require_detection(path, module)
    module = module.float()
    fused = cast("Any", module).fuse(verbose=False).eval()
    for parameter in fused.parameters():
        parameter.requires_grad_(requires_grad=False)
    head = fused.model[-1]
    # The head gives the decoded tensor alone, with anchors made anew when the size changes.
    head.export, head.dynamic, head.format = True, False, "onnx"
    return Network(fused, labels_of(fused.names))


def write_onnx(network: Network, path: Path) -> None:
    """Export for any batch size and any picture size; class names go into the metadata.

    Raises:
        DependencyError: the `onnx` package is missing.
    """
    try:
        onnx = importlib.import_module("onnx")
    except ImportError as error:
        raise DependencyError(f"an export needs the onnx package ({error})") from error
    example = torch.zeros((1, 64, 96, 3), dtype=torch.uint8)
    cast("Any", network.module).model[-1].dynamic = True  # the export takes every input size
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer notes every shape that it keeps dynamic
        torch.onnx.export(
            FromPixels(network.module).eval(),
            (example,),
            str(path),
            dynamo=False,
            opset_version=ONNX_OPSET,
            input_names=["pixels"],
            output_names=["objects"],
            dynamic_axes={"pixels": {0: "n", 1: "h", 2: "w"}, "objects": {0: "n", 2: "anchors"}},
        )
    model = onnx.load(str(path))
    for key, value in (("names", dict(enumerate(network.labels))), ("task", "detect")):
        prop = model.metadata_props.add()
        prop.key, prop.value = key, str(value)
    onnx.save(model, str(path))


def fetch(name: str, path: Path) -> None:
    """Fetch released weights to `path`, whole or not at all.

    Raises:
        DependencyError: no network, or no such file there.
        OSError: the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".fetch-") as folder:
        part = Path(folder) / f"{name}.pt"
        try:
            _ultralytics("utils.downloads").attempt_download_asset(
                str(part), progress=False, retry=0
            )
        except Exception as error:  # requests, urllib3 and its own: a dozen types
            raise DependencyError(f"{name}.pt: {error}") from error
        if not part.is_file():
            raise DependencyError(f"{name}.pt is not among the released weights")
        part.replace(path)


def _unpickle(path: Path) -> dict[str, Any]:
    try:
        foreign = [
            name
            for name in torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
            if name.split(".")[0] == "models"
        ]
    except Exception as error:  # torch and pickle raise many types on a file that is none
        raise SettingsError(f"{path} is no PyTorch checkpoint: {error}") from error
    if foreign:
        raise SettingsError(
            f"{path} comes from the original YOLOv9 (or YOLOv5, YOLOv7) repository, whose classes"
            f" ({foreign[0]}) live only there. Export it there with `python export.py --weights"
            f" {path.name} --include onnx --dynamic` (weights with an auxiliary branch:"
            " reparameterise them first), then set PERCIPIO_MODEL to the .onnx file and"
            " PERCIPIO_LABELS to its class names"
        )
    try:
        found, _ = _ultralytics("nn.tasks").torch_safe_load(str(path), safe_only=True)
    except Exception as error:  # TypeError, ModuleNotFoundError, pickle and torch types
        raise SettingsError(f"{path} cannot be loaded by ultralytics: {error}") from error
    return cast("dict[str, Any]", found)


def _require_detection(path: Path, module: nn.Module) -> None:
    head = type(list(cast("Any", module).model)[-1]).__name__
    if head not in {"Detect", "v10Detect"}:
        raise not_a_detector(path, getattr(module, "task", None) or head.lower())


def _ultralytics(module: str) -> Any:
    """Import a module of ultralytics, the first time in a quiet room."""
    with _import_lock, _quiet_room():
        return importlib.import_module(f"ultralytics.{module}")


@contextmanager
def _quiet_room() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _LEAKED}
    with tempfile.TemporaryDirectory(prefix="percipio-ultralytics-") as folder:
        os.environ.update(_QUIET, YOLO_CONFIG_DIR=folder)
        try:
            yield
            logging.getLogger("ultralytics").handlers.clear()
            logging.getLogger("ultralytics").setLevel(logging.ERROR)
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
