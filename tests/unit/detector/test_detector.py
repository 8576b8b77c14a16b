"""The detector as a whole, on real weights and pictures."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.checkpoint import _ultralytics
from pipeline.detector import DetectorOptions, YoloDetector, load_detector
from pipeline.errors import EntryError, SettingsError
from pipeline.heads import matches
from pipeline.image import decode, encode_jpeg, letterbox
from pipeline.records import Picture


@pytest.fixture(scope="session")
def detector(real: DetectorOptions) -> YoloDetector:
    """YOLOv9t on OpenVINO."""
    return load_detector(replace(real, device="cpu"))


def frames(path: Path, *numbers: int) -> list[bytes]:
    """Give frames of a video as JPEG."""
    video = cv2.VideoCapture(str(path))
    found = []
    for number in numbers:
        video.set(cv2.CAP_PROP_POS_FRAMES, number)
        done, frame = video.read()
        assert done
        found.append(encode_jpeg(np.asarray(frame, np.uint8)))
    video.release()
    return found


def test_the_bus_and_its_people(detector: YoloDetector, bus: bytes) -> None:
    """The figures that come with the weights: one bus, four people, and how sure it is."""
    (found,) = detector.detect([detector.decode(bus)])

    names = [detector.info.labels[kind] for kind in found.class_id]
    assert names == ["bus", "person", "person", "person", "person"]
    assert found.confidence == pytest.approx([0.96, 0.90, 0.87, 0.86, 0.48], abs=0.006)
    assert (found.xyxy >= 0).all()
    assert (found.xyxy <= [810, 1080, 810, 1080]).all()


def test_a_batch_of_many_shapes_keeps_its_order(
    detector: YoloDetector, bus: bytes, data_dir: Path
) -> None:
    """Frames of two videos and a picture in one call: each gets what it gets alone."""
    cars = frames(data_dir / "media" / "cars.mp4", 0, 120)
    bikes = frames(data_dir / "media" / "bikes.mp4", 60)
    pictures = [detector.decode(data) for data in (cars[0], bus, bikes[0], cars[1], bus)]

    together = detector.detect(pictures)

    for picture, found in zip(pictures, together, strict=True):
        (alone,) = detector.detect([picture])
        assert len(found) == len(alone) > 0
        assert found.class_id.tolist() == alone.class_id.tolist()
        assert found.xyxy == pytest.approx(alone.xyxy, abs=0.05)


def test_nothing_in_nothing_out(detector: YoloDetector) -> None:
    """An empty batch is no error, and an empty picture holds no object."""
    assert detector.detect([]) == []
    (found,) = detector.detect([Picture(np.zeros((1, 3000, 3), np.uint8), 3000, 1)])
    assert len(found) == 0


def test_bad_pictures_are_entry_errors(detector: YoloDetector, bus: bytes) -> None:
    """What does not decode is the entry's fault."""
    for data in (b"", b"text", bus[:5000]):
        with pytest.raises(EntryError):
            detector.decode(data)


def test_a_reduced_decode_finds_the_same(detector: YoloDetector, data_dir: Path) -> None:
    """4K frames decoded at a quarter give the boxes of the full decode, in full pixels."""
    (small,) = frames(data_dir / "media" / "cars.mp4", 20)
    large = encode_jpeg(
        np.asarray(cv2.resize(decode(small).image, (3840, 2160)), np.uint8), quality=95
    )
    reduced = detector.decode(large)

    expected, found = detector.detect([decode(large), reduced])

    strong = expected.confidence > 0.5
    assert reduced.image.shape == (540, 960, 3)
    assert strong.any()
    assert matches(expected, found, 0.9)[strong].all()


