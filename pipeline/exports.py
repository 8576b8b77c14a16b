"""Exports of checkpoints: made once, kept beside the weights, shared by every worker.

The name holds all that an export depends on, so a stale one is never read; it appears whole or
not at all, and of workers that start together one makes it while the others wait.
"""

from __future__ import annotations

import fcntl
import importlib
import importlib.metadata
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import DependencyError
from pipeline.weights import Weights

_ANY_WRITE = 0o222


def onnx_of(weights: Weights, model_dir: Path) -> Path:
    """Give the ONNX export of a checkpoint, fp32, any batch and picture size; make it if need be.

    Blocks for seconds while it is made, here or by another process.

    Raises:
        SettingsError: the checkpoint cannot be loaded.
        DependencyError: no folder can be written, or the exporter is missing.
    """
    name = export_name(weights)
    folders = (model_dir, Path.home() / ".cache" / "percipio")
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    folder = _writable(folders)
    with _locked(folder / f".{name}.lock"):
        if not (folder / name).is_file():
            _export(weights, folder / name)
    return folder / name


def export_name(weights: Weights) -> str:
    """Name the export: model, digest, exporter with its version, sizes and precision."""
    torch = importlib.metadata.version("torch").split("+")[0]
    return f"{weights.name}-{weights.digest12}-torch{torch}-anysize-fp32.onnx"


def _export(weights: Weights, target: Path) -> None:
    checkpoint = importlib.import_module("pipeline.checkpoint")
    network = checkpoint.load_network(weights.path)
    handle, part = tempfile.mkstemp(dir=target.parent, prefix=".export-", suffix=".onnx")
    os.close(handle)
    try:
        checkpoint.write_onnx(network, Path(part))
        Path(part).chmod(0o644)
        Path(part).replace(target)
    finally:
        Path(part).unlink(missing_ok=True)


def _writable(folders: tuple[Path, ...]) -> Path:
    problems = []
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if folder.stat().st_mode & _ANY_WRITE:  # root could write all the same, and should not
                with tempfile.TemporaryFile(dir=folder):
                    return folder
            problems.append(f"{folder}: read-only")
        except OSError as error:
            problems.append(f"{folder}: {error.strerror}")
    raise DependencyError(
        f"no folder to keep the exported model in ({'; '.join(problems)}):"
        " set PERCIPIO_MODEL_DIR to one that can be written"
    )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    # The lock is the kernel's: a maker that is killed leaves none behind.
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
