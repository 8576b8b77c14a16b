"""The network in PyTorch: fp32 on the CPU, fp16 with channels-last memory on CUDA."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import torch

from pipeline.checkpoint import FromPixels, load_network
from pipeline.errors import SettingsError
from pipeline.log import get_logger
from pipeline.runtimes import Floats, ModelSpec, Pixels, plain_memory

FLOOR = 0.001
"""Confidence at or below which a GPU's host does not hear of an anchor."""


def open_runtime(spec: ModelSpec) -> TorchRuntime:
    """Load a checkpoint onto the device."""
    return TorchRuntime(spec)


def try_cuda(device: str) -> str | None:
    """Run a small convolution on the device; None if its result is right, else what is wrong."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    try:
        ones = torch.ones((1, 1, 8, 8), device=device, dtype=torch.float16)
        total = torch.nn.functional.conv2d(ones, ones).item()
    except Exception as error:  # drivers and kernels fail in every way there is
        return f"torch {torch.__version__}: {str(error).splitlines()[0]}"
    return None if total == 64 else f"{device} computes 8 x 8 = {total}"


def strongest(output: torch.Tensor) -> torch.Tensor:
    """Leave out the anchors that no class gives more than 0.001, the others in their order.

    A raw output is 2.8 MB a picture at 640; what may count as an object is a small part of it, and
    on a GPU the way to the host takes longer than the network. The smallest confidence at which
    nothing is missing is therefore 0.001.

    Args:
        output: (n, 4 + classes, anchors).

    Returns:
        (n, 4 + classes, k), k that of the picture with the most; the others keep some weak ones.
    """
    best = output[:, 4:].amax(1)
    count = max(1, int((best > FLOOR).sum(1).max()))
    index = best.topk(count, dim=1, sorted=False).indices.sort(dim=1).values
    return output.gather(2, index[:, None].expand(-1, output.shape[1], -1))


def gpu_uuid(device: str) -> str:
    """Give the identity of a CUDA device, by which the driver's tools know it."""
    return str(torch.cuda.get_device_properties(device).uuid)


def pinned_memory(size: int) -> Pixels:
    """Give memory from which a GPU copies without a stop in between."""
    return torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()


class TorchRuntime:
    """A checkpoint run by PyTorch itself."""

    name = "torch"
    input_size = None

    def __init__(self, spec: ModelSpec) -> None:
        network = load_network(spec.weights.path)
        on_cuda = spec.device != "cpu"
        self.device = spec.device
        self.precision = spec.precision if spec.precision != "auto" else "fp32"
        if spec.precision == "auto" and on_cuda:
            self.precision = "fp16"
        if self.precision == "bf16":
            raise SettingsError("PERCIPIO_PRECISION=bf16: only OpenVINO computes in it")
        if self.precision == "fp16" and not on_cuda:
            raise SettingsError("PERCIPIO_PRECISION=fp16: torch computes in fp32 on a CPU")
        if not on_cuda:
            torch.set_num_threads(spec.threads)
        self.labels = network.labels
        module = FromPixels(network.module).eval()
        module = module.half() if self.precision == "fp16" else module
        # mypy: torch's stubs know no memory_format of a module
        module = module.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._module = Graphs(module, network.module, self.device) if on_cuda else module
        self._turn = threading.Lock()  # two calls at once would each want the whole device
        self.memory = pinned_memory if on_cuda else plain_memory

    def infer(self, batch: Pixels) -> Floats:
        """Give the raw head output, float32 (n, 4 + classes, anchors); of a GPU the strongest."""
        with self._turn, torch.inference_mode():
            output = self._module(torch.from_numpy(batch))
            if output.is_cuda:
                output = strongest(output)
            return np.asarray(output.float().cpu().numpy(), np.float32)


class Graphs:
    """The network on CUDA as graphs: one launch a batch, where it is hundreds by themselves.

    A graph is for one shape; batches are filled up to the next power of two, so that few are made.
    The first batch of a shape pays for its graph, and beyond `MOST` shapes, or where a graph cannot
    be made, the network runs as it is.

    Args:
        module: pixels to raw output, on the device.
        network: the network in it, whose head keeps the anchors of the last shape.
        device: `cuda:N`.
    """

    MOST = 32

    def __init__(self, module: torch.nn.Module, network: torch.nn.Module, device: str) -> None:
        self._module, self._device = module, torch.device(device)
        self._head: Any = list(network.model)[-1]  # type: ignore[arg-type]
        self._graphs: dict[tuple[int, ...], _Graph | None] = {}
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Run uint8 (n, h, w, 3) from the host; valid until the next call."""
        count = 1 << (len(batch) - 1).bit_length()
        shape = (count, *batch.shape[1:])
        if shape not in self._graphs and len(self._graphs) < self.MOST:
            self._graphs[shape] = self._capture(shape)
        graph = self._graphs.get(shape)
        if graph is None:
            return self._run(batch.to(self._device, non_blocking=True))
        return graph.run(batch)

    def _run(self, pixels: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self._module(pixels)
        return output

    def _capture(self, shape: tuple[int, ...]) -> _Graph | None:
        given = torch.zeros(shape, dtype=torch.uint8, device=self._device)
        side = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(self._device))
        try:
            with torch.cuda.stream(side):
                for _ in range(3):  # choose kernels, make anchors: not to be in the graph
                    self._run(given)
            torch.cuda.current_stream(self._device).wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):
                output = self._run(given)
        except RuntimeError as error:
            why = str(error).splitlines()[0]
            get_logger().warning("no_cuda_graph", shape=shape, error=why)
            return None
        # The graph reads the anchors where they are now, while the head makes others later.
        return _Graph(graph, given, output, (self._head.anchors, self._head.strides))


class _Graph:
    """A captured run over fixed memory."""

    def __init__(
        self,
        graph: torch.cuda.CUDAGraph,
        given: torch.Tensor,
        output: torch.Tensor,
        keep: tuple[torch.Tensor, ...],
    ) -> None:
        self._graph, self._given, self._output, self._keep = graph, given, output, keep

    def run(self, batch: torch.Tensor) -> torch.Tensor:
        self._given[: len(batch)].copy_(batch, non_blocking=True)
        self._graph.replay()
        return self._output[: len(batch)]
