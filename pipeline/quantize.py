"""A network in 8-bit integers for OpenVINO, calibrated on pictures. Home of nncf.

Worth it where the CPU multiplies bytes (VNNI, AMX): elsewhere it is no faster than fp32. Accuracy
is lost, how much depends on the network and the pictures; so nobody gets it without asking.
"""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import DependencyError
from pipeline.image import decode, letterbox
from pipeline.runtime_openvino import read_model, save_folder
from pipeline.runtimes import Pixels

_LAYER = re.compile(r"^(.*/model\.)(\d+)/")


def write_int8(
    onnx: Path, folder: Path, pictures: Sequence[bytes], image_size: int, labels: Sequence[str]
) -> None:
    """Quantise an ONNX export to an OpenVINO folder; blocks for minutes.

    Convolutions become int8. What turns the head's numbers into boxes stays in fp32: 8 bits cannot
    tell pixels apart.

    Args:
        onnx: export of a checkpoint, any picture size.
        folder: where to write.
        pictures: encoded; a hundred or more of what the network will see.
        image_size: longer side that the network sees, pixels.
        labels: class names.

    Raises:
        DependencyError: nncf is missing.
        EntryError: a picture does not decode.
    """
    try:
        nncf: Any = importlib.import_module("nncf")
    except ImportError as error:
        raise DependencyError(f"int8 needs nncf ({error}): pip install 'percipio[int8]'") from error
    logging.getLogger("nncf").setLevel(logging.ERROR)
    model = read_model(onnx)
    patterns = [f"{head}/(dfl/.*|[^/]*)" for head in _head(model)]
    batches = [_batch(data, image_size) for data in pictures]
    quantized = nncf.quantize(
        model,
        nncf.Dataset(batches),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(batches),
        ignored_scope=nncf.IgnoredScope(patterns=patterns, validate=False),
    )
    save_folder(quantized, folder, labels)


def _head(model: Any) -> list[str]:
    """Give how the names in the head begin: the last of the network's layers; none if unknown."""
    found = {
        (int(match[2]), match[1])
        for operation in model.get_ops()
        if (match := _LAYER.match(operation.get_friendly_name()))
    }
    return [re.escape(f"{prefix}{layer}") for layer, prefix in sorted(found)[-1:]]


def _batch(data: bytes, image_size: int) -> Pixels:
    picture = decode(data, image_size)
    box = letterbox(picture.width, picture.height, (image_size, image_size))
    batch = np.empty((1, box.outer_height, box.outer_width, 3), np.uint8)
    box.fill(batch[0], picture)
    return batch
