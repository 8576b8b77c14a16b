"""The network in PyTorch: fp32 on the CPU, fp16 with channels-last memory on CUDA."""

from __future__ import annotations

import numpy as np
import torch

from pipeline.checkpoint import FromPixels, load_network
from pipeline.errors import SettingsError
from pipeline.runtimes import Floats, ModelSpec, Pixels

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
        self._module = module.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def infer(self, batch: Pixels) -> Floats:
        """Give the raw head output, float32 (n, 4 + classes, anchors); of a GPU the strongest."""
        with torch.inference_mode():
            output = self._module(torch.from_numpy(batch).to(self.device))
            if output.is_cuda:
                output = strongest(output)
            return np.asarray(output.cpu().float().numpy(), np.float32)