def test_only_the_classes_asked_for(tiny: Path, model_dir: Path, bus: bytes) -> None:
    """PERCIPIO_CLASSES and PERCIPIO_LABELS go by name and by place."""
    options = DetectorOptions(
        model=str(tiny), model_dir=model_dir, device="cpu", image_size=320, confidence=0
    )
    renamed = replace(options, labels=("a", "b", "c"), classes=("b",))
    detector = load_detector(renamed)

    (found,) = detector.detect([detector.decode(bus)])

    assert detector.info.labels == ("a", "b", "c")
    assert set(found.class_id.tolist()) == {1}


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"classes": ("disc", "unicorn")}, "PERCIPIO_CLASSES.*unicorn"),
        ({"labels": ("one",)}, "PERCIPIO_LABELS has 1 names"),
        ({"image_size": 100}, "PERCIPIO_IMAGE_SIZE=100"),
        ({"confidence": 1.5}, "PERCIPIO_CONFIDENCE"),
        ({"precision": "fp8"}, "PERCIPIO_PRECISION"),
        ({"sha256": "a" * 64}, "PERCIPIO_MODEL_SHA256"),
    ],
)
def test_wrong_options_are_named(
    tiny: Path, model_dir: Path, wrong: dict[str, Any], name: str
) -> None:
    """Exit 2 with the setting's name, not a stack of torch calls."""
    options = DetectorOptions(model=str(tiny), model_dir=model_dir, device="cpu")

    with pytest.raises(SettingsError, match=name):
        load_detector(replace(options, **wrong))


def test_torch_and_openvino_agree(
    detector: YoloDetector, real: DetectorOptions, data_dir: Path, bus: bytes
) -> None:
    """Box by box on pictures and both videos: same class, IoU 0.9, confidence to a thousandth."""
    torch = load_detector(replace(real, device="cpu", runtime="torch", threads=1))
    images = sorted((data_dir / "coco" / "images").glob("*.jpg"))[:1]
    encoded = [bus, *(path.read_bytes() for path in images)]
    encoded += frames(data_dir / "media" / "cars.mp4", 40)
    encoded += frames(data_dir / "media" / "bikes.mp4", 40)
    pictures = [detector.decode(data) for data in encoded]

    for expected, found in zip(torch.detect(pictures), detector.detect(pictures), strict=True):
        strong = expected.confidence > 0.3
        assert matches(expected, found, 0.9)[strong].all()
        assert found.confidence == pytest.approx(expected.confidence, abs=1e-3)


@pytest.mark.parametrize("size", [(960, 540), (541, 333), (810, 1080), (1920, 1081), (40, 3000)])
def test_the_letterbox_is_ultralytics(size: tuple[int, int]) -> None:
    """Rectangle, rounding and pixels are those of its LetterBox(auto=True, stride=32)."""
    width, height = size
    image = np.random.default_rng(1).integers(0, 255, (height, width, 3), np.uint8)
    box = letterbox(width, height, (640, 640))
    target = np.empty((box.outer_height, box.outer_width, 3), np.uint8)

    box.fill(target, Picture(image, width, height))

    expected = _ultralytics("data.augment").LetterBox((640, 640), auto=True, stride=32)(image=image)
    assert np.array_equal(target, expected)


@pytest.mark.filterwarnings("ignore")
def test_results_are_those_of_ultralytics_predict(
    real: DetectorOptions, data_dir: Path, bus: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same picture, same boxes: only its warm-up, which needs torchvision, is left out."""
    detector = load_detector(replace(real, device="cpu", runtime="torch", threads=1))
    backend = _ultralytics("nn.autobackend").AutoBackend
    monkeypatch.setattr(backend, "warmup", lambda *_, **__: None)
    model = _ultralytics("models").YOLO(real.model)
    pictures = [bus, *frames(data_dir / "media" / "cars.mp4", 20)]

    for data in pictures:
        picture = decode(data)
        (found,) = detector.detect([picture])
        (expected,) = model.predict(
            picture.image, imgsz=640, conf=0.25, iou=0.7, device="cpu", verbose=False
        )
        rows = expected.boxes.data.numpy()
        assert found.xyxy == pytest.approx(rows[:, :4], abs=0.02)
        assert found.confidence == pytest.approx(rows[:, 4], abs=1e-4)
        assert found.class_id.tolist() == rows[:, 5].astype(int).tolist()
    assert "torchvision" not in sys.modules
