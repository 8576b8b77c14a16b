"""Runtimes: the choice, the exports they share, and that all of them compute the same."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest

from pipeline import checkpoint
from pipeline.checkpoint import load_network
from pipeline.errors import DependencyError, SettingsError
from pipeline.exports import export_name, onnx_of
from pipeline.heads import Thresholds, read_output
from pipeline.runtimes import (
    ModelSpec,
    Runtime,
    _opener,
    available_cores,
    choose_device,
    in_chunks,
    join,
    open_runtime,
)
from pipeline.weights import Kind, Weights, find_weights


def spec_of(path: Path, model_dir: Path) -> ModelSpec:
    return ModelSpec(find_weights(str(path), model_dir), model_dir, "cpu", "auto", 1)


def a_batch(
    count: int, height: int = 64, width: int = 96
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(3).integers(0, 255, (count, height, width, 3), np.uint8)


@pytest.fixture(scope="session")
def runtimes(tiny: Path, model_dir: Path) -> dict[str, Runtime]:
    """The runtimes of a CPU over one tiny network."""
    spec = spec_of(tiny, model_dir)
    return {name: _opener(name)(spec) for name in ("torch", "openvino", "onnx")}


@pytest.mark.parametrize("name", ["openvino", "onnx"])
@pytest.mark.parametrize("shape", [(1, 64, 96), (3, 96, 64), (20, 64, 64)])
def test_runtimes_compute_the_same(
    runtimes: dict[str, Runtime], name: str, shape: tuple[int, int, int]
) -> None:
    """For any number and size of pictures the raw output is torch's, and so are the names."""
    batch = a_batch(*shape)

    expected = runtimes["torch"].infer(batch)
    for _ in range(3):  # sizes that keep coming are compiled for themselves
        found = runtimes[name].infer(batch)

    assert found.shape == expected.shape
    assert found.dtype == np.float32
    assert found == pytest.approx(expected, abs=2e-3)
    assert runtimes[name].labels == runtimes["torch"].labels == ("disc", "box", "ring")


