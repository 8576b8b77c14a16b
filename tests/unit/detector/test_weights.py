"""Which file is run: found, identified, and refused before anything of it is interpreted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline import checkpoint
from pipeline.checkpoint import load_network
from pipeline.errors import DependencyError, SettingsError
from pipeline.weights import Kind, engine_offset, find_weights, labels_of, read_metadata
from tests.unit.detector.conftest import network, save


def test_a_name_is_looked_up_in_the_model_folder(tmp_path: Path) -> None:
    """PERCIPIO_MODEL=yolov9s reads yolov9s.pt of PERCIPIO_MODEL_DIR."""
    (tmp_path / "yolov9s.pt").write_bytes(b"weights")

    weights = find_weights("yolov9s", tmp_path)

    assert weights.path == tmp_path / "yolov9s.pt"
    assert (weights.name, weights.kind) == ("yolov9s", Kind.CHECKPOINT)
    assert weights.digest12 == hashlib.sha256(b"weights").hexdigest()[:12]


def test_a_missing_file_tells_the_three_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without network and file, the message says where to put it, how to name it, or to fetch."""

    def no_network(name: str, path: Path) -> None:
        raise DependencyError("no route to host")

    monkeypatch.setattr(checkpoint, "fetch", no_network)

    with pytest.raises(DependencyError) as caught:
        find_weights("yolov9t", tmp_path)

    for word in (str(tmp_path), "PERCIPIO_MODEL_DIR", "PERCIPIO_MODEL=/path", "github.com"):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("yolov8n", SettingsError),
        ("/nowhere/x.pt", DependencyError),
        ("picture.jpg", SettingsError),
    ],
)
def test_what_is_no_model_is_refused(tmp_path: Path, model: str, error: type[Exception]) -> None:
    """A misspelt name is a wrong setting; a path that is not there may come back."""
    (tmp_path / "picture.jpg").write_bytes(b"x")
    path = str(tmp_path / model) if model.endswith("jpg") else model

    with pytest.raises(error, match="PERCIPIO_MODEL"):
        find_weights(path, tmp_path)


class Hostile:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


def test_another_digest_is_refused_before_reading(tmp_path: Path) -> None:
    """PERCIPIO_MODEL_SHA256 is compared before anything of the file is interpreted."""
    path = tmp_path / "mine.pt"
    path.write_bytes(b"not even a checkpoint")

    with pytest.raises(SettingsError, match="PERCIPIO_MODEL_SHA256"):
        find_weights(str(path), tmp_path, "0" * 64)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert find_weights(str(path), tmp_path, digest.upper()).sha256 == digest


def test_a_hostile_checkpoint_is_refused_not_run(tmp_path: Path) -> None:
    """Unpickling builds known network classes and nothing else."""
    torch.save({"model": Hostile(tmp_path / "touched")}, tmp_path / "evil.pt")

    with pytest.raises(SettingsError, match="cannot be loaded"):
        load_network(tmp_path / "evil.pt")

    assert not (tmp_path / "touched").exists()


def test_original_repository_weights_are_told_how_to_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its classes live in that repository, so the way is its own ONNX export."""
    foreign = type("DetectionModel", (torch.nn.Module,), {"__module__": "models.yolo"})
    import sys
    import types

    module = types.ModuleType("models.yolo")
    module.DetectionModel = foreign  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "models", types.ModuleType("models"))
    monkeypatch.setitem(sys.modules, "models.yolo", module)
    torch.save({"model": foreign()}, tmp_path / "yolov9-c.pt")
    monkeypatch.undo()

    with pytest.raises(SettingsError, match=r"export\.py --weights yolov9-c\.pt") as caught:
        load_network(tmp_path / "yolov9-c.pt")

    assert "PERCIPIO_LABELS" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "word"),
    [(b"", "no PyTorch checkpoint"), (b"\x80\x02}q\0.", "checkpoint"), (b"PK\3\4", "checkpoint")],
)
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, content: bytes, word: str) -> None:
    """Empty, foreign and cut files end in one readable line."""
    (tmp_path / "bad.pt").write_bytes(content)

    with pytest.raises(SettingsError, match=word):
        load_network(tmp_path / "bad.pt")


def test_a_cut_checkpoint_is_refused(tmp_path: Path, tiny: Path) -> None:
    """A download that broke off is no checkpoint."""
    (tmp_path / "cut.pt").write_bytes(tiny.read_bytes()[:-5000])

    with pytest.raises(SettingsError, match=r"cut\.pt"):
        load_network(tmp_path / "cut.pt")


def test_a_segmentation_model_is_refused(tmp_path: Path) -> None:
    """Its output would be read as boxes of many more classes."""
    save(tmp_path / "seg.pt", network("SegmentationModel", "yolov8n-seg.yaml"))

    with pytest.raises(SettingsError, match="segment model"):
        load_network(tmp_path / "seg.pt")


def test_a_bare_state_dict_is_refused(tmp_path: Path) -> None:
    """Numbers without a network cannot be run."""
    torch.save({"model": {"weight": torch.zeros(3)}}, tmp_path / "state.pt")

    with pytest.raises(SettingsError, match=r"cannot be loaded|no network"):
        load_network(tmp_path / "state.pt")


@pytest.mark.parametrize("task", ["segment", "pose", "obb", "classify"])
def test_exports_of_other_tasks_are_refused(tmp_path: Path, task: str) -> None:
    """An export says in its metadata what it is for."""
    (tmp_path / "metadata.yaml").write_text(f"task: {task}\nnames: {{0: a}}\n")

    with pytest.raises(SettingsError, match=f"{task} model"):
        read_metadata(tmp_path / "model.xml", Kind.OPENVINO)


def test_names_of_an_openvino_folder(tmp_path: Path) -> None:
    """Names come from the file that ultralytics puts beside the model, or there are none."""
    assert read_metadata(tmp_path / "model.xml", Kind.OPENVINO).labels == ()

    (tmp_path / "metadata.yaml").write_text("task: detect\nnames:\n  0: car\n  1: person\n")

    assert read_metadata(tmp_path / "model.xml", Kind.OPENVINO).labels == ("car", "person")


def test_an_engine_file_starts_with_its_metadata(tmp_path: Path) -> None:
    """Ultralytics puts a length and JSON before the engine; a bare engine has none."""
    header = json.dumps({"names": {"0": "car"}, "task": "detect"}).encode()
    path = tmp_path / "m.engine"
    path.write_bytes(len(header).to_bytes(4, "little") + header + b"engine")
    (tmp_path / "bare.engine").write_bytes(b"ftrt" + bytes(100))

    assert path.read_bytes()[engine_offset(path)[0] :] == b"engine"
    assert read_metadata(path, Kind.ENGINE).labels == ("car",)
    assert engine_offset(tmp_path / "bare.engine") == (0, {})


@given(st.lists(st.text(min_size=1), max_size=8))
def test_names_are_read_in_every_form(names: list[str]) -> None:
    """A list, a map by index, by text index, or their Python text: the same names."""
    by_index = dict(enumerate(names))

    assert labels_of(names) == labels_of(by_index) == tuple(names)
    assert labels_of(str(by_index)) == tuple(names)
    assert labels_of({str(key): name for key, name in by_index.items()}) == tuple(names)
