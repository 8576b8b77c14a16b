"""Measure the score engine alone: `python -m benchmarks.scoring [--json] [--seconds N]`.

Every row feeds prepared batches of 1024 events, so reading, decoding and writing are not in it.
Two rates are printed: by the clock, and by processor time, which other work on the machine does
not lower so much. Evaluations per second stand beside events per second, because most events
only add to an open bin. `calibration` is a fixed loop; compare rows of two machines by it.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import time
import tracemalloc
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.scoring.batch import EVENT, InputBatch
from pipeline.scoring.engine import Engine, warm_up
from pipeline.scoring.parameters import CHANNELS, NODES, WINDOW, Parameters
from pipeline.scoring.state import ROW

BATCH = 1024
Floats = NDArray[np.float64]
Values = Callable[[np.random.Generator, NDArray[np.int64], NDArray[np.uint8]], Floats]


@dataclass(frozen=True, slots=True)
class Load:
    """What is offered: sources, events per second of each, and the engine's parameters."""

    name: str
    sources: int
    rate: float
    delta_ms: int
    hop: int
    surrogates: bool = True
    coupled: bool = False


ROWS = (
    Load("recommended: 1000 x 10/s, bin .25 s, hop 4", 1000, 10, 250, 4),
    Load("the same, coupled channels", 1000, 10, 250, 4, coupled=True),
    Load("the same, no surrogates", 1000, 10, 250, 4, surrogates=False),
    Load("1000 x 10/s, bin .25 s, hop 1", 1000, 10, 250, 1),
    Load("1000 x 10/s, bin 1 s, hop 1", 1000, 10, 1000, 1),
    Load("100 x 100/s, bin .25 s, hop 1", 100, 100, 250, 1),
    Load("worst: 10000 x 1/s, bin 1 s, hop 1", 10_000, 1, 1000, 1),
    Load("10000 x 1/s, bin 1 s, hop 4", 10_000, 1, 1000, 4),
)


@dataclass(slots=True)
class Row:
    """One measured row."""

    name: str
    events: int
    events_per_s: float
    events_per_cpu_s: float
    evaluations_per_s: float
    evaluations_per_event: float
    batch_p50_ms: float
    batch_p99_ms: float


def calibrate() -> float:
    """Give millions of loop steps per second of a fixed piece of Python, best of three."""
    best = 0.0
    for _ in range(3):
        began = time.perf_counter()
        total = 0
        for k in range(1_000_000):
            total += k & 7
        best = max(best, 1 / (time.perf_counter() - began))
    return best


def batches(load: Load, seed: int, start_ms: int, seconds: float) -> list[InputBatch]:
    """Prepare events at random times of random sources, in order of time."""
    rng = np.random.default_rng(seed)
    count = int(load.sources * load.rate * seconds)
    times = np.sort(rng.integers(start_ms, start_ms + int(1000 * seconds), count))
    slots = rng.integers(0, load.sources, count).astype(np.int32)
    channels = rng.integers(0, CHANNELS, count).astype(np.uint8)
    values = rng.exponential(1.0, count)
    if load.coupled:
        values *= _drive(slots, times, channels)
    return [
        InputBatch(
            slots[at : at + BATCH],
            times[at : at + BATCH],
            np.full(len(slots[at : at + BATCH]), EVENT, np.uint8),
            np.arange(len(slots[at : at + BATCH]) + 1, dtype=np.int64),
            channels[at : at + BATCH],
            values[at : at + BATCH].astype(np.float32),
        )
        for at in range(0, count, BATCH)
    ]


def _drive(slots: NDArray[np.int32], times: NDArray[np.int64], channels: Floats) -> Floats:
    """Give a factor that wanders around the nodes of a source, so that its nodes go together."""
    angle = times / 3000.0 + slots - channels / CHANNELS * 2 * np.pi
    return np.asarray(np.exp(2.0 * np.sin(angle)))


