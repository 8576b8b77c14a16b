"""What a frame costs: a video through one detect and one score worker, processor time counted."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import psutil
from redis import Redis

from benchmarks import ours
from pipeline.embedded import EmbeddedRedis

FRAMES, WARM = 60, 8
CAMERAS = 4
IDLE_S = 10.0
STRIDE = 3


@dataclass(frozen=True, slots=True)
class FrameSample:
    """What a frame has cost.

    Attributes:
        detect_ms: processor time of the detect worker; score_us of the score worker; both, and
            Redis's, less what they take while there is nothing to do.
        net_bytes: Redis's traffic less the pictures themselves, in, out and back.
        image_bytes: mean of a picture.
    """

    detect_ms: float
    score_us: float
    redis_us: float
    net_bytes: float
    image_bytes: float
    frames_per_s: float


def pictures(video: Path) -> Iterator[bytes]:
    """Give every third picture of a video as JPEG."""
    capture = cv2.VideoCapture(str(video))
    try:
        number = 0
        while True:
            read, picture = capture.read()
            if not read:
                return
            if number % STRIDE == 0:
                yield cv2.imencode(".jpg", picture)[1].tobytes()
            number += 1
    finally:
        capture.release()


def measure_frames(data: Path, video: str) -> FrameSample:
    """Publish to recordings, where none is dropped, and wait until all are scored."""
    images = list(islice(pictures(data / "media" / video), FRAMES + WARM))
    with EmbeddedRedis() as server, Redis.from_url(server.url) as client:
        redis = psutil.Process(server.pid)
        environ = {"PERCIPIO_MODEL_DIR": str(data / "weights")}
        with (
            detect_worker(server.url, environ) as detect,
            ours.processes(server.url, 1, {}) as score,
        ):
            ours.settle(client, 1)
            publish(client, images[:WARM])
            wait(client, WARM)
            these = ([detect], score, [redis])
            before, traffic, began_s = usage(these), ours.traffic(client), time.monotonic()
            count = publish(client, images[WARM:])
            wait(client, WARM + count)
            after, seconds = usage(these), time.monotonic() - began_s
            moved = ours.traffic(client) - traffic
            # Workers that wait cost something, too; over a slow run that is not the frames'.
            time.sleep(IDLE_S)
            idle, idle_bytes = usage(these), ours.traffic(client) - traffic - moved
            share = seconds / IDLE_S
            cpu_s = [
                max(0.0, y - x - share * (z - y))
                for x, y, z in zip(before, after, idle, strict=True)
            ]
            size = sum(map(len, images[WARM:])) / count
            return FrameSample(
                cpu_s[0] / count * 1e3,
                cpu_s[1] / count * 1e6,
                cpu_s[2] / count * 1e6,
                max(0.0, (moved - share * idle_bytes) / count - 3 * size),
                size,
                count / seconds,
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


def publish(client: Redis, images: list[bytes]) -> int:
    """Add pictures of several cameras in turn."""
    for number, image in enumerate(images):
        source = f"cam-{number % CAMERAS}"
        keys = ours.KEYS.of_source(source)
        client.xadd(keys.recordings, {"source": source, "image": image})
    return len(images)


def wait(client: Redis, frames: int) -> None:
    """Wait until so many frames are scored."""
    deadline_s = time.monotonic() + ours.PATIENCE_S
    while sum(ours.ledger(client, "frames_scored").values()) < frames:
        if time.monotonic() > deadline_s:
            raise SystemExit("the frames were not scored")
        time.sleep(0.05)
