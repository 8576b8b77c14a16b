"""The network in TensorRT, from a .engine file built for this GPU; memory and streams by torch."""

from __future__ import annotations

import threading
from typing import Any

import torch

from pipeline.errors import DependencyError, SettingsError
from pipeline.runtimes import Floats, ModelSpec, Pixels, in_chunks, join
from pipeline.weights import Kind, engine_offset, read_metadata

try:
    import tensorrt as trt
except ImportError as error:
    raise DependencyError(
        f"TensorRT does not load ({error}): pip install tensorrt, in the version that built the"
        " engine, on a machine with an NVIDIA driver"
    ) from error


def open_runtime(spec: ModelSpec) -> TensorRtRuntime:
    """Read the engine onto the GPU."""
    return TensorRtRuntime(spec)


class TensorRtRuntime:
    """An engine run by TensorRT. It computes in the precision that it was built with."""

    name = "tensorrt"
    precision = "as built"

    def __init__(self, spec: ModelSpec) -> None:
        path = spec.weights.path
        self.device = spec.device
        self.labels = read_metadata(path, Kind.ENGINE).labels
        torch.cuda.set_device(self.device)
        engine = _deserialize(path.read_bytes()[engine_offset(path)[0] :])
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        if len(inputs) != 1 or len(names) < 2:
            raise SettingsError(f"{path} has tensors {', '.join(names)}: no detection network")
        self._input, self._outputs = inputs[0], [name for name in names if name not in inputs]
        self._dtype = {name: _torch_type(engine.get_tensor_dtype(name)) for name in names}
        self._most = int(engine.get_tensor_profile_shape(self._input, 0)[2][0])
        shape = tuple(engine.get_tensor_shape(self._input))
        self._is_pixels = self._dtype[self._input] == torch.uint8
        size = shape[1:3] if self._is_pixels else shape[2:4]
        self._fixed_batch = shape[0] if shape[0] > 0 else None
        self.input_size = None if min(size) < 0 else (int(size[0]), int(size[1]))
        self._context = engine.create_execution_context()
        self.memory = _pinned_memory
        self._turn = threading.Lock()
        self._stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

    def infer(self, batch: Pixels) -> Floats:
        """Give the network's output for the batch, float32, in chunks the engine can take."""
        if self._fixed_batch is not None:
            return in_chunks(self._run, batch, self._fixed_batch)
        starts = range(0, len(batch), self._most)
        parts = [batch[start : start + self._most] for start in starts]
        return join([self._run(part) for part in parts], [len(part) for part in parts])

    def _run(self, batch: Pixels) -> Floats:
        with self._turn, torch.inference_mode(), torch.cuda.stream(self._stream):
            given = torch.from_numpy(batch).to(self.device, non_blocking=True)
            if not self._is_pixels:
                planes = given.permute(0, 3, 1, 2).flip(1).to(self._dtype[self._input]) / 255
                given = planes.contiguous()
            if not self._context.set_input_shape(self._input, tuple(given.shape)):
                raise SettingsError(f"the engine was not built for an input {tuple(given.shape)}")
            self._context.set_tensor_address(self._input, given.data_ptr())
            results = []
            for name in self._outputs:
                shape = tuple(self._context.get_tensor_shape(name))
                results.append(torch.empty(shape, dtype=self._dtype[name], device=self.device))
                self._context.set_tensor_address(name, results[-1].data_ptr())
            if not self._context.execute_async_v3(self._stream.cuda_stream):
                raise RuntimeError("TensorRT did not run the engine")
            output: Floats = results[0].float().cpu().numpy()
        return output


def _pinned_memory(size: int) -> Pixels:
    return torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()


def _deserialize(data: bytes) -> Any:
    engine = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(data)
    if engine is None:
        raise DependencyError(
            f"TensorRT {trt.__version__} cannot read the engine: it was built by another version"
            " or for another GPU; build it again here"
        )
    return engine


def _torch_type(kind: Any) -> torch.dtype:
    return {
        trt.DataType.FLOAT: torch.float32,
        trt.DataType.HALF: torch.float16,
        trt.DataType.UINT8: torch.uint8,
        trt.DataType.INT32: torch.int32,
    }[kind]
