"""`percipio model`: info, export and verify as a user calls them."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.detector import DetectorOptions, load_detector
from pipeline.errors import DependencyError, SettingsError
from pipeline.settings import load_settings
from workers.model import add_arguments, run


def call(capsys: pytest.CaptureFixture[str], model: Path, *words: str) -> tuple[int, Any]:
    """Run the command with `--json` on a model; give its exit code and what it printed."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    settings = load_settings(
        {
            "PERCIPIO_MODEL": str(model),
            "PERCIPIO_MODEL_DIR": str(model.parent),
            "PERCIPIO_DEVICE": "cpu",
            "PERCIPIO_IMAGE_SIZE": "320",
        }
    )
    code = run(parser.parse_args(["--json", *words]), settings)
    return code, json.loads(capsys.readouterr().out)


def test_info_says_what_runs_and_why(capsys: pytest.CaptureFixture[str], tiny: Path) -> None:
    """Name, digest, labels, runtime, and the sentence that explains the choice."""
    code, found = call(capsys, tiny, "info")

    assert code == 0
    assert (found["name"], found["runtime"], found["device"]) == ("tiny", "openvino", "cpu")
    assert found["labels"] == ["disc", "box", "ring"]
    assert found["feeds"] == {
        "vision.objects": ["disc"],
        "vision.people": ["box"],
        "vision.vehicles": ["ring"],
    }
    assert found["why"].startswith("openvino usually the fastest")


@pytest.mark.parametrize("name", ["mine.onnx", "mine_openvino_model"])
def test_an_export_runs_like_its_checkpoint(
    capsys: pytest.CaptureFixture[str], tiny: Path, tmp_path: Path, name: str
) -> None:
    """What export writes is a model that PERCIPIO_MODEL may name."""
    code, found = call(capsys, tiny, "export", str(tmp_path / name))

    assert (code, found) == (0, {"written": str(tmp_path / name)})
    _, info = call(capsys, tmp_path / name, "info")
    assert (info["name"], info["labels"]) == ("mine", ["disc", "box", "ring"])


def test_exports_that_make_no_sense_are_refused(
    capsys: pytest.CaptureFixture[str], tiny: Path, tmp_path: Path
) -> None:
    """An export is not exported again, and a target is a .onnx file or a folder."""
    call(capsys, tiny, "export", str(tmp_path / "a.onnx"))

    with pytest.raises(SettingsError, match="export already"):
        call(capsys, tmp_path / "a.onnx", "export", str(tmp_path / "b.onnx"))
    with pytest.raises(SettingsError, match=r"b\.pt"):
        call(capsys, tiny, "export", str(tmp_path / "b.pt"))
    with pytest.raises(DependencyError, match="cannot be written"):
        call(capsys, tiny, "export", "/proc/nowhere/b.onnx")


def test_verify_compares_the_runtimes(
    capsys: pytest.CaptureFixture[str], tiny: Path, tmp_path: Path, bus: bytes
) -> None:
    """Runtimes that work are compared with the first; one that does not says why."""
    (tmp_path / "bus.jpg").write_bytes(bus)
    (tmp_path / "notes.txt").touch()

    code, found = call(capsys, tiny, "verify", str(tmp_path))

    assert (code, found["pictures"], found["ok"]) == (0, 1, True)
    rows = {row["runtime"]: row for row in found["runtimes"]}
    assert rows["openvino"]["same_boxes"] == rows["onnx"]["same_boxes"] == 1
    assert "PERCIPIO_RUNTIME=tensorrt" in rows["tensorrt"]["problem"]


def test_verify_without_pictures_is_wrong_usage(
    capsys: pytest.CaptureFixture[str], tiny: Path, tmp_path: Path
) -> None:
    """A folder without pictures is told, not compared."""
    with pytest.raises(SettingsError, match="among what was named"):
        call(capsys, tiny, "verify", str(tmp_path))


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(300)
def test_int8_is_calibrated_on_pictures_and_says_what_it_is(
    capsys: pytest.CaptureFixture[str], tiny: Path, tmp_path: Path, bus: bytes
) -> None:
    """The folder runs as any other, in whole numbers, and finds nearly the same scores."""
    (tmp_path / "bus.jpg").write_bytes(bus)
    target = tmp_path / "small_openvino_model"

    _, found = call(capsys, tiny, "export", str(target), "--int8", str(tmp_path / "bus.jpg"))

    assert (found["precision"], found["pictures"]) == ("int8", 1)
    _, info = call(capsys, target, "info")
    assert (info["precision"], info["labels"]) == ("int8", ["disc", "box", "ring"])
    options = DetectorOptions(
        model=str(tiny), model_dir=tiny.parent, device="cpu", image_size=320, confidence=0
    )
    exact, whole = load_detector(options), load_detector(replace(options, model=str(target)))
    (expected,), (found_there,) = (one.detect([one.decode(bus)]) for one in (exact, whole))
    assert found_there.confidence[0] == pytest.approx(expected.confidence[0], rel=0.05)


def test_int8_is_for_openvino(
    capsys: pytest.CaptureFixture[str], tiny: Path, tmp_path: Path
) -> None:
    """A .onnx file is not quantised."""
    with pytest.raises(SettingsError, match="int8 is for OpenVINO"):
        call(capsys, tiny, "export", str(tmp_path / "a.onnx"), "--int8", str(tmp_path))
