"""What a picture costs that needs no network, and what looking costs where every picture does.

    python -m benchmarks.cache --data DIR [--rows moving,repeated,stills,frozen,reads]

Real detect workers, each with an embedded Redis of its own, side by side on the same cores; they
take turns, so that what slows the machine slows all. Before a turn the frames lie in `recordings`
and the worker is stopped; the clock runs from its going on to the last result's commit. Medians
over the rounds, with the smallest and the largest.
    moving    DIR/media/cars.mp4, no two frames of the same bytes: what looking costs
    repeated  the same file again and again: the cache by content
    stills    pictures of DIR/coco as 8 cameras that stand still, 60 frames each, with sensor noise
    frozen    the same of the built-in scene, its objects standing still
    reads     HGETALL of a source's state 200 times a second while detection and scoring are busy
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from statistics import median
from typing import Any

import msgpack
import numpy as np
import psutil
from redis import Redis

from benchmarks.accuracy import read_frames
from benchmarks.soak import unique
from benchmarks.still import DEMO, SCENE_SEED, with_noise
from pipeline.embedded import EmbeddedRedis
from pipeline.image import decode
from pipeline.partition import Keys
from pipeline.records import Image
from pipeline.scene import Scene

KEYS = Keys()
OFF = {"PERCIPIO_CACHE_BYTES": "0"}
CACHE: dict[str, str] = {}  # as it comes
DONE = ("frames_detected", "frames_cached", "frames_dead", "frames_dropped_duplicate")
PATIENCE_S = 180.0
READS_A_S = 200
CAMERAS = 8

Frames = list[tuple[str, bytes]]
"""Source and picture."""


@dataclass(slots=True)
class Turn:
    """One turn of one worker."""

    seconds: float
    worker_cpu_s: float
    redis_cpu_s: float
    infer_s: float
    hits: float


@dataclass(slots=True)
class Deployment:
    """A Redis and a detect worker on it."""

    name: str
    server: EmbeddedRedis
    client: Redis
    workers: list[psutil.Process]
    turns: list[Turn] = field(default_factory=list)

    def take(self, frames: Frames) -> None:
        """Have the worker do all of `frames`."""
        redis = psutil.Process(self.server.pid)
        for worker in self.workers:
            worker.suspend()
        done = self._done(frames)
        last = self._publish(frames)
        before = cpu_s(*self.workers), cpu_s(redis)
        began_s = time.monotonic()
        for worker in self.workers:
            worker.resume()
        while self._done(frames) < done + len(frames):
            if time.monotonic() - began_s > PATIENCE_S:
                raise SystemExit(f"{self.name}: {len(frames)} frames took over {PATIENCE_S:.0f} s")
            time.sleep(0.005)
        seconds = time.monotonic() - began_s
        after = cpu_s(*self.workers), cpu_s(redis)
        infer_s, hits = self._results(frames, last)
        cpus = (after[0] - before[0], after[1] - before[1])
        self.turns.append(Turn(seconds, *cpus, infer_s, hits))

    def _publish(self, frames: Frames) -> dict[str, bytes]:
        """Add the frames; gives the last detections entry there was, by stream."""
        streams = sorted({KEYS.of_source(source).detections for source, _ in frames})
        last = {s: (self.client.xrevrange(s, count=1) or [(b"0-0",)])[0][0] for s in streams}
        pipe = self.client.pipeline(transaction=False)
        for source, image in frames:
            pipe.xadd(KEYS.of_source(source).recordings, {"source": source, "image": image})
        pipe.execute()
        return last

    def _done(self, frames: Frames) -> int:
        pipe = self.client.pipeline(transaction=False)
        for ledger in sorted({KEYS.of_source(source).ledger for source, _ in frames}):
            pipe.hmget(ledger, DONE)
        return sum(int(value or 0) for row in pipe.execute() for value in row)

    def _results(self, frames: Frames, last: dict[str, bytes]) -> tuple[float, float]:
        """Give the network time of the new results, and the share that took none."""
        infer_s, cached = 0.0, 0
        for stream, entry_id in last.items():
            for _, fields in self.client.xrange(stream, min=b"(" + entry_id):
                data = msgpack.unpackb(fields[b"data"])
                cached += data["cached"]
                infer_s += data["timing"]["infer_ms"] / data["timing"]["batch"] / 1e3
        return infer_s, cached / len(frames)

    def summary(self, frames: int) -> dict[str, Any]:
        """Give medians over the turns, per frame where that makes sense."""
        each = {
            "frames_per_s": [frames / turn.seconds for turn in self.turns],
            "worker_cpu_ms": [turn.worker_cpu_s / frames * 1e3 for turn in self.turns],
            "redis_cpu_ms": [turn.redis_cpu_s / frames * 1e3 for turn in self.turns],
            "infer_ms": [turn.infer_s / frames * 1e3 for turn in self.turns],
            "hits": [turn.hits for turn in self.turns],
        }
        found: dict[str, Any] = {"worker": self.name}
        for name, values in each.items():
            found[name] = [round(x, 3) for x in (median(values), min(values), max(values))]
        return found


def cpu_s(*processes: psutil.Process) -> float:
    """Give the CPU seconds that processes have used."""
    times = [process.cpu_times() for process in processes]
    return float(sum(one.user + one.system for one in times))


@contextmanager
def deployment(
    name: str, environ: dict[str, str], *, score: bool = False, detectors: int = 1
) -> Iterator[Deployment]:
    """Run a Redis and detect workers, with a score worker if asked for, until they are ready."""
    with ExitStack() as stack:
        server = stack.enter_context(EmbeddedRedis())
        client = stack.enter_context(Redis.from_url(server.url))
        base = os.environ | {"PERCIPIO_REDIS_URL": server.url, "PERCIPIO_LOG_LEVEL": "warning"}
        names = ["detect"] * detectors + ["score"] * score
        workers = []
        for worker in names:
            command = [sys.executable, "-m", "workers.leash", f"workers.{worker}"]
            workers.append(subprocess.Popen(command, env=base | environ, stdin=subprocess.PIPE))
            stack.callback(_end, workers[-1])
        deadline_s = time.monotonic() + PATIENCE_S
        while not _is_ready(client, detectors, score=score):
            if any(w.poll() is not None for w in workers) or time.monotonic() > deadline_s:
                raise SystemExit(f"{name}: a worker ended, or was not ready in time")
            time.sleep(0.1)
        found = [psutil.Process(worker.pid) for worker in workers[:detectors]]
        yield Deployment(name, server, client, found)


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    process.wait()


def _is_ready(client: Redis, detectors: int, *, score: bool) -> bool:
    frames = KEYS.of(KEYS.partitions - 1).frames
    if not client.exists(frames):
        return False
    is_read = any(group["consumers"] >= detectors for group in client.xinfo_groups(frames))
    owner = KEYS.of(KEYS.partitions - 1).owner
    return is_read and (not score or client.hget(owner, "owner") not in (None, b""))


class Fleet:
    """Deployments by their settings, each started once and kept for the rows to come."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._made: dict[str, Deployment] = {}

    def get(self, name: str, environ: dict[str, str]) -> Deployment:
        """Give the deployment of these settings, with no turns taken."""
        key = json.dumps(environ, sort_keys=True)
        if key not in self._made:
            self._made[key] = self._stack.enter_context(deployment(name, environ))
        self._made[key].turns.clear()
        return self._made[key]

    def compare(
        self, configs: dict[str, dict[str, str]], make: Callable[[], Frames], rounds: int
    ) -> list[dict[str, Any]]:
        """Let the workers take turns on the same frames."""
        made = [self.get(name, environ) for name, environ in configs.items()]
        frames = make()
        for turn in range(rounds):
            for one in made if turn % 2 else made[::-1]:
                one.take(frames)
            frames = make()
        return [one.summary(len(frames)) for one in made]


