"""Which file the detector runs: found by name or path, identified by its digest, checked first.

Weights are code in disguise: the digest is compared before anything of the file is interpreted,
and checkpoints are read with torch's restricted unpickler (see `checkpoint`).
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from pipeline.errors import DependencyError, SettingsError

NAMES = ("yolov9t", "yolov9s", "yolov9m", "yolov9c", "yolov9e")
_CHUNK_BYTES = 1 << 20
_MAX_ENGINE_HEADER_BYTES = 1 << 20


class Kind(StrEnum):
    """What a weights file is, told by its name."""

    CHECKPOINT = "checkpoint"
    ONNX = "onnx"
    OPENVINO = "openvino"
    ENGINE = "engine"


_SUFFIXES = {".pt": Kind.CHECKPOINT, ".onnx": Kind.ONNX, ".engine": Kind.ENGINE}


@dataclass(frozen=True, slots=True)
class Weights:
    """A weights file (for OpenVINO the .xml beside its .bin).

    Attributes:
        path: where it lies.
        name: its short name, for people.
        kind: how it is to be read.
        sha256: 64 hex digits over its bytes (OpenVINO: over .xml then .bin).
    """

    path: Path
    name: str
    kind: Kind
    sha256: str

    @property
    def digest12(self) -> str:
        """Give the first 12 digits of the digest, which name exports and results."""
        return self.sha256[:12]


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a model file says about itself; empty where it says nothing."""

    labels: tuple[str, ...] = ()
    task: str = ""


def find_weights(model: str, model_dir: Path, sha256: str | None = None) -> Weights:
    """Find the file for a model name or path; a name that is not there is fetched.

    Raises:
        SettingsError: the file is no model, or its digest is not `sha256`.
        DependencyError: there is no such file and it cannot be fetched.
    """
    path = _locate(model, model_dir)
    kind = Kind.OPENVINO if path.suffix == ".xml" else _SUFFIXES.get(path.suffix)
    if kind is None:
        raise SettingsError(
            f"PERCIPIO_MODEL={model}: expected one of {' '.join(NAMES)}, a .pt, .onnx or .engine"
            " file, or an OpenVINO folder"
        )
    digest = _digest(path)
    if sha256 is not None and digest != sha256.lower():
        raise SettingsError(
            f"{path} has SHA-256 {digest}, PERCIPIO_MODEL_SHA256 wants {sha256.lower()}: not loaded"
        )
    stem = path.parent.name.removesuffix("_openvino_model") if kind is Kind.OPENVINO else path.stem
    return Weights(path, stem, kind, digest)


def read_metadata(path: Path, kind: Kind) -> Metadata:
    """Read class names and task from an exported model, as ultralytics and `percipio` write them.

    Raises:
        SettingsError: it says that it is no detection model.
        DependencyError: the file does not read as what its name says.
    """
    readers = {
        Kind.ONNX: _onnx_metadata,
        Kind.OPENVINO: _openvino_metadata,
        Kind.ENGINE: _engine_metadata,
    }
    try:
        found = readers[kind](path)
        metadata = Metadata(labels_of(found.get("names", ())), str(found.get("task", "")))
    except (OSError, ValueError, SyntaxError) as error:
        raise DependencyError(f"{path} cannot be read: {error}") from error
    if metadata.task not in {"", "detect"}:
        raise not_a_detector(path, metadata.task)
    return metadata


def not_a_detector(path: Path, task: str) -> SettingsError:
    """Give the error for a model that does something else than find boxes."""
    return SettingsError(
        f"{path} is a {task} model; percipio needs one that detects boxes: use the weights without"
        " -seg, -pose, -cls or -obb in their name"
    )


def engine_offset(path: Path) -> tuple[int, dict[str, Any]]:
    """Give where the engine proper starts in a .engine file, and the JSON that ultralytics put."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(4), "little")
        if not 2 <= length <= _MAX_ENGINE_HEADER_BYTES:
            return 0, {}
        try:
            found = json.loads(file.read(length))
        except ValueError:
            return 0, {}
    return 4 + length, found if isinstance(found, dict) else {}


def labels_of(names: object) -> tuple[str, ...]:
    """Turn class names (a list, a map from index, or either as Python text) into a tuple."""
    if isinstance(names, str):
        names = ast.literal_eval(names)
    if isinstance(names, Mapping):
        by_index = {int(index): str(name) for index, name in names.items()}
        return tuple(
            by_index.get(index, str(index)) for index in range(max(by_index, default=-1) + 1)
        )
    if isinstance(names, list | tuple):
        return tuple(str(name) for name in names)
    return ()


def _locate(model: str, model_dir: Path) -> Path:
    if model in NAMES:
        path = model_dir / f"{model}.pt"
        return path if path.is_file() else _fetch(model, path)
    path = Path(model).expanduser()
    if path.is_dir():
        found = sorted(path.glob("*.xml"))
        if len(found) != 1 or not found[0].with_suffix(".bin").is_file():
            raise SettingsError(f"{path} is no OpenVINO folder: expected one .xml with its .bin")
        return found[0]
    if path.is_file():
        return path
    if "/" not in model and "." not in model:
        raise SettingsError(f"PERCIPIO_MODEL={model}: expected {' '.join(NAMES)}, or a path")
    raise DependencyError(f"PERCIPIO_MODEL={model}: no such file or folder")


def _fetch(name: str, path: Path) -> Path:
    """Fetch `name` through ultralytics, which loads only now: only this way needs it."""
    try:
        importlib.import_module("pipeline.checkpoint").fetch(name, path)
    except (OSError, DependencyError) as error:
        raise DependencyError(
            f"the weights of {name} are not at {path} and cannot be fetched ({error}). Either put"
            f" {name}.pt into {path.parent} (PERCIPIO_MODEL_DIR), or name a file with"
            f" PERCIPIO_MODEL=/path/to/weights.pt, or start once with access to github.com"
        ) from error
    return path


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    for part in [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]:
        with part.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


def _onnx_metadata(path: Path) -> Mapping[str, Any]:
    onnx = importlib.import_module("onnx")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's DecodeError derives from Exception alone
        raise ValueError(f"not an ONNX file ({error})") from error
    return {prop.key: prop.value for prop in model.metadata_props}


def _openvino_metadata(path: Path) -> Mapping[str, Any]:
    beside = path.with_name("metadata.yaml")
    if not beside.is_file():
        return {}
    yaml = importlib.import_module("yaml")
    try:
        found = yaml.safe_load(beside.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{beside.name}: {error}") from error
    return found if isinstance(found, Mapping) else {}


def _engine_metadata(path: Path) -> Mapping[str, Any]:
    return engine_offset(path)[1]
