"""The network in OpenVINO, on the CPU: the default where there is no GPU.

A single picture runs on all threads at once, for its latency. A batch is split among streams that
own a part of the threads: cores then need not wait for each other at every layer, which matters
with many of them, and where Redis and the decoders share them.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import DependencyError, SettingsError
from pipeline.exports import onnx_of
from pipeline.runtimes import Floats, ModelSpec, Pixels, in_chunks, join, plain_memory
from pipeline.weights import Kind, read_metadata

try:
    import openvino as ov
    from openvino.preprocess import ColorFormat, PrePostProcessor
except ImportError as error:
    raise DependencyError(f"OpenVINO does not load ({error}): pip install openvino") from error

_HINTS = {"fp16": "f16", "bf16": "bf16"}


def open_runtime(spec: ModelSpec) -> OpenVinoRuntime:
    """Read the network, from the export of a checkpoint if need be, and compile it."""
    return OpenVinoRuntime(spec)


def write_folder(onnx: Path, folder: Path) -> None:
    """Write an ONNX file as an OpenVINO folder, class names beside it as ultralytics does."""
    model = ov.Core().read_model(str(onnx))
    save_folder(model, folder, read_metadata(onnx, Kind.ONNX).labels)


def save_folder(model: Any, folder: Path, labels: Sequence[str]) -> None:
    """Write a network as an OpenVINO folder."""
    folder.mkdir(parents=True, exist_ok=True)
    ov.save_model(model, folder / "model.xml", compress_to_fp16=False)
    text = json.dumps({"task": "detect", "names": dict(enumerate(labels))})  # JSON is YAML
    (folder / "metadata.yaml").write_text(text, encoding="utf-8")


def read_model(path: Path) -> Any:
    """Read a network that takes uint8 (n, h, w, 3) BGR, or is made to.

    Raises:
        SettingsError: it takes no pictures.
        DependencyError: the file cannot be read.
    """
    try:
        return _with_pixels(ov.Core().read_model(str(path)))
    except RuntimeError as error:
        raise DependencyError(f"{path} cannot be read by OpenVINO: {error}") from error


class OpenVinoRuntime:
    """A network run by OpenVINO's CPU plugin."""

    name = "openvino"
    device = "cpu"

    def __init__(self, spec: ModelSpec) -> None:
        weights, path = spec.weights, spec.weights.path
        if weights.kind is Kind.CHECKPOINT:
            path = onnx_of(weights, spec.model_dir)
        self._core = ov.Core()
        able = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if spec.precision in _HINTS and spec.precision.upper() not in able:
            raise SettingsError(
                f"PERCIPIO_PRECISION={spec.precision}: this CPU computes in fp32 all the same"
            )
        self._model = read_model(path)
        kind = weights.kind if weights.kind is Kind.OPENVINO else Kind.ONNX
        self.labels = read_metadata(path, kind).labels
        self.precision = "fp32" if spec.precision == "auto" else spec.precision
        if any(op.get_type_name() == "FakeQuantize" for op in self._model.get_ops()):
            self.precision = "int8"
        self._config = {
            "INFERENCE_PRECISION_HINT": _HINTS.get(self.precision, "f32"),
            "INFERENCE_NUM_THREADS": spec.threads,
            "ENABLE_CPU_PINNING": False,  # several workers pinned alike would queue on one core
        }
        shape = self._model.input(0).get_partial_shape()
        self._batch = shape[0].get_length() if shape[0].is_static else None
        fixed = shape[1].is_static and shape[2].is_static
        self.input_size = (shape[1].get_length(), shape[2].get_length()) if fixed else None
        self.memory = plain_memory
        self._mine = threading.local()
        try:
            self._single = self._compile("LATENCY")
            self._streams = self._compile("THROUGHPUT") if self._batch is None else self._single
        except RuntimeError as error:
            raise DependencyError(f"{path} cannot be compiled by OpenVINO: {error}") from error

    def infer(self, batch: Pixels) -> Floats:
        """Give the network's output for the batch, float32."""
        requests = self._requests()
        if self._batch is not None:
            return in_chunks(requests.infer_single, batch, self._batch)
        if len(batch) == 1:
            return requests.infer_single(batch)
        return requests.infer_side_by_side(batch)

    def _requests(self) -> _Requests:
        """Give the calling thread's own: what one thread asks for does not wait for the other."""
        try:
            requests: _Requests = self._mine.requests
        except AttributeError:
            requests = self._mine.requests = _Requests(self._single, self._streams)
        return requests

    def _compile(self, hint: str) -> Any:
        config = {**self._config, "PERFORMANCE_HINT": hint}
        return self._core.compile_model(self._model, "CPU", config)


class _Requests:
    """A thread's requests over the compiled networks; the streams take up whatever comes first."""

    def __init__(self, single: Any, streams: Any) -> None:
        count = int(streams.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._single = single.create_infer_request()
        self._streams = [streams.create_infer_request() for _ in range(count)]

    def infer_single(self, batch: Pixels) -> Floats:
        """Run a batch on all threads at once."""
        self._single.infer([batch], share_inputs=True)
        return np.asarray(self._single.get_output_tensor(0).data, np.float32)

    def infer_side_by_side(self, batch: Pixels) -> Floats:
        """Run a part of the batch on each stream."""
        parts = np.array_split(batch, min(len(self._streams), len(batch)))
        running = list(zip(self._streams, parts, strict=False))
        for request, part in running:
            request.start_async([part], share_inputs=True)
        for request, _ in running:
            request.wait()
        outputs = [request.get_output_tensor(0).data for request, _ in running]
        return join(outputs, [len(part) for part in parts])


def _with_pixels(model: Any) -> Any:
    """Put the input scaling before a network that wants float planes; ours has it already."""
    wanted = model.input(0)
    shape = wanted.get_partial_shape()
    if len(shape) != 4:
        raise SettingsError(f"the network's input {shape} is no picture")
    if wanted.get_element_type() == ov.Type.u8:
        return model
    prepost = PrePostProcessor(model)
    pixels = prepost.input(0)
    pixels.tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    pixels.tensor().set_color_format(ColorFormat.BGR)
    pixels.model().set_layout(ov.Layout("NCHW"))
    pixels.preprocess().convert_element_type(ov.Type.f32)
    pixels.preprocess().convert_color(ColorFormat.RGB).scale(255.0)
    return prepost.build()
