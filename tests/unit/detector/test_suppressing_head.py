"""An export that suppresses by itself, as the original YOLOv9's `onnx_end2end`, run for real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.checkpoint import load_network
from pipeline.detector import DetectorOptions, load_detector
from pipeline.heads import Thresholds, matches
from pipeline.records import Picture

CLASSES = 3
SIZE_HW = (64, 96)


@pytest.fixture(scope="module")
def exports(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The tiny network with its raw head, and with ONNX's NonMaxSuppression: rows of 7."""
    import torch

    path = tmp_path_factory.mktemp("heads") / "raw.onnx"
    network, planes = load_network(tiny).module, (torch.zeros(1, 3, *SIZE_HW),)
    with pytest.warns(), torch.no_grad():
        torch.onnx.export(network, planes, str(path), dynamo=False)
    model = onnx.load(str(path))
    _suppress(model.graph)
    onnx.save(model, str(path.with_name("end2end.onnx")))
    return path, path.with_name("end2end.onnx")


def _suppress(graph: onnx.GraphProto) -> None:
    """Turn the raw head's output into rows of picture, corners, class and confidence."""
    raw = graph.output[0].name
    constants = {
        "split": np.array([4, CLASSES]),
        "most": np.array([300]),
        "iou": np.array([0.7], np.float32),
        "least": np.array([0.0], np.float32),
        "first": np.array([0]),
        "column": np.array([1]),
        "three": np.ones(3, np.int64),
        "four": np.ones(4, np.int64),
        "half": np.array(0.5, np.float32),
    }
    for name, value in constants.items():
        graph.initializer.append(numpy_helper.from_array(value, name))
    steps: list[tuple[str, list[str], list[str], dict[str, Any]]] = [
        ("Split", [raw, "split"], ["xywh", "scores"], {"axis": 1}),
        ("Transpose", ["xywh"], ["boxes"], {"perm": [0, 2, 1]}),
        (
            "NonMaxSuppression",
            ["boxes", "scores", "most", "iou", "least"],
            ["chosen"],
            {"center_point_box": 1},
        ),
        ("Split", ["chosen", "three"], ["picture", "class", "anchor"], {"axis": 1}),
        ("Squeeze", ["anchor", "column"], ["anchor_1d"], {}),
        ("Squeeze", ["boxes", "first"], ["boxes_2d"], {}),
        ("Gather", ["boxes_2d", "anchor_1d"], ["kept"], {"axis": 0}),
        ("Split", ["kept", "four"], ["x", "y", "w", "h"], {"axis": 1}),
        ("Mul", ["w", "half"], ["half_w"], {}),
        ("Mul", ["h", "half"], ["half_h"], {}),
        ("Sub", ["x", "half_w"], ["x1"], {}),
        ("Sub", ["y", "half_h"], ["y1"], {}),
        ("Add", ["x", "half_w"], ["x2"], {}),
        ("Add", ["y", "half_h"], ["y2"], {}),
        ("Cast", ["picture"], ["picture_f"], {"to": TensorProto.FLOAT}),
        ("Cast", ["class"], ["class_f"], {"to": TensorProto.FLOAT}),
        ("GatherND", ["scores", "chosen"], ["confidence_1d"], {}),
        ("Unsqueeze", ["confidence_1d", "column"], ["confidence"], {}),
        (
            "Concat",
            ["picture_f", "x1", "y1", "x2", "y2", "class_f", "confidence"],
            ["rows"],
            {"axis": 1},
        ),
    ]
    # GatherND wants (picture, class, anchor), the very order that the operator gives.
    for kind, inputs, outputs, attributes in steps:
        graph.node.append(helper.make_node(kind, inputs, outputs, **attributes))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("rows", TensorProto.FLOAT, [None, 7]))


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_it_finds_what_the_raw_head_finds(exports: tuple[Path, Path], runtime: str) -> None:
    """Same boxes, classes and confidences in each of two pictures."""
    raw, suppressing = (
        load_detector(
            DetectorOptions(
                model=str(path),
                model_dir=path.parent,
                device="cpu",
                labels=("disc", "box", "ring"),
                runtime=runtime,
            )
        ).for_evaluation(Thresholds(0, 0.7, every_label=True), square=True)
        for path in exports
    )
    rng = np.random.default_rng(2)
    pictures = [
        Picture(rng.integers(0, 255, (*SIZE_HW, 3), np.uint8), SIZE_HW[1], SIZE_HW[0])
        for _ in range(2)
    ]

    for one, other in zip(raw.detect(pictures), suppressing.detect(pictures), strict=True):
        assert len(one) > 10
        assert other.confidence == pytest.approx(one.confidence, abs=1e-5)
        assert matches(one, other, 0.99).mean() > 0.95  # an overlap of 0.7 falls either way
