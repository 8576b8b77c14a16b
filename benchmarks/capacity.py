"""Measures the costs that `percipio plan` computes with, and checks what it computes.

    python -m benchmarks.capacity --calibrate [--data DIR]   writes pipeline/data/costs.json
    python -m benchmarks.capacity [--data DIR]               other loads, computed and measured

An event costs so much for itself, for its entry (what events of one source in one batch share) and
for the windows that are evaluated meanwhile (in Redis: for an entry after one); loads in which
these differ give the three by non-negative least squares. Loads that were not used for it are
compared, and it exits with 1 when a figure differs by more than 20 %. DIR holds
`media/cars.mp4`, `media/bikes.mp4` and `weights`; without it frames are left as they are.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import psutil
from redis import Redis
from scipy.optimize import nnls

from benchmarks import ours
from benchmarks.capacity_frames import FrameLoad, FrameSample, measure_frames
from benchmarks.cells import Clock, suspended
from benchmarks.load import Load
from benchmarks.sources import worker_bytes
from pipeline.capacity import (
    FRAME_PX,
    WINDOWS_PER_S,
    Cost,
    Costs,
    Demand,
    detect_cores,
    net_gbit_per_s,
    redis_cores,
    score_cores,
)
from pipeline.embedded import EmbeddedRedis

COMMAND = "python -m benchmarks.capacity --calibrate"
T = TypeVar("T", "Sample", FrameSample)
Loads = Sequence[tuple[Load, int]]
FrameLoads = Sequence[FrameLoad]
Samples = list["Sample"]
Frames = list[FrameSample]
Compared = tuple[str, float, float]
"""What, computed and measured."""
FILE = Path(str(files("pipeline").joinpath("data/costs.json")))
TOLERANCE = 0.2
CALIBRATION = (
    (Load(200, every_ms=100), 120_000),
    (Load(2000, every_ms=100), 80_000),
    (Load(2000, every_ms=1000), 60_000),
    (Load(200, every_ms=500), 100_000),
    (Load(600, every_ms=200), 100_000),
    (Load(1000, every_ms=400), 80_000),
)
OTHERS = ((Load(800, every_ms=250), 100_000), (Load(1500, every_ms=400), 80_000))
CARS, BIKES = FrameLoad(("cars.mp4",), 0, 4), FrameLoad(("bikes.mp4",), 0, 4)
BOTH = FrameLoad(("cars.mp4", "bikes.mp4"), 1, 8)
SOURCES = 40_000
REPEATS = 3
"""Of everything, the median counts: the machines are shared."""
UNITS = {"score_us": ("score", "us"), "redis_us": ("redis", "us"), "net_bytes": ("net", "bytes")}


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

    def third(self, name: str) -> float:
        """Give what costs beside events and entries: windows, in Redis entries after one."""
        return self.windows if name == "score_us" else min(self.entries, self.windows)


def in_turns(data: Path | None, loads: Loads, pictures: FrameLoads) -> tuple[Samples, Frames]:
    """Measure every load some times, one after the other, so that a slow minute hits all alike."""
    samples: list[list[Sample]] = [[] for _ in loads]
    frames: list[list[FrameSample]] = [[] for _ in pictures]
    for turn in range(REPEATS):
        print(f"turn {turn + 1} of {REPEATS}", file=sys.stderr)
        for found, (load, events) in zip(samples, loads, strict=True):
            found.append(sample(load, events))
        for shot, picture in zip(frames, pictures, strict=True) if data else ():
            shot.append(measure_frames(data, picture))
    return [_middle(found) for found in samples], [_middle(shot) for shot in frames if shot]


def _middle(found: list[T]) -> T:
    rows = [asdict(one) for one in found]
    numbers = [name for name, value in rows[0].items() if not isinstance(value, str)]
    return replace(found[0], **{n: float(np.median([row[n] for row in rows])) for n in numbers})


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
    parts = np.array([[1.0, one.entries, one.third(name)] for one in samples])
    values = np.array([getattr(one, name) for one in samples])
    # Relative errors count: a load that costs little weighs as much as one that costs much.
    event, entry, window = nnls(parts / values[:, None], np.ones(len(values)))[0]
    return round(event, 2), round(entry, 2), round(window, 2)


def computed(one: Sample, costs: Costs, name: str) -> float:
    """Give what the costs say of a load."""
    prefix, unit = UNITS[name]
    event = getattr(costs, f"{prefix}_{unit}_event").value
    entry = getattr(costs, f"{prefix}_{unit}_entry").value
    window = getattr(costs, f"{prefix}_{unit}_window").value
    return float(event + one.entries * entry + one.third(name) * window)


def calibrate(data: Path | None) -> Iterator[Compared]:
    """Measure and write the file; what was assumed, and frames without data, stay as they are.

    Loads that are not used for it are measured in turn with them, and compared.
    """
    loads = (*CALIBRATION, *OTHERS)
    measured, frames = in_turns(data, loads, (CARS, BIKES, BOTH))
    samples, others = measured[: len(CALIBRATION)], measured[len(CALIBRATION) :]
    found: dict[str, float] = {}
    for name, (prefix, unit) in UNITS.items():
        values = fit(samples, name)
        kinds = ("event", "entry", "window")
        found |= {f"{prefix}_{unit}_{k}": v for k, v in zip(kinds, values, strict=True)}
    found["keep_bytes_entry"] = round(float(np.median([one.keep_bytes for one in samples])))
    found["redis_bytes_source"] = round(float(np.median([one.source_bytes for one in samples])))
    found["worker_bytes_source"] = round(worker_bytes(SOURCES))
    if frames:
        found |= frame_costs(*frames[:2])
    now, machine = time.strftime("%Y-%m-%d"), machine_name()
    content = json.loads(FILE.read_text())
    for name, value in found.items():
        cost = Cost(value, f"{COMMAND}, {machine}", measured=True, date=now)
        content[name] = asdict(cost)
    FILE.write_text(json.dumps(content, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    yield from compare(others, frames[2:])


def frame_costs(large: FrameSample, small: FrameSample) -> dict[str, float]:
    """Give the costs that explain two kinds of pictures: for each, a kilobyte, an object."""
    kilo = (large.redis_us - small.redis_us) / (large.image_bytes - small.image_bytes) * 1e3
    each = (large.net_bytes - small.net_bytes) / (large.objects - small.objects)
    scale = sum(one.network_px / FRAME_PX for one in (large, small))
    return {
        "score_us_frame": round((large.score_us + small.score_us) / 2),
        "redis_us_frame": round(large.redis_us - kilo * large.image_bytes / 1e3),
        "redis_us_kb": round(kilo, 2),
        "detect_ms_frame": round((large.detect_ms + small.detect_ms) / scale, 1),
        "net_bytes_frame": round(large.net_bytes - each * large.objects),
        "net_bytes_object": round(each),
    }


def check(data: Path | None) -> Iterator[Compared]:
    """Measure the other loads alone and compare."""
    yield from compare(*in_turns(data, OTHERS, (BOTH,)))


def compare(samples: Samples, frames: Frames) -> Iterator[Compared]:
    """Give what, computed and measured."""
    costs = Costs.from_map(json.loads(FILE.read_text()))
    for one in samples:
        for name in UNITS:
            yield f"{name} an event, {one.name}", computed(one, costs, name), getattr(one, name)
        # One worker: it has one thread that computes and one that waits for Redis in turn.
        yield f"events/s, {one.name}", 1e6 / computed(one, costs, "score_us"), one.events_per_s
        yield f"Redis bytes a source, {one.name}", costs.redis_bytes_source.value, one.source_bytes
    for shot in frames:
        demand = Demand(1, 1.0, 0.0, 0, frame_bytes=round(shot.image_bytes))
        demand = replace(demand, frame_px=round(shot.network_px), objects=shot.objects)
        net_bytes = 1e9 / 8 * net_gbit_per_s(demand, costs) - 3 * demand.frame_bytes
        for name, expected in (
            ("score_us", 1e6 * score_cores(demand, costs)),
            ("redis_us", 1e6 * redis_cores(demand, costs)),
            ("detect_ms", 1e3 * detect_cores(demand, costs)),
            ("net_bytes", net_bytes),
        ):
            yield f"{name} a frame, both videos, 8 cameras", expected, getattr(shot, name)


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
    rows = list(calibrate(args.data) if args.calibrate else check(args.data))
    print("| figure | computed | measured | differs |\n|---|---|---|---|")
    for name, expected, measured in rows:
        print(f"| {name} | {expected:,.1f} | {measured:,.1f} | {expected / measured - 1:+.0%} |")
    worst = max(abs(expected / measured - 1) for _, expected, measured in rows)
    print(f"load average {psutil.getloadavg()[0]:.1f}")
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    raise SystemExit(main())