def measure(load: Load, seconds: float) -> Row:
    """Fill the windows, then time."""
    parameters = Parameters(
        delta_ms=load.delta_ms,
        hop_bins=load.hop,
        surrogates=load.surrogates,
        stale_after_ms=20 * load.delta_ms,
    )
    engine = Engine(parameters, capacity=load.sources)
    for k in range(load.sources):
        engine.slot(f"source-{k}")
    start, fill = 1_700_000_000_000, 1.1 * WINDOW * load.delta_ms / 1000
    for batch in batches(load, 1, start, fill):
        engine.step(batch)
    prepared = batches(load, 2, start + int(1000 * fill), seconds)
    spans, evaluations = [], 0
    cpu = time.process_time()
    for batch in prepared:
        began = time.perf_counter()
        evaluations += engine.step(batch).evaluations
        spans.append(time.perf_counter() - began)
    cpu = time.process_time() - cpu
    events = sum(len(batch) for batch in prepared)
    clock = sum(spans)
    p50, p99 = np.percentile(spans, [50, 99]) * 1000
    return Row(
        load.name,
        events,
        events / clock,
        events / cpu,
        evaluations / clock,
        evaluations / events,
        float(p50),
        float(p99),
    )


@dataclass
class Plain:
    """A source as one would write it at first: objects and deques of floats."""

    ring: list[deque[float]] = field(
        default_factory=lambda: [
            deque([k + c / 7 for k in range(WINDOW)], WINDOW) for c in range(CHANNELS)
        ]
    )
    history: list[deque[float]] = field(
        default_factory=lambda: [deque([k + g / 7 for k in range(8)], 8) for g in range(NODES + 1)]
    )
    cross: list[list[float]] = field(
        default_factory=lambda: [[a + k / 7 for k in range(17)] for a in range(16)]
    )
    with_level: list[list[float]] = field(
        default_factory=lambda: [[a + k / 7 for k in range(17)] for a in range(NODES)]
    )
    auto: list[list[float]] = field(
        default_factory=lambda: [[a + k / 7 for k in range(9)] for a in range(NODES + 1)]
    )
    priors: dict[str, float] = field(
        default_factory=lambda: {f"channel-{c}": c / 7 for c in range(CHANNELS)}
    )
    shares: list[float] = field(default_factory=lambda: [g / 7 for g in range(NODES)])


def traced(make: Callable[[], object]) -> int:
    """Give the bytes that making an object takes."""
    gc.collect()
    tracemalloc.start()
    kept = make()
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del kept
    return size


def memory() -> dict[str, float]:
    """Measure bytes per source of the engine, of a saved state, and of plain objects."""
    sources = 2000

    def ours() -> Engine:
        engine = Engine(capacity=sources)
        for k in range(sources):
            engine.encode_event(engine.slot(f"source-{k}"), {f"c{n}": 1.0 for n in range(16)})
        return engine

    shared = traced(lambda: Engine(capacity=1))
    engine = (traced(ours) - shared) / sources
    plain = traced(lambda: [Plain() for _ in range(200)]) / 200
    one = Engine()
    slot = one.slot("source-0")
    one.encode_event(slot, {f"c{n}": 1.0 for n in range(16)})
    return {
        "row_bytes": ROW.itemsize,
        "engine_bytes_per_source": engine,
        "blob_bytes": len(one.save(slot)),
        "plain_bytes_per_source": plain,
        "saved_percent": 100 * (1 - engine / plain),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=8.0, help="of offered events per row")
    parser.add_argument("--rounds", type=int, default=1, help="take the best of so many")
    arguments = parser.parse_args()
    began = time.perf_counter()
    warm_up()
    compiled = time.perf_counter() - began
    rows = [
        max(
            (measure(load, arguments.seconds) for _ in range(arguments.rounds)),
            key=lambda row: row.events_per_s,
        )
        for load in ROWS
    ]
    machine = f"{os.cpu_count()} cores {platform.machine()}, Python {platform.python_version()}"
    result = {
        "machine": machine,
        "load_average": os.getloadavg()[0],
        "calibration_mega_steps_per_s": calibrate(),
        "kernel_ready_s": compiled,
        "rows": [asdict(row) for row in rows],
        "memory": memory(),
    }
    if arguments.json:
        print(json.dumps(result, indent=1))
        return
    print(f"{machine}; load average {result['load_average']:.1f}")
    print(f"calibration {result['calibration_mega_steps_per_s']:.1f} M steps/s")
    print(f"\n{'':<46}{'events/s':>10}{'per cpu s':>11}{'evals/s':>9}{'p50':>7}{'p99 ms':>8}")
    for row in rows:
        print(
            f"{row.name:<46}{row.events_per_s:>10,.0f}{row.events_per_cpu_s:>11,.0f}"
            f"{row.evaluations_per_s:>9,.0f}{row.batch_p50_ms:>7.1f}{row.batch_p99_ms:>8.1f}"
        )
    for name, value in memory().items():
        print(f"{name:<46}{value:>10,.0f}")


if __name__ == "__main__":
    main()