_numbers = count()


def _unlike(pictures: Sequence[bytes]) -> Frames:
    return [("cars", unique(jpeg, next(_numbers))) for jpeg in pictures]


def moving(args: argparse.Namespace, fleet: Fleet, gate: dict[str, str]) -> list[dict[str, Any]]:
    """Measure what looking costs where it never helps, after a turn that does not count."""
    pictures = list(islice(read_frames(args.data / "media" / "cars.mp4", 1), args.frames))
    configs = {"off": OFF, "cache": CACHE, "gate": OFF | gate}
    fleet.compare(configs, lambda: _unlike(pictures[:16]), 1)
    return fleet.compare(configs, lambda: _unlike(pictures), args.rounds)


def repeated(args: argparse.Namespace, fleet: Fleet, _: dict[str, str]) -> list[dict[str, Any]]:
    """Measure the cache on a file that comes again, after a turn in which it is new."""
    pictures = list(islice(read_frames(args.data / "media" / "cars.mp4", 1), args.frames))
    frames = [("cars", jpeg) for jpeg in pictures]
    fleet.compare({"cache": CACHE}, lambda: frames, 1)
    return fleet.compare({"off": OFF, "cache": CACHE}, lambda: frames, 2)


def stills(args: argparse.Namespace, fleet: Fleet, gate: dict[str, str]) -> list[dict[str, Any]]:
    """Measure the gate on still pictures with noise."""
    paths = sorted((args.data / "coco" / "images").glob("*.jpg"))[:CAMERAS]
    bases = [decode(path.read_bytes()).image for path in paths]
    return fleet.compare({"off": OFF, "gate": OFF | gate}, _noisy(bases), 3)


