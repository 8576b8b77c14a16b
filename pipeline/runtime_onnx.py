"""The network in ONNX Runtime, on the CPU."""

from __future__ import annotations

import threading

import numpy as np

from pipeline.errors import DependencyError, SettingsError
from pipeline.exports import onnx_of
from pipeline.runtimes import Floats, ModelSpec, Pixels, in_chunks, plain_memory, to_planes
from pipeline.weights import Kind, read_metadata

try:
    import onnxruntime as ort
except ImportError as error:
    raise DependencyError(
        f"ONNX Runtime does not load ({error}): pip install 'percipio[onnx]'"
    ) from error

_FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


def open_runtime(spec: ModelSpec) -> OnnxRuntime:
    """Read the network, from the export of a checkpoint if need be."""
    return OnnxRuntime(spec)


class OnnxRuntime:
    """A network run by ONNX Runtime's CPU provider."""

    name = "onnx"
    device = "cpu"
    precision = "fp32"

    def __init__(self, spec: ModelSpec) -> None:
        path = spec.weights.path
        if spec.precision in ("fp16", "bf16"):
            raise SettingsError(
                f"PERCIPIO_PRECISION={spec.precision}: ONNX Runtime computes as the file says"
            )
        if spec.weights.kind is Kind.CHECKPOINT:
            path = onnx_of(spec.weights, spec.model_dir)
        options = ort.SessionOptions()
        options.intra_op_num_threads = spec.threads
        options.log_severity_level = 3
        # Waiting threads would burn the cores that decoding and Redis need.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own types derive from Exception alone
            raise DependencyError(f"{path} cannot be read by ONNX Runtime: {error}") from error
        self.labels = read_metadata(path, Kind.ONNX).labels
        wanted = self._session.get_inputs()[0]
        if len(wanted.shape) != 4:
            raise SettingsError(f"{path}: the network's input {wanted.shape} is no picture")
        self._input = wanted.name
        self._dtype = _FLOATS.get(wanted.type)
        batch, *rest = wanted.shape
        height, width = rest[:2] if self._dtype is None else rest[1:]
        fixed = isinstance(height, int) and isinstance(width, int)
        self.input_size = (height, width) if fixed else None
        self._batch = batch if isinstance(batch, int) else None
        self._turn = threading.Lock()  # two calls at once would each want all threads
        self.memory = plain_memory

    def infer(self, batch: Pixels) -> Floats:
        """Give the network's output for the batch, float32."""
        if self._batch is not None:
            return in_chunks(self._run, batch, self._batch)
        return self._run(batch)

    def _run(self, batch: Pixels) -> Floats:
        given = batch if self._dtype is None else to_planes(batch).astype(self._dtype, copy=False)
        with self._turn:
            (output, *_) = self._session.run(None, {self._input: given})
        return np.asarray(output, np.float32)
