"""A camera that shows one bright square, and a detect worker that finds it without a network.

All else of the worker is the real one, so that the page is shown what it will be shown.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from pipeline import image
from pipeline.detect_feed import DetectFeed, DetectLimits
from pipeline.detect_stage import DetectWork, Network
from pipeline.inputs import Inputs
from pipeline.partition import Keys
from pipeline.records import Detections, Picture
from pipeline.stream import Store
from workers.detect import _input_limits, _serve
from workers.runner import Context, run_worker

WIDTH, HEIGHT, EDGE = 480, 300, 70
_BRIGHT = 200


def square_jpeg(number: int, seed: int) -> bytes:
    """Draw the square where it is in frame `number`."""
    ground = 20 + 6 * np.array([seed % 5, seed % 3, seed % 7])
    picture = np.full((HEIGHT, WIDTH, 3), ground, np.uint8)
    x = int((WIDTH - EDGE) * (0.5 + 0.5 * np.sin(number / 9 + seed)))
    y = int((HEIGHT - EDGE) * (0.5 + 0.4 * np.cos(number / 14 + seed)))
    cv2.rectangle(picture, (x, y), (x + EDGE, y + EDGE), (240, 235, 225), cv2.FILLED)
    return image.encode_jpeg(picture, 85)


class Finder:
    """Finds what is bright."""

    def decode(self, data: bytes) -> Picture:
        """Decode as every worker does."""
        return image.decode(data)

    def detect(self, pictures: Sequence[Picture]) -> list[Detections]:
        """Give the square of each picture."""
        return [_find(picture) for picture in pictures]


def _find(picture: Picture) -> Detections:
    ys, xs = np.nonzero(picture.image.min(axis=2) > _BRIGHT)
    boxes = [[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]] if len(xs) else []
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.full(len(boxes), 0.93, np.float32),
        np.zeros(len(boxes), np.int32),
    )


async def main(context: Context) -> None:
    """What workers.detect does, with another network."""
    settings, streams = context.settings, context.settings.streams
    keys = Keys(streams.key_prefix, streams.partitions)
    limits = DetectLimits(
        batch_size=4,
        max_age_ms=streams.frame_max_age_ms,
        max_deliveries=settings.detect.max_deliveries,
    )
    async with Store.open(settings.redis.url, keys, wait_s=settings.redis.wait_s) as store:
        with ThreadPoolExecutor(1) as decoders:
            network = Network(Finder(), "squares@000000000000", ("square",), image.encode_jpeg)
            work = DetectWork(network, limits, keys.partitions, decoders)
            inputs = Inputs(store, context.consumer, _input_limits(settings))
            feed = DetectFeed(inputs, limits, work.prepare, work.turn)
            await _serve(context, inputs, feed, work)


if __name__ == "__main__":
    sys.exit(run_worker("detect", main))
