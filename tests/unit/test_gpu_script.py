"""The GPU script where there is no GPU: it says so, and what can run on a CPU does."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import gpu
from benchmarks.gpu_network import NetworkRow, make_weights, measure
from pipeline import runtimes
from pipeline.errors import DependencyError


@pytest.fixture
def _no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "_no_driver", lambda: "no NVIDIA driver")


@pytest.mark.usefixtures("_no_driver")
def test_without_cuda_it_ends_with_3_and_says_what_to_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert gpu.main([]) == DependencyError.exit_code

    said = capsys.readouterr().err
    assert "cuda:0 does not work: no NVIDIA driver" in said
    assert "--device cpu" in said


@pytest.mark.parametrize(
    "wrong", [["--parts", "network,more"], ["--models", "t,x"], ["--batches", "1,0"]]
)
def test_what_it_does_not_know_is_refused(
    wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        gpu.parse(wrong)

    assert ended.value.code == 2
    assert wrong[1].split(",")[1] in capsys.readouterr().err


def test_it_measures_everything_unless_told_otherwise() -> None:
    args = gpu.parse([])

    assert args.models == list("tsmce")
    assert args.batches == [1, 2, 4, 8, 16, 32, 64]
    assert args.parts == ["selection", "network", "path"]


@pytest.mark.usefixtures("_no_driver")
def test_selection_is_proven_on_a_cpu_too() -> None:
    checks = gpu.prove_selection("cpu")

    assert [check for check in checks if not check.is_right] == []
    assert len(checks) >= 6


@pytest.mark.usefixtures("_no_driver")
def test_a_wrong_selection_is_told() -> None:
    """On a machine whose GPU is not taken the script must not pass."""
    wrong = [check.case for check in gpu.prove_selection("cuda:0") if not check.is_right]

    assert wrong == ["auto", "asked by name"]


def test_a_table_shows_what_was_not_measured() -> None:
    row = NetworkRow("yolov9t", "fp32", 4, 1234.56, 8.765, None, None, 0.5)

    lines = gpu.table([row]).splitlines()

    assert lines[0].startswith("| model | precision | batch | infer |")
    assert lines[2] == "| yolov9t | fp32 | 4 | 1235 | 8.77 | - | - | 0.50 |"


@pytest.mark.timeout(180)  # loads torch and ultralytics
def test_the_network_is_measured_by_the_code_that_a_gpu_runs(tmp_path: Path) -> None:
    path = make_weights("yolov9t", tmp_path)

    (row,) = measure(path, "cpu", "fp32", [2], (32, 64), seconds=0.0, threads=1)

    assert (row.model, row.precision, row.batch) == ("yolov9t", "fp32", 2)
    assert row.infer > 0
    assert row.infer == pytest.approx(2e3 / row.call_ms)
    assert row.resident > 0
    assert (row.graph, row.overlap) == (None, None)
