"""Networks to test with: tiny random ones, and the real weights where the data folder is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.checkpoint import _ultralytics
from pipeline.detector import DetectorOptions

# A few layers of YOLOv9's kinds under its head: exported and compiled in a moment.
TINY: dict[str, Any] = {
    "nc": 3,
    "backbone": [
        [-1, 1, "Conv", [8, 3, 2]],
        [-1, 1, "Conv", [16, 3, 2]],
        [-1, 1, "ELAN1", [16, 16, 8]],
        [-1, 1, "AConv", [16]],
        [-1, 1, "AConv", [24]],
        [-1, 1, "SPPELAN", [24, 12]],
    ],
    "head": [[[3, 5], 1, "Detect", ["nc"]]],
}
CHECKOUT = Path(__file__).parents[3]
DATA = Path(os.environ.get("PIPELINE_TEST_DATA") or CHECKOUT.parent / "shared" / "data")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with real weights, pictures and videos."""
    if not (DATA / "weights" / "yolov9t.pt").is_file():
        pytest.skip(f"no test data at {DATA}: set PIPELINE_TEST_DATA to the folder with weights/")
    return DATA


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for exports, shared by the tests of a run."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def tiny(model_dir: Path) -> Path:
    """A small network of three classes with random weights, as ultralytics saves it."""
    path = model_dir / "tiny.pt"
    save(path, network("DetectionModel", TINY))
    return path


@pytest.fixture(scope="session")
def real(data_dir: Path, model_dir: Path) -> DetectorOptions:
    """Options for the real YOLOv9t; its exports go to the session's folder."""
    return DetectorOptions(model=str(data_dir / "weights" / "yolov9t.pt"), model_dir=model_dir)


@pytest.fixture(scope="session")
def bus() -> bytes:
    """A picture with one bus and four people, 810x1080."""
    assets = Path(_ultralytics("utils").ASSETS)
    return (assets / "bus.jpg").read_bytes()


def network(kind: str, config: str | dict[str, Any]) -> Any:
    """Build a network of three classes with random weights."""
    import torch

    torch.manual_seed(5)
    made = getattr(_ultralytics("nn.tasks"), kind)(config, nc=3, verbose=False)
    made.names = {0: "disc", 1: "box", 2: "ring"}
    return made


def save(path: Path, made: Any) -> None:
    """Save a network as ultralytics does."""
    import torch

    torch.save({"model": made.half(), "train_args": {}}, path)
