"""What a frame costs: a video through one detect and one score worker, processor time counted."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, cycle, islice
from pathlib import Path

import cv2
import msgpack
import psutil
from redis import Redis

from benchmarks import ours
from benchmarks.speed_frames import IMAGE_SIZE, never_the_same
from pipeline.embedded import EmbeddedRedis
from pipeline.image import letterbox

FRAMES, WARM = 200, 8
IDLE_S = 10.0


@dataclass(frozen=True, slots=True)
class FrameSample:
    """What a frame has cost.

    Attributes:
        detect_ms: processor time of the detect worker; score_us of the score worker; both, and
            Redis's, less what they take while there is nothing to do.
        net_bytes: Redis's traffic less the pictures themselves, in, out and back.
        image_bytes: mean of a picture.
        objects: mean of a picture.
        network_px: the network's input, mean of a picture.
    """

    detect_ms: float
    score_us: float
    redis_us: float
    net_bytes: float
    image_bytes: float
    objects: float
    network_px: float


@dataclass(frozen=True, slots=True)
class FrameLoad:
    """Whose pictures.

    Attributes:
        videos: file names, in turn.
        first: 0 takes every second picture from the first on, 1 the others.
        cameras: that send them in turn.
    """

    videos: tuple[str, ...]
    first: int
    cameras: int

    def images(self, data: Path) -> Iterator[tuple[bytes, int]]:
        """Give JPEG pictures without end, no two the same, and pixels of the network's input."""
        videos = [cycle(pictures(data / "media" / video, self.first)) for video in self.videos]
        for image, pixels in chain.from_iterable(zip(*videos, strict=False)):
            yield next(never_the_same([image])), pixels


def pictures(video: Path, first: int) -> list[tuple[bytes, int]]:
    """Give every second picture of a video as JPEG, and the pixels of the network's input."""
    capture, found = cv2.VideoCapture(str(video)), []
    try:
        number = 0
        while (read := capture.read())[0]:
            if number % 2 == first:
                height, width = read[1].shape[:2]
                box = letterbox(width, height, (IMAGE_SIZE, IMAGE_SIZE))
                image = cv2.imencode(".jpg", read[1])[1].tobytes()
                found.append((image, box.outer_width * box.outer_height))
            number += 1
    finally:
        capture.release()
    return found


def measure_frames(data: Path, load: FrameLoad) -> FrameSample:
    """Publish to recordings, where none is dropped, and wait until all are scored."""
    taken = list(islice(load.images(data), FRAMES + WARM))
    images = [image for image, _ in taken]
    with EmbeddedRedis() as server, Redis.from_url(server.url) as client:
        redis = psutil.Process(server.pid)
        environ = {"PERCIPIO_MODEL_DIR": str(data / "weights")}
        with (
            detect_worker(server.url, environ) as detect,
            ours.processes(server.url, 1, {}) as score,
        ):
            ours.settle(client, 1)
            publish(client, images[:WARM], load.cameras)
            wait(client, WARM)
            these = ([detect], score, [redis])
            before, traffic, began_s = usage(these), ours.traffic(client), time.monotonic()
            publish(client, images[WARM:], load.cameras)
            wait(client, len(images))
            after, seconds = usage(these), time.monotonic() - began_s
            moved = ours.traffic(client) - traffic
            # Workers that wait cost something, too; over a slow run that is not the frames'.
            time.sleep(IDLE_S)
            idle, idle_bytes = usage(these), ours.traffic(client) - traffic - moved
            share = seconds / IDLE_S
            cpu_s = [
                max(0.0, y - x - share * (z - y)) / FRAMES
                for x, y, z in zip(before, after, idle, strict=True)
            ]
            size = sum(map(len, images[WARM:])) / FRAMES
            return FrameSample(
                cpu_s[0] * 1e3,
                cpu_s[1] * 1e6,
                cpu_s[2] * 1e6,
                max(0.0, (moved - share * idle_bytes) / FRAMES - 3 * size),
                size,
                objects(client) / len(images),
                sum(pixels for _, pixels in taken[WARM:]) / FRAMES,
            )


def usage(these: tuple[list[psutil.Process], ...]) -> list[float]:
    """Give the processor seconds of each group of processes."""
    return [ours.cpu_s(group) for group in these]


@contextmanager
def detect_worker(url: str, environ: dict[str, str]) -> Iterator[psutil.Process]:
    """Run a detect worker until the block ends."""
    settings = {"PERCIPIO_REDIS_URL": url, "PERCIPIO_LOG_LEVEL": "warning", **environ}
    process = subprocess.Popen([sys.executable, "-m", "workers.detect"], env=os.environ | settings)
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def publish(client: Redis, images: list[bytes], cameras: int) -> None:
    """Add pictures of several cameras in turn."""
    for number, image in enumerate(images):
        source = f"cam-{number % cameras}"
        keys = ours.KEYS.of_source(source)
        client.xadd(keys.recordings, {"source": source, "image": image})


def objects(client: Redis) -> int:
    """Count the objects of all detections."""
    streams = {ours.KEYS.of(number).detections for number in range(ours.KEYS.partitions)}
    entries = [fields for stream in streams for _, fields in client.xrange(stream)]
    return sum(len(msgpack.unpackb(fields[b"data"])["objects"]) for fields in entries)


def wait(client: Redis, frames: int) -> None:
    """Wait until so many frames are scored."""
    deadline_s = time.monotonic() + ours.PATIENCE_S
    while sum(ours.ledger(client, "frames_scored").values()) < frames:
        if time.monotonic() > deadline_s:
            raise SystemExit("the frames were not scored")
        time.sleep(0.05)