def frozen(_: argparse.Namespace, fleet: Fleet, gate: dict[str, str]) -> list[dict[str, Any]]:
    """Measure the gate on the built-in scene, standing still."""
    scene = Scene(SCENE_SEED, fps=15.0)
    bases = [scene.frame(150 * number).image for number in range(CAMERAS)]
    demo = OFF | {"PERCIPIO_MODEL": str(DEMO), "PERCIPIO_IMAGE_SIZE": "320"}
    return fleet.compare({"off": demo, "gate": demo | gate}, _noisy(bases), 3)


def _noisy(bases: Sequence[Image]) -> Callable[[], Frames]:
    rng = np.random.default_rng(5)

    def make() -> Frames:
        turns = range(20)
        return [(f"s{n}", with_noise(base, rng)) for _ in turns for n, base in enumerate(bases)]

    return make


def reads(args: argparse.Namespace, _: Fleet, _gate: dict[str, str]) -> list[dict[str, Any]]:
    """Measure reads of a state while a backlog is detected and scored."""
    pictures = list(islice(read_frames(args.data / "media" / "cars.mp4", 1), args.frames))
    with deployment("busy", OFF, score=True) as busy:
        busy.take(_unlike(pictures[:8]))
        stop, spent_ms = threading.Event(), list[float]()
        reader = threading.Thread(target=_read, args=(busy.server.url, stop, spent_ms))
        reader.start()
        for _ in range(3):
            busy.take(_unlike(pictures))
        stop.set()
        reader.join()
    p50, p99 = np.percentile(spent_ms, (50, 99)).round(2).tolist()
    return [{"reads": len(spent_ms), "p50_ms": p50, "p99_ms": p99, "max_ms": max(spent_ms)}]


def _read(url: str, stop: threading.Event, spent_ms: list[float]) -> None:
    state = KEYS.of_source("cars").state("cars")
    with Redis.from_url(url) as client:
        while not stop.wait(1 / READS_A_S):
            began_s = time.perf_counter()
            client.hgetall(state)
            spent_ms.append(round((time.perf_counter() - began_s) * 1e3, 3))


ROWS = {f.__name__: f for f in (moving, repeated, stills, frozen, reads)}


def main() -> None:
    """Run the rows asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with coco/ and media/")
    parser.add_argument("--rows", default=",".join(ROWS), help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=4, help="of `moving`")
    parser.add_argument("--frames", type=int, default=60, help="of the video in a turn")
    parser.add_argument("--threshold", default="8", help="of the gate, in 256 levels")
    args = parser.parse_args()
    os.environ.setdefault("PERCIPIO_MODEL_DIR", str((args.data / "weights").resolve()))
    with ExitStack() as stack:
        fleet = Fleet(stack)
        for name in args.rows.split(","):
            for found in ROWS[name](args, fleet, {"PERCIPIO_STILL_THRESHOLD": args.threshold}):
                print(json.dumps({"row": name, **found}), flush=True)


if __name__ == "__main__":
    main()
