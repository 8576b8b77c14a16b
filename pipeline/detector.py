"""YOLOv9 from encoded pictures to objects: decode, letterbox, infer, suppress, scale back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline import image
from pipeline.errors import SettingsError
from pipeline.heads import Thresholds, read_output
from pipeline.image import Letterbox
from pipeline.records import Detections, Picture
from pipeline.runtimes import Pixels, Runtime, available_cores, open_runtime
from pipeline.weights import Weights, find_weights

STRIDE = 32
PRECISIONS = ("auto", "fp32", "fp16", "bf16")
_CPU_BATCH, _CUDA_BATCH = 4, 32


@dataclass(frozen=True, slots=True)
class DetectorOptions:
    """What to detect with, and how.

    Attributes:
        model: `yolov9t s m c e`, or a path to .pt, .onnx, .engine or an OpenVINO folder.
        model_dir: where weights and exports are kept.
        sha256: refuse weights with another digest.
        labels: class names, for a model that carries none; empty for the model's own.
        classes: names to keep; empty for all.
        device: `auto`, `cpu`, `cuda:N`.
        runtime: `auto`, `torch`, `openvino`, `onnx`, `tensorrt`.
        image_size: longer side that the network sees, pixels, a multiple of 32.
        confidence: objects at or below are dropped.
        iou: overlap above which the weaker of two objects of a class is dropped.
        threads: CPU threads of the network, 0 for the cores there are.
        precision: `auto` (fp32 on a CPU, fp16 on CUDA), `fp32`, `fp16`, `bf16`.
    """

    model: str = "yolov9t"
    model_dir: Path = Path.home() / ".cache" / "percipio"
    sha256: str | None = None
    labels: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    device: str = "auto"
    runtime: str = "auto"
    image_size: int = 640
    confidence: float = 0.25
    iou: float = 0.7
    threads: int = 0
    precision: str = "auto"


@dataclass(frozen=True, slots=True)
class DetectorInfo:
    """What runs: for results, logs and `percipio model info`.

    Attributes:
        name: of the weights.
        digest12: first 12 hex digits of their SHA-256.
        labels: class names by id.
        runtime: what runs the network.
        device: `cpu` or `cuda:N`.
        precision: it computes in.
        threads: CPU threads it uses.
        batch_size: pictures a call that suit the device.
        why: why this runtime and this device.
    """

    name: str
    digest12: str
    labels: tuple[str, ...]
    runtime: str
    device: str
    precision: str
    threads: int
    batch_size: int
    why: str


class YoloDetector:
    """A loaded network; `decode` may run in any thread, `detect` in several.

    While one's pictures are in the network the others scale theirs and read results.
    """

    def __init__(
        self, runtime: Runtime, info: DetectorInfo, thresholds: Thresholds, image_size: int
    ) -> None:
        self.info = info
        self._runtime = runtime
        self._thresholds = thresholds
        self._outer = runtime.input_size or (image_size, image_size)
        self._stride = STRIDE if runtime.input_size is None else None
        self._spare: list[Pixels] = []

    def for_evaluation(self, thresholds: Thresholds, *, square: bool) -> YoloDetector:
        """Give a detector over the same network that counts other things as objects.

        Args:
            thresholds: instead of its own.
            square: pad to a square, not to the smallest rectangle.
        """
        other = YoloDetector(self._runtime, self.info, thresholds, max(self._outer))
        other._stride = None if square else self._stride
        return other

    def decode(self, data: bytes) -> Picture:
        """Decode an encoded picture as finely as the network needs.

        Raises:
            EntryError: it is too large or does not decode.
        """
        return image.decode(data, max(self._outer))

    def detect(self, pictures: Sequence[Picture]) -> list[Detections]:
        """Find the objects of every picture, in their order, boxes in pixels of the full frames.

        Blocks while the network runs, most of it without the GIL.
        """
        groups: defaultdict[tuple[int, int], list[tuple[int, Letterbox]]] = defaultdict(list)
        for index, picture in enumerate(pictures):
            box = image.letterbox(picture.width, picture.height, self._outer, self._stride)
            groups[box.outer_height, box.outer_width].append((index, box))
        found: dict[int, Detections] = {}
        for size, members in groups.items():
            found.update(self._detect_group(size, members, pictures))
        return [found[index] for index in range(len(pictures))]

    def warm_up(self) -> None:
        """Run empty pictures of the commonest shape, so that no batch is slower for being first."""
        frame = Picture(np.zeros((540, 960, 3), np.uint8), 960, 540)
        count = 1
        while count < self.info.batch_size:
            self.detect([frame] * count)
            count *= 2
        self.detect([frame] * self.info.batch_size)

    def _detect_group(
        self,
        size: tuple[int, int],
        members: list[tuple[int, Letterbox]],
        pictures: Sequence[Picture],
    ) -> Iterator[tuple[int, Detections]]:
        needed = len(members) * size[0] * size[1] * 3
        memory = self._take_memory(needed)
        batch = memory[:needed].reshape(len(members), *size, 3)
        for row, (index, box) in zip(batch, members, strict=True):
            box.fill(row, pictures[index])
        output = self._runtime.infer(batch)
        self._spare.append(memory)
        objects = read_output(output, len(members), len(self.info.labels), self._thresholds)
        for (index, box), one in zip(members, objects, strict=True):
            xyxy = box.to_frame(one.xyxy, pictures[index])
            yield index, Detections(xyxy, one.confidence, one.class_id)

    def _take_memory(self, needed: int) -> Pixels:
        """Give memory that no other call uses; what is too small is let go."""
        with suppress(IndexError):
            while len(memory := self._spare.pop()) < needed:
                pass
            return memory
        return self._runtime.memory(needed)


def load_detector(options: DetectorOptions) -> YoloDetector:
    """Find the weights, open them with the best runtime, and check that it all fits together.

    Blocks for seconds. Exports are made on first use and kept.

    Raises:
        SettingsError: an option is wrong, or the model is none that detects.
        DependencyError: weights or a library are away.
    """
    _check(options)
    threads = options.threads or available_cores()
    weights = find_weights(options.model, options.model_dir, options.sha256)
    runtime, why = open_runtime(
        weights,
        model_dir=options.model_dir,
        runtime=options.runtime,
        device=options.device,
        precision=options.precision,
        threads=threads,
    )
    labels = _labels(weights, runtime.labels, options.labels)
    thresholds = Thresholds(options.confidence, options.iou, _class_ids(options.classes, labels))
    info = DetectorInfo(
        name=weights.name,
        digest12=weights.digest12,
        labels=labels,
        runtime=runtime.name,
        device=runtime.device,
        precision=runtime.precision,
        threads=threads,
        batch_size=max(_CPU_BATCH, min(threads, 16)) if runtime.device == "cpu" else _CUDA_BATCH,
        why=why,
    )
    return YoloDetector(runtime, info, thresholds, options.image_size)


def _check(options: DetectorOptions) -> None:
    if options.image_size < STRIDE or options.image_size % STRIDE:
        raise SettingsError(f"PERCIPIO_IMAGE_SIZE={options.image_size}: a multiple of {STRIDE}")
    for name in ("confidence", "iou"):
        value = getattr(options, name)
        if not 0 <= value <= 1:
            raise SettingsError(f"PERCIPIO_{name.upper()}={value}: 0 to 1")
    if options.precision not in PRECISIONS:
        text = f"expected {', '.join(PRECISIONS)}"
        raise SettingsError(f"PERCIPIO_PRECISION={options.precision}: {text}")


def _labels(weights: Weights, own: tuple[str, ...], given: tuple[str, ...]) -> tuple[str, ...]:
    if given and own and len(given) != len(own):
        raise SettingsError(
            f"PERCIPIO_LABELS has {len(given)} names, {weights.path} knows {len(own)} classes"
        )
    if not given and not own:
        raise SettingsError(
            f"{weights.path} carries no class names: give them with PERCIPIO_LABELS"
        )
    return given or own


def _class_ids(names: tuple[str, ...], labels: tuple[str, ...]) -> tuple[int, ...] | None:
    unknown = [name for name in names if name not in labels]
    if unknown:
        raise SettingsError(
            f"PERCIPIO_CLASSES: the model knows no {', '.join(unknown)} (it knows"
            f" {', '.join(labels)})"
        )
    return tuple(labels.index(name) for name in names) or None