@pytest.mark.parametrize("name", ["torch", "openvino", "onnx"])
def test_two_threads_at_once_get_what_each_gets_alone(
    runtimes: dict[str, Runtime], name: str
) -> None:
    """What one thread was given is not overwritten by the other's call."""
    batches = [a_batch(1, 64, 96), a_batch(3, 64, 96) // 2, a_batch(4, 96, 64), a_batch(2, 64, 64)]
    alone = [runtimes[name].infer(batch).copy() for batch in batches]
    barrier = Barrier(2, timeout=60)

    def call(thread: int) -> list[bool]:
        right = []
        for turn in range(12):
            index = (turn + thread) % len(batches)
            found = runtimes[name].infer(batches[index])
            barrier.wait()  # by now the other has its own result
            right.append(bool(np.allclose(found, alone[index], atol=2e-3)))
        return right

    with ThreadPoolExecutor(2) as threads:
        assert all(all(right) for right in threads.map(call, range(2)))


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", 8), ("150000 100000", 2), ("20000 100000", 1), ("3200000 100000", 8), ("", 8)],
)
def test_a_containers_share_bounds_the_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, cores: int
) -> None:
    """A container with two cores' time on a host of 64 must not start 64 threads."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    (tmp_path / "cpu.max").write_text(quota)

    assert available_cores(tmp_path / "cpu.max") == cores
    assert available_cores(tmp_path / "none") == 8


def test_auto_takes_openvino_on_a_cpu_and_says_why(tiny: Path, model_dir: Path) -> None:
    """The choice is a sentence for the log: which, and why not the others."""
    weights = find_weights(str(tiny), model_dir)

    runtime, why = open_runtime(
        weights, model_dir=model_dir, runtime="auto", device="cpu", precision="auto", threads=1
    )

    assert runtime.name == "openvino"
    assert why == "openvino usually the fastest that works on cpu; device cpu as set"


@pytest.mark.parametrize(
    ("kind", "runtime", "device"),
    [
        (Kind.ONNX, "torch", "cpu"),
        (Kind.OPENVINO, "onnx", "cpu"),
        (Kind.ENGINE, "auto", "cpu"),
        (Kind.CHECKPOINT, "openvino", "cuda:0"),
        (Kind.CHECKPOINT, "tensorrt", "cpu"),
        (Kind.CHECKPOINT, "caffe", "cpu"),
        (Kind.CHECKPOINT, "torch", "gpu"),
    ],
)
def test_what_does_not_go_together_is_refused(kind: Kind, runtime: str, device: str) -> None:
    """A combination that cannot run names the setting and what could."""
    weights = Weights(Path("m"), "m", kind, "0" * 64)

    with pytest.raises(SettingsError, match=r"PERCIPIO_(RUNTIME|DEVICE)="):
        open_runtime(
            weights,
            model_dir=Path(),
            runtime=runtime,
            device=device,
            precision="auto",
            threads=1,
        )


def test_auto_falls_back_to_the_cpu_and_says_why() -> None:
    """CUDA is used where an operation on it gives the right number, and nowhere else."""
    device, why = choose_device("auto")

    if device == "cpu":
        assert why.startswith("no CUDA: ")
        with pytest.raises(DependencyError, match="PERCIPIO_DEVICE=cuda:0 does not work"):
            choose_device("cuda:0")
    else:
        assert why == f"device {device} answers"


def test_a_network_of_fixed_batch_takes_any_number() -> None:
    """The last chunk is padded, and the padding's results are cut off."""
    seen = []

    def run(
        chunk: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        seen.append(len(chunk))
        return chunk[:, :1, :1, 0].astype(np.float32)

    batch = a_batch(5)

    assert in_chunks(run, batch, 2).tolist() == batch[:, :1, :1, 0].tolist()
    assert seen == [2, 2, 2]


def test_flat_outputs_are_joined_by_picture() -> None:
    """A part numbers its own pictures from 0; rows of padding go."""
    first = np.array([[0, 1, 2, 3, 4, 0, 0.9], [1, 1, 2, 3, 4, 0, 0.8]], np.float32)
    second = np.array([[0, 5, 6, 7, 8, 0, 0.7], [1, 5, 6, 7, 8, 0, 0.6]], np.float32)

    found = join([first, second], [2, 1])

    assert found[:, 0].tolist() == [0, 1, 2]
    assert found[2, 1:5].tolist() == [5, 6, 7, 8]


def test_workers_that_start_together_make_one_export(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One exports, the others wait for it and read the same file."""
    made = []
    write = checkpoint.write_onnx

    def counted(network: checkpoint.Network, path: Path) -> None:
        made.append(path)
        write(network, path)

    monkeypatch.setattr(checkpoint, "write_onnx", counted)
    weights = find_weights(str(tiny), tmp_path)

    with ThreadPoolExecutor(3) as pool:
        paths = set(pool.map(lambda _: onnx_of(weights, tmp_path), range(3)))

    assert paths == {tmp_path / export_name(weights)}
    assert len(made) == 1
    assert not list(tmp_path.glob(".export-*"))


def test_a_read_only_model_folder_is_left_alone(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exports then go to the user's cache, for root too."""
    folder, home = tmp_path / "models", tmp_path / "home"
    folder.mkdir(mode=0o555)
    monkeypatch.setenv("HOME", str(home))
    weights = find_weights(str(tiny), folder)

    path = onnx_of(weights, folder)

    assert path.parent == home / ".cache" / "percipio"
    assert list(folder.iterdir()) == []
    assert onnx_of(weights, folder) == path


def test_no_folder_to_write_is_told(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the setting that helps."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))

    with pytest.raises(DependencyError, match="PERCIPIO_MODEL_DIR"):
        onnx_of(find_weights(str(tiny), tmp_path), tmp_path / "file")


def test_exported_files_run_by_themselves(tiny: Path, tmp_path: Path, model_dir: Path) -> None:
    """A user's own .onnx and OpenVINO folder run, with their names, like the checkpoint."""
    from pipeline.runtime_openvino import write_folder

    onnx = onnx_of(find_weights(str(tiny), model_dir), model_dir)
    write_folder(onnx, tmp_path / "mine_openvino_model")
    batch = a_batch(2)
    expected = _opener("onnx")(spec_of(onnx, model_dir)).infer(batch)

    folder = _opener("openvino")(spec_of(tmp_path / "mine_openvino_model", model_dir))

    assert folder.labels == ("disc", "box", "ring")
    assert folder.infer(batch) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("name", ["openvino", "onnx"])
def test_float_planes_of_fixed_size(tiny: Path, tmp_path: Path, model_dir: Path, name: str) -> None:
    """An export of ultralytics' kind (float RGB planes, one size, one picture) gives the same."""
    import torch

    network = load_network(tiny)
    path = tmp_path / "planes.onnx"
    with pytest.warns(), torch.no_grad():
        torch.onnx.export(network.module, (torch.zeros(1, 3, 64, 96),), str(path), dynamo=False)
    batch = a_batch(3)
    expected = _opener("torch")(spec_of(tiny, model_dir)).infer(batch)

    runtime = _opener(name)(spec_of(path, model_dir))

    assert runtime.input_size == (64, 96)
    assert runtime.infer(batch) == pytest.approx(expected, abs=2e-3)


def test_an_unreadable_export_is_told(tmp_path: Path) -> None:
    """A damaged file is a missing dependency, not a crash."""
    (tmp_path / "bad.onnx").write_bytes(b"\x08\x07garbage")

    for name in ("openvino", "onnx"):
        with pytest.raises(DependencyError, match=r"bad\.onnx"):
            _opener(name)(spec_of(tmp_path / "bad.onnx", tmp_path))


def test_tensorrt_that_is_missing_is_explained() -> None:
    """Where TensorRT is not installed, the message says what to install."""
    try:
        import tensorrt  # noqa: F401
    except ImportError:
        with pytest.raises(DependencyError, match="pip install tensorrt"):
            _opener("tensorrt")


QUIET = """
import os, sys
from pathlib import Path
from threading import Barrier
import pipeline.image  # OpenCV adds to LD_LIBRARY_PATH
before = dict(os.environ)
from pipeline.checkpoint import load_network
load_network(Path(sys.argv[1]))
assert dict(os.environ) == before, set(os.environ.items()) ^ set(before.items())

"""


def test_ultralytics_is_kept_quiet(tiny: Path, tmp_path: Path) -> None:
    """Loading prints nothing, leaves no settings behind and changes no environment variable."""
    home = tmp_path / "home"
    home.mkdir()
    environ = {**os.environ, "HOME": str(home)}
    environ.pop("XDG_CONFIG_HOME", None)

    done = subprocess.run(
        [sys.executable, "-c", QUIET, str(tiny)],
        env=environ,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(home.rglob("*")) == []


FROM_EXPORT = """
import sys
from pathlib import Path
from threading import Barrier
from pipeline.detector import DetectorOptions, load_detector
folder = Path(sys.argv[1])
detector = load_detector(DetectorOptions(model=str(folder / "tiny.pt"), model_dir=folder,
                                         device="cpu", image_size=64))
detector.warm_up()
print(sorted({"torch", "ultralytics"} & set(sys.modules)))
"""


def test_with_an_export_torch_is_not_loaded(runtimes: dict[str, Runtime], model_dir: Path) -> None:
    """A worker on OpenVINO starts without torch's seconds and memory once the export is there."""
    assert runtimes["openvino"].labels

    done = subprocess.run(
        [sys.executable, "-c", FROM_EXPORT, str(model_dir)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_half_is_refused_where_it_would_be_fp32(
    tiny: Path, model_dir: Path, precision: str
) -> None:
    """A shorter number is refused where the CPU would compute in fp32 all the same."""
    spec = replace(spec_of(tiny, model_dir), precision=precision)
    openvino = importlib.import_module("openvino")
    able = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")

    is_there = precision.upper() in able
    for name in ("torch", "onnx", *(() if is_there else ("openvino",))):
        with pytest.raises(SettingsError, match=f"PERCIPIO_PRECISION={precision}"):
            _opener(name)(spec)
    if is_there:
        assert _opener("openvino")(spec).precision == precision


@pytest.mark.parametrize("kind", ["crowded", "empty", "mixed"])
def test_what_a_gpu_sends_to_the_host_holds_every_object(kind: str) -> None:
    """The strongest anchors give the very detections that all of them give."""
    torch = pytest.importorskip("torch")
    from pipeline.runtime_torch import strongest

    rng = np.random.default_rng(9)
    output = rng.uniform(0, 0.001, (3, 4 + 5, 700)).astype(np.float32)
    output[:, :4] = rng.uniform(10, 300, (3, 4, 700))
    if kind != "empty":
        strong = rng.uniform(0, 1, (3, 5, 700)) ** 4
        strong[2 if kind == "mixed" else 3 :] = 0.0005
        output[:, 4:] = np.where(rng.uniform(size=(3, 1, 700)) < 0.4, strong, output[:, 4:])
        output[:, 4, 100:110] = output[:, 4, 100:101]  # equals keep their order
    fewer = strongest(torch.from_numpy(output)).numpy()

    assert fewer.shape[2] < 400
    for every_label in (False, True):
        thresholds = Thresholds(0.001, 0.7, every_label=every_label)
        expected, found = (list(read_output(x, 3, 5, thresholds)) for x in (output, fewer))
        for one, other in zip(expected, found, strict=True):
            np.testing.assert_array_equal(one.xyxy, other.xyxy)
            np.testing.assert_array_equal(one.confidence, other.confidence)
            np.testing.assert_array_equal(one.class_id, other.class_id)
