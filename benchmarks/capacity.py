"""Measures the costs that `percipio plan` computes with, and checks what it computes.

    python -m benchmarks.capacity --calibrate [--data DIR]   writes pipeline/data/costs.json
    python -m benchmarks.capacity [--data DIR]               other loads, computed and measured

An event costs so much for itself, for its entry (what events of one source in one batch share) and
for the windows that are evaluated meanwhile; four loads in which these differ give the three by
non-negative least squares. The check measures loads that were not used for it and exits with 1 when
a figure differs by more than 20 %. DIR holds `media/cars.mp4`, `media/bikes.mp4` and `weights`;
without it frames are left as they are.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from itertools import islice
from pathlib import Path

import numpy as np
import psutil
from redis import Redis
from scipy.optimize import nnls

from benchmarks import ours
from benchmarks.capacity_frames import FrameSample, measure_frames
from benchmarks.cells import Clock, suspended
from benchmarks.load import Load
from benchmarks.scaling_memory import grow
from pipeline.capacity import WINDOWS_PER_S, Cost, Costs
from pipeline.embedded import EmbeddedRedis

COMMAND = "python -m benchmarks.capacity --calibrate"
FILE = Path(str(files("pipeline").joinpath("data/costs.json")))
TOLERANCE = 0.2
CALIBRATION = (
    (Load(200, every_ms=100), 24_000),
    (Load(2000, every_ms=100), 24_000),
    (Load(2000, every_ms=1000), 16_000),
    (Load(200, every_ms=500), 16_000),
)
OTHERS = ((Load(800, every_ms=200), 24_000), (Load(1200, every_ms=400), 20_000))


@dataclass(frozen=True, slots=True)
class Sample:
    """What a load has cost, per event.

    Attributes:
        entries: score entries per event; windows: evaluations per event.
        net_bytes: into and out of Redis.
        keep_bytes: of a score entry in its stream.
        seconds: of the whole backlog.
    """

    name: str
    entries: float
    windows: float
    score_us: float
    redis_us: float
    net_bytes: float
    keep_bytes: float
    source_bytes: float
    events_per_s: float


def sample(load: Load, events: int) -> Sample:
    """Fill windows, then measure a backlog; Redis's part includes taking the events in."""
    with (
        EmbeddedRedis() as server,
        Redis.from_url(server.url) as client,
        ours.processes(server.url, 1, {}) as workers,
    ):
        ours.settle(client, 1)
        total = ours.fill(client, load)
        stream = load.events()
        redis = psutil.Process(server.pid)
        with suspended(workers):
            entries, traffic = ours.entries_added(client), ours.traffic(client)
            clock = Clock(workers, redis)
            total += ours.publish(client, islice(stream, events))
            began_s = time.monotonic()
        ours.drain(client, total)
        seconds = time.monotonic() - began_s
        figures = clock.figures(events)
        added = ours.entries_added(client) - entries
        return Sample(
            f"{load.sources} sources, an event every {load.every_ms} ms",
            added / events,
            load.every_ms / 1000 * WINDOWS_PER_S,
            figures.cpu_us,
            figures.redis_us,
            (ours.traffic(client) - traffic) / events,
            ours.bytes_per_entry(client),
            ours.bytes_per_source(client, load.names[:100]),
            events / seconds,
        )


def fit(samples: Sequence[Sample], name: str) -> tuple[float, float, float]:
    """Give the cost of an event, an entry and a window that explains the samples best."""
    parts = np.array([[1.0, one.entries, one.windows] for one in samples])
    values = np.array([getattr(one, name) for one in samples])
    # Relative errors count: a load that costs little weighs as much as one that costs much.
    event, entry, window = nnls(parts / values[:, None], np.ones(len(values)))[0]
    return round(event, 2), round(entry, 2), round(window, 2)


