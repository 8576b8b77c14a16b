"""The frames that the speed benchmarks run on, and what one measurement gives."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psutil

from benchmarks.accuracy import read_frames

FRAMES = 64
"""Of the video, taken in turn: enough that no answer is cached by chance, quick to load."""
IMAGE_SIZE = 640


@dataclass(frozen=True)
class Sample:
    """One measurement.

    Attributes:
        frames: detected.
        wall_s: from the first frame to the last result.
        cpu_s: of every process that took part, over all threads; other load on the machine
            stretches it far less than `wall_s`.
        objects: found in all frames; -1 where only the bare network ran.
    """

    frames: int
    wall_s: float
    cpu_s: float
    objects: int = -1

    @property
    def wall_ms(self) -> float:
        """Time a frame, ms."""
        return self.wall_s / self.frames * 1e3

    @property
    def cpu_ms(self) -> float:
        """CPU time a frame, ms."""
        return self.cpu_s / self.frames * 1e3


def load_frames(data: Path, video: str = "cars") -> list[bytes]:
    """Give frames of the video as JPEG of quality 90."""
    frames = []
    for frame in read_frames(data / "media" / f"{video}.mp4", 1):
        frames.append(frame)
        if len(frames) == FRAMES:
            break
    return frames


def never_the_same(frames: list[bytes]) -> Iterator[bytes]:
    """Give the frames again and again, each with a comment of its own, so that no cache has it."""
    for number in count():
        jpeg = frames[number % len(frames)]
        text = f"{os.getpid()}-{time.time_ns()}-{number}".encode()
        yield jpeg[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + jpeg[2:]


def cpu_of(process: psutil.Process) -> float:
    """Give the CPU seconds a process has used."""
    times = process.cpu_times()
    return times.user + times.system


def median(values: list[float]) -> float:
    """Give the middle of the values."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
