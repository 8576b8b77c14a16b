"""The whole path, measured from outside: frames into Redis, detections out of it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import msgpack
import numpy as np
import psutil
from redis import Redis

from benchmarks.speed_frames import Sample, cpu_of, load_frames, never_the_same
from pipeline.embedded import EmbeddedRedis
from pipeline.partition import Keys

PATIENCE_S = 180.0
BLOCK_MS = 1000


@dataclass(frozen=True)
class Ages:
    """What became of live frames.

    Attributes:
        offered: frames published.
        detected: results among them.
        seconds: from the first frame to the last.
        ms: age of each result, from the frame's entry id to the result's.
    """

    offered: int
    detected: int
    seconds: float
    ms: list[float]

    def percentile(self, rank: float) -> float:
        """Give a percentile of the ages, ms."""
        return float(np.percentile(self.ms, rank))


class Stream:
    """A Redis of its own, one detect worker on it, and this process as publisher and reader."""

    def __init__(self, data: Path, model: Path, model_dir: Path, settings: dict[str, str]) -> None:
        self._server = EmbeddedRedis()
        self._keys = Keys()
        self._frames = load_frames(data)
        self._environ = {
            "PERCIPIO_MODEL": str(model),
            "PERCIPIO_MODEL_DIR": str(model_dir),
            "PERCIPIO_DEVICE": "cpu",
            "PERCIPIO_LOG_LEVEL": "warning",
            **settings,
        }

    def __enter__(self) -> Self:
        self._server.start()
        environ = os.environ | self._environ | {"PERCIPIO_REDIS_URL": self._server.url}
        command = [sys.executable, "-m", "workers.leash", "workers.detect"]
        self._worker = subprocess.Popen(command, env=environ, stdin=subprocess.PIPE)
        self._client = Redis.from_url(self._server.url)
        self._processes = [psutil.Process(self._worker.pid), psutil.Process(self._server.pid)]
        self._await_worker()
        self.measure(8)
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.terminate()
        self._worker.wait()
        self._client.close()
        self._server.stop()

    def _await_worker(self) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        key = self._keys.of(0).frames
        while not (self._client.exists(key) and self._client.xinfo_consumers(key, "detect")):
            if self._worker.poll() is not None or time.monotonic() > deadline_s:
                raise SystemExit(f"the detect worker does not start: {self._worker.returncode}")
            time.sleep(0.05)

    def measure(self, frames: int, sources: int = 1) -> Sample:
        """Publish recordings of `sources` in turn and read the results until all are there."""
        names = [f"cars-{number}" for number in range(sources)]
        streams = {self._keys.of_source(name).detections: b"$" for name in names}
        last = {key: self._last(key) for key in streams}
        pictures = never_the_same(self._frames)
        wall_s, cpu_s = time.perf_counter(), self._cpu_s()
        for number in range(frames):
            name = names[number % sources]
            fields: dict[Any, Any] = {"source": name, "image": next(pictures)}
            self._client.xadd(self._keys.of_source(name).recordings, fields)
        done = objects = 0
        while done < frames:
            found = self._client.xread(last, count=frames, block=BLOCK_MS)
            for key, entries in found:
                last[key.decode()] = entries[-1][0]
                done += len(entries)
                objects += sum(_objects(fields) for _, fields in entries)
            if time.perf_counter() - wall_s > PATIENCE_S:
                raise SystemExit(f"{done} of {frames} frames after {PATIENCE_S:.0f} s")
        return Sample(frames, time.perf_counter() - wall_s, self._cpu_s() - cpu_s, objects)

    def live(self, sources: int, rate: float, seconds: float) -> Ages:
        """Publish live frames, `rate` a second of each source, all evenly staggered."""
        names = [f"live-{number}" for number in range(sources)]
        keys = {self._keys.of_source(name).detections for name in names}
        before = {key: self._last(key) for key in keys}
        offered = int(sources * rate * seconds)
        pictures = never_the_same(self._frames)
        began_s = time.monotonic()
        for number in range(offered):
            due_s = began_s + number / (sources * rate)
            time.sleep(max(0.0, due_s - time.monotonic()))
            name = names[number % sources]
            fields: dict[Any, Any] = {"source": name, "image": next(pictures)}
            self._client.xadd(self._keys.of_source(name).frames, fields)
        spent_s = time.monotonic() - began_s
        ages = self._ages(before, offered)
        return Ages(offered, len(ages), spent_s, ages)

    def _ages(self, before: dict[str, bytes], offered: int) -> list[float]:
        """Read the results, until none is missing or none comes for a second."""
        ages: list[float] = []
        last = dict(before)
        while len(ages) < offered:
            found = self._client.xread(last, block=BLOCK_MS)
            if not found:
                break
            for key, entries in found:
                last[key.decode()] = entries[-1][0]
                ages += [_time_ms(entry_id) - _time_ms(row[b"frame"]) for entry_id, row in entries]
        return ages

    def _last(self, key: str) -> bytes:
        entries: Sequence[Any] = self._client.xrevrange(key, count=1)
        return entries[0][0] if entries else b"0-0"

    def _cpu_s(self) -> float:
        return sum(cpu_of(process) for process in self._processes)


def _objects(fields: dict[bytes, bytes]) -> int:
    data = msgpack.unpackb(fields[b"data"])
    if data["cached"]:
        raise SystemExit("a frame was answered by the cache: this measures the network")
    return len(data["objects"])


def _time_ms(entry_id: bytes) -> float:
    return float(entry_id.partition(b"-")[0])