def computed(one: Sample, costs: Costs, name: str) -> float:
    """Give what the costs say of a load."""
    prefix, unit = {
        "score_us": ("score", "us"),
        "redis_us": ("redis", "us"),
        "net_bytes": ("net", "bytes"),
    }[name]
    event = getattr(costs, f"{prefix}_{unit}_event").value
    entry = getattr(costs, f"{prefix}_{unit}_entry").value
    window = getattr(costs, f"{prefix}_{unit}_window").value if unit == "us" else 0.0
    return float(event + one.entries * entry + one.windows * window)


def calibrate(data: Path | None) -> None:
    """Measure and write the file; what was assumed, and frames without data, stay as they are."""
    samples = []
    for load, events in CALIBRATION:
        samples.append(sample(load, events))
        print(samples[-1], flush=True)
    found: dict[str, float] = {}
    for name, prefix, unit in (("score_us", "score", "us"), ("redis_us", "redis", "us")):
        values = fit(samples, name)
        kinds = ("event", "entry", "window")
        found |= {f"{prefix}_{unit}_{k}": v for k, v in zip(kinds, values, strict=True)}
    event, entry, _ = fit(samples, "net_bytes")
    found |= {"net_bytes_event": event, "net_bytes_entry": entry}
    found["keep_bytes_entry"] = round(float(np.median([one.keep_bytes for one in samples])))
    found["redis_bytes_source"] = round(float(np.median([one.source_bytes for one in samples])))
    found["worker_bytes_source"] = round(grow(4)[0])
    if data:
        found |= of_frames(measure_frames(data, "cars.mp4"))
    now, machine = time.strftime("%Y-%m-%d"), machine_name()
    content = json.loads(FILE.read_text())
    for name, value in found.items():
        cost = Cost(value, f"{COMMAND}, {machine}", measured=True, date=now)
        content[name] = asdict(cost)
    FILE.write_text(json.dumps(content, indent=2) + "\n")
    print(json.dumps(found, indent=2))


def of_frames(frames: FrameSample) -> dict[str, float]:
    """Name the costs of a frame."""
    return {
        "score_us_frame": round(frames.score_us),
        "redis_us_frame": round(frames.redis_us),
        "detect_ms_frame": round(frames.detect_ms, 1),
        "net_bytes_frame": round(frames.net_bytes),
    }


def check(data: Path | None) -> Iterator[tuple[str, float, float]]:
    """Give what, computed and measured."""
    costs = Costs.from_map(json.loads(FILE.read_text()))
    for load, events in OTHERS:
        one = sample(load, events)
        for name in ("score_us", "redis_us", "net_bytes"):
            yield f"{name} an event, {one.name}", computed(one, costs, name), getattr(one, name)
        # One worker: it has one thread that computes and one that waits for Redis in turn.
        yield f"events/s, {one.name}", 1e6 / computed(one, costs, "score_us"), one.events_per_s
        yield f"Redis bytes a source, {one.name}", costs.redis_bytes_source.value, one.source_bytes
    if data:
        frames = measure_frames(data, "bikes.mp4")
        for name, measured in of_frames(frames).items():
            yield f"{name}, bikes.mp4", getattr(costs, name).value, measured


def machine_name() -> str:
    """Name the machine as far as it matters, and how busy it is."""
    cores, python, load = psutil.cpu_count(), platform.python_version(), psutil.getloadavg()[0]
    return f"{cores} shared cores {platform.machine()}, Python {python}, load average {load:.0f}"


def main() -> int:
    """Calibrate or check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--data", type=Path)
    args = parser.parse_args()
    if args.calibrate:
        calibrate(args.data)
        return 0
    worst = 0.0
    print("| figure | computed | measured | differs |\n|---|---|---|---|\n")
    for name, expected, measured in check(args.data):
        off = expected / measured - 1
        worst = max(worst, abs(off))
        print(f"| {name} | {expected:,.1f} | {measured:,.1f} | {100 * off:+.0f} % |", flush=True)
    print(f"load average {psutil.getloadavg()[0]:.1f}")
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    raise SystemExit(main())
