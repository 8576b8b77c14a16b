"""What a frame feeds: the vision channels and class buckets of a model's labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.records import Detections
from pipeline.scoring.channels import VISION

PEOPLE, VEHICLES, ANIMALS, OBJECTS = 0, 2, 3, 4
"""Vision channels that hold the summed confidence of a kind of object, indices into VISION."""
_ROUND = (OBJECTS, PEOPLE, VEHICLES, ANIMALS)
BUCKETS = 16
"""Of object classes, for the class surprise."""

_SUPERCATEGORIES: tuple[tuple[int, str], ...] = (
    (PEOPLE, "person"),
    (VEHICLES, "bicycle,car,motorcycle,airplane,bus,train,truck,boat"),
    (OBJECTS, "traffic light,fire hydrant,stop sign,parking meter,bench"),
    (ANIMALS, "bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe"),
    (OBJECTS, "backpack,umbrella,handbag,tie,suitcase"),
    (
        OBJECTS,
        "frisbee,skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,"
        "tennis racket",
    ),
    (OBJECTS, "bottle,wine glass,cup,fork,knife,spoon,bowl"),
    (
        OBJECTS,
        "banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake",
    ),
    (OBJECTS, "chair,couch,potted plant,bed,dining table,toilet"),
    (OBJECTS, "tv,laptop,mouse,remote,keyboard,cell phone"),
    (OBJECTS, "microwave,oven,toaster,sink,refrigerator"),
    (OBJECTS, "book,clock,vase,scissors,teddy bear,hair drier,toothbrush"),
)
_COCO = {
    label: (channel, bucket)
    for bucket, (channel, labels) in enumerate(_SUPERCATEGORIES)
    for label in labels.split(",")
}


class LabelPlace(NamedTuple):
    """Where a label counts.

    Attributes:
        channel: index into VISION of its mass channel.
        bucket: 0 to 15, its class for the class surprise.
    """

    channel: int
    bucket: int


def place_of(label: str, class_id: int) -> LabelPlace:
    """Place one label of a model.

    COCO's 80 labels go by supercategory: person to people, vehicle to vehicles, animal to
    animals, the other nine to objects; the twelve supercategories are class buckets 0 to 11.
    Any other label goes by its class id round objects, people, vehicles, animals, and round all
    16 class buckets, so that a label's place does not depend on which others a frame shows.
    """
    if place := _COCO.get(label.lower()):
        return LabelPlace(*place)
    return LabelPlace(_ROUND[class_id % len(_ROUND)], class_id % BUCKETS)


def vision_channel_of(labels: Sequence[str]) -> list[LabelPlace]:
    """Place a model's labels, in the order of their class ids; see `place_of`."""
    return [place_of(label, class_id) for class_id, label in enumerate(labels)]


@dataclass(frozen=True, slots=True)
class FrameValues:
    """What one frame feeds.

    Attributes:
        values: the eight channels of VISION, NaN what was not measured; class surprise is left 0,
            the engine computes it.
        classes: class bucket -> objects.
    """

    values: tuple[float, ...]
    classes: dict[int, int]


class VisionChannels:
    """Turns the detections of one model into the values of the vision channels."""

    def __init__(self, labels: Mapping[int, str]) -> None:
        """Place the labels known so far, by class id; a model's others may be missing."""
        places = {class_id: place_of(label, class_id) for class_id, label in labels.items()}
        size = max(places, default=-1) + 1
        self.channel: NDArray[np.intp] = np.zeros(size, np.intp)
        self.bucket: NDArray[np.intp] = np.zeros(size, np.intp)
        for class_id, place in places.items():
            self.channel[class_id], self.bucket[class_id] = place

    def measure(
        self,
        detections: Detections,
        width: int,
        height: int,
        *,
        people_changes: int | None,
        motion: float | None,
    ) -> FrameValues:
        """Give the values of a frame.

        Args:
            detections: of the whole frame.
            width: of the frame, pixels.
            height: of the frame, pixels.
            people_changes: tracks of people that began or ended with this frame, None if it moved
                no track.
            motion: mean displacement of the tracks since their last frame over the diagonal, None
                likewise.
        """
        mass = [0.0] * len(VISION)
        classes: dict[int, int] = {}
        spread = 0.0
        if len(detections):
            ids = detections.class_id
            sums = np.bincount(self.channel[ids], detections.confidence, len(VISION))
            mass = [float(x) for x in sums]
            counts = np.bincount(self.bucket[ids])
            classes = {k: int(n) for k, n in enumerate(counts) if n}
            spread = _spread(detections.xyxy, math.hypot(width, height))
        mass[1] = math.nan if people_changes is None else float(people_changes)
        mass[6] = math.nan if motion is None else motion
        mass[7] = spread
        return FrameValues(tuple(mass), classes)


def _spread(xyxy: NDArray[np.float32], diagonal: float) -> float:
    """Give the root mean square distance of the box centres from their mean, over the diagonal."""
    centres = 0.5 * (xyxy[:, :2] + xyxy[:, 2:])
    return float(np.sqrt(np.mean(np.sum((centres - centres.mean(0)) ** 2, 1)))) / diagonal
