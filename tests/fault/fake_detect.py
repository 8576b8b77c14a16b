"""A detect worker whose network is a function of the image's bytes: all else is the real one.

An image is `F|number|command|` in the frame of a PNG; the command makes it a poison of some kind.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pipeline.detect_feed import DetectFeed, DetectLimits
from pipeline.detect_stage import DetectWork, Network
from pipeline.errors import EntryError, Reason
from pipeline.inputs import Inputs
from pipeline.partition import Keys
from pipeline.records import Detections, Image, Picture
from pipeline.stream import Store
from workers.detect import _input_limits, _serve
from workers.runner import Context, run_worker

HUGE = 1 << 42
PNG_HEAD = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x08\0\0\0\x08\x08\2\0\0\0\x4b\x6d\x29\xdc"
PNG_TAIL = b"\0\0\0\0IEND\xaeB`\x82"


def image_of(number: int, command: str = "") -> bytes:
    """Give a frame that says what it is."""
    return PNG_HEAD + f"F|{number}|{command}|".encode() + PNG_TAIL


class Stub:
    """One box a frame, at the frame's number."""

    def __init__(self, infer_s: float) -> None:
        self._infer_s = infer_s
        self._device = threading.Lock()  # a network computes one batch at a time

    def decode(self, data: bytes) -> Picture:
        """Read number and command."""
        _, mark, rest = data.partition(b"F|")
        if not mark:
            raise EntryError(Reason.UNDECODABLE, "not one of ours")
        number, command = rest.decode(errors="replace").split("|")[:2]
        image = np.zeros((1, 1, 3), np.uint8)
        image[0, 0, 0] = COMMANDS.index(command.partition(":")[0])
        if command.startswith("slow:"):
            image[0, 0, 1] = int(command.partition(":")[2])
        return Picture(image, int(number) + 1, 1)

    def detect(self, pictures: Sequence[Picture]) -> list[Detections]:
        """Do what the frames say."""
        with self._device:
            time.sleep(self._infer_s)
        for picture in pictures:
            obey(COMMANDS[picture.image[0, 0, 0]], int(picture.image[0, 0, 1]))
        return [_box(picture.width - 1) for picture in pictures]


COMMANDS = ("", "raise", "hang", "kill", "segv", "oom", "slow")


def obey(command: str, tenths: int) -> None:
    """Fail in the way a command names."""
    if command == "raise":
        raise RuntimeError("poison")
    if command == "hang":
        time.sleep(3600)
    if command in ("kill", "segv"):
        os.kill(os.getpid(), signal.SIGKILL if command == "kill" else signal.SIGSEGV)
    if command == "oom":
        bytearray(HUGE)
    if command == "slow":
        time.sleep(tenths / 10)


def _box(number: int) -> Detections:
    edge = float(number % 1000)
    return Detections(
        np.array([[edge, 0, edge + 1, 1]], np.float32),
        np.array([0.5], np.float32),
        np.array([0], np.int32),
    )


def _no_jpeg(_image: Image) -> bytes:
    return b"\xff\xd8"


async def main(context: Context) -> None:
    """What workers.detect does, with another network."""
    settings, streams = context.settings, context.settings.streams
    keys = Keys(streams.key_prefix, streams.partitions)
    limits = DetectLimits(
        batch_size=settings.detect.batch_size or 4,
        max_age_ms=streams.frame_max_age_ms,
        max_deliveries=settings.detect.max_deliveries,
    )
    stub = Stub(float(os.environ.get("FAKE_INFER_S", "0.002")))
    async with Store.open(settings.redis.url, keys, wait_s=settings.redis.wait_s) as store:
        with ThreadPoolExecutor(1) as decoders:
            network = Network(stub, "fake@000000000000", ("box",), _no_jpeg)
            work = DetectWork(network, limits, keys.partitions, decoders)
            inputs = Inputs(store, context.consumer, _input_limits(settings))
            feed = DetectFeed(inputs, limits, work.prepare, work.turn)
            await _serve(context, inputs, feed, work)


if __name__ == "__main__":
    sys.exit(run_worker("detect", main))
