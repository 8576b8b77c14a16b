"""Measure the score engine alone: `python -m benchmarks.scoring [--json] [--seconds N]`.

Every row feeds prepared batches of 1024 events, so reading, decoding and writing are not in it.
Two rates are printed: by the clock, and by processor time, which other work on the machine does
not lower so much. Evaluations per second stand beside events per second, because most events
only add to an open bin; the share of them that drew surrogates, 19 more windows each, stands beside
those. `calibration` is a fixed loop; compare rows of two machines by it.
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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.scoring.batch import EVENT, InputBatch, InputBuilder, StepResult
from pipeline.scoring.engine import Engine, warm_up
from pipeline.scoring.parameters import CHANNELS, LAGS, NODES, WINDOW, Parameters
from pipeline.scoring.state import ROW

BATCH = 1024
COUPLING = 0.85
NO_AGE = np.iinfo(np.uint16).max
"""`null_age` of a snapshot without surrogates."""
NAMED = (4, 8, 16)
"""Channels of the sources whose memory is compared."""
MEMORY = (
    ("engine_bytes_per_source", "engine, names and slots with it"),
    ("row_bytes", "of these the row"),
    ("blob_bytes", "saved, with a full window"),
    ("plain_bytes_per_source", "the same as Python objects with deques of floats"),
    ("saved_percent", "saved by the engine, %"),
)


@dataclass(frozen=True, slots=True)
class Load:
    """What is offered: sources, events per second of each, and the engine's parameters.

    Attributes:
        coupled: every event names all 16 channels and each node follows its neighbour a bin later,
            so that levels are high and surrogates are drawn; else an event has one channel and a
            value drawn by itself.
    """

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
    Load("the worst, coupled channels", 10_000, 1, 1000, 1, coupled=True),
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
    surrogates_per_evaluation: float
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
    wide = CHANNELS if load.coupled else 1
    drive = _drive(rng, load.sources, int(1000 * seconds) // load.delta_ms + 1)
    made = []
    for at in range(0, count, BATCH):
        slot, ts_ms = slots[at : at + BATCH], times[at : at + BATCH]
        if load.coupled:
            codes = np.tile(np.arange(CHANNELS, dtype=np.uint8), len(slot))
            nodes = drive[(ts_ms - start_ms) // load.delta_ms, slot]
            values = np.exp(0.9 + 0.8 * np.repeat(nodes, 2, axis=1)).ravel()
        else:
            codes = rng.integers(0, CHANNELS, len(slot)).astype(np.uint8)
            values = rng.exponential(1.0, len(slot))
        made.append(
            InputBatch(
                slot,
                ts_ms,
                np.full(len(slot), EVENT, np.uint8),
                wide * np.arange(len(slot) + 1, dtype=np.int64),
                codes,
                values.astype(np.float32),
            )
        )
    return made


def _drive(rng: np.random.Generator, sources: int, bins: int) -> NDArray[np.float32]:
    """Give (bins, sources, 8) states of rings in which each node follows its neighbour."""
    x = rng.standard_normal((bins, sources, NODES), np.float32)
    for t in range(1, bins):
        x[t] = COUPLING * np.roll(x[t - 1], 1, axis=1) + np.sqrt(1 - COUPLING**2) * x[t]
    return x


class Draws:
    """Counts how often surrogates were drawn, from snapshots."""

    def __init__(self, delta_ms: int) -> None:
        self._delta_ms = delta_ms
        self._seen: list[NDArray[np.int64]] = []

    def see(self, batch: InputBatch, result: StepResult) -> None:
        """Note when the surrogates behind each snapshot were drawn."""
        slots = np.empty(len(result.snapshots), np.int64)
        slots[result.snapshot] = batch.slot
        known = result.snapshots["null_age"] < NO_AGE
        kept = result.snapshots[known]
        drawn_ms = kept["level_ts"] - kept["null_age"].astype(np.int64) * self._delta_ms
        self._seen.append(np.stack([slots[known], drawn_ms], axis=1))

    def since(self, start_ms: int) -> int:
        """Give how many different ones there were after a time."""
        seen = np.concatenate(self._seen)
        return len(np.unique(seen[seen[:, 1] > start_ms], axis=0))


def measure(load: Load, seconds: float, rounds: int = 1) -> Iterator[Row]:
    """Fill the windows, then give what each of some rounds took."""
    parameters = Parameters(
        delta_ms=load.delta_ms,
        hop_bins=load.hop,
        surrogates=load.surrogates,
        stale_after_ms=20 * load.delta_ms,
    )
    engine = Engine(parameters, capacity=load.sources)
    for k in range(load.sources):
        engine.slot(f"source-{k}")
    begin_ms, fill = 1_700_000_000_000, 1.1 * WINDOW * load.delta_ms / 1000
    for batch in batches(load, 1, begin_ms, fill):
        engine.step(batch)
    begin_ms += int(1000 * fill)
    for number in range(rounds):
        yield _timed(engine, load, batches(load, 2 + number, begin_ms, seconds), begin_ms)
        begin_ms += int(1000 * seconds)


def _timed(engine: Engine, load: Load, prepared: Sequence[InputBatch], begin_ms: int) -> Row:
    spans, evaluations, cpu, draws = [], 0, 0.0, Draws(load.delta_ms)
    for batch in prepared:
        began, began_cpu = time.perf_counter(), time.process_time()
        result = engine.step(batch)
        cpu += time.process_time() - began_cpu
        spans.append(time.perf_counter() - began)
        evaluations += result.evaluations
        draws.see(batch, result)
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
        draws.since(begin_ms) / evaluations,
        float(p50),
        float(p99),
    )


class Plain:
    """A source as one would write it at first: objects and deques of floats."""

    def __init__(self, channels: int = CHANNELS) -> None:
        nodes = min(channels, NODES)
        seen, told = (nodes + 1) // 2, nodes // 2
        self.ring = _series(channels, WINDOW)
        self.history = _series(nodes + 1, 8)
        self.cross = _floats(seen * told, 2 * LAGS + 1)
        self.with_level = _floats(nodes, 2 * LAGS + 1)
        self.auto = _floats(nodes + 1, LAGS + 1)
        self.priors = {f"channel-{c}": c / 7 for c in range(channels)}
        self.shares = [g / 7 for g in range(nodes)]


def _floats(rows: int, length: int) -> list[list[float]]:
    return [[row + k / 7 for k in range(length)] for row in range(rows)]


def _series(rows: int, length: int) -> list[deque[float]]:
    return [deque(values, length) for values in _floats(rows, length)]


def traced(make: Callable[[], object]) -> int:
    """Give the bytes that making an object takes."""
    gc.collect()
    tracemalloc.start()
    kept = make()
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del kept
    return size


def memory() -> list[dict[str, float]]:
    """Measure bytes per source of the engine, of a saved state and of plain objects."""
    return [_memory(channels) for channels in NAMED]


def engine_bytes(channels: int, sources: int = 2000) -> float:
    """Give the bytes a source takes in an engine that holds many."""

    def ours() -> Engine:
        engine = Engine(capacity=sources)
        for k in range(sources):
            _name(engine, f"source-{k}", channels)
        return engine

    return (traced(ours) - traced(lambda: Engine(capacity=1))) / sources


def _name(engine: Engine, source: str, channels: int) -> int:
    slot = engine.slot(source)
    engine.encode_event(slot, {f"c{n}": 1.0 for n in range(channels)})
    return slot


def _memory(channels: int) -> dict[str, float]:
    engine = engine_bytes(channels)
    plain = traced(lambda: [Plain(channels) for _ in range(200)]) / 200
    return {
        "channels": channels,
        "row_bytes": ROW.itemsize,
        "engine_bytes_per_source": engine,
        "blob_bytes": _blob_bytes(channels),
        "plain_bytes_per_source": plain,
        "saved_percent": 100 * (1 - engine / plain),
    }


def _blob_bytes(channels: int) -> int:
    """Give the size of the saved state of a source whose window is full."""
    engine = Engine()
    slot = _name(engine, "source-0", channels)
    drive = _drive(np.random.default_rng(0), 1, 2 * WINDOW)[:, 0]
    values = np.exp(0.9 + 0.8 * drive[:, np.arange(channels) % NODES])
    inputs = InputBuilder()
    for k, row in enumerate(values.tolist()):
        event = engine.encode_event(slot, {f"c{n}": value for n, value in enumerate(row)})
        inputs.add(slot, 1_700_000_000_000 + 250 * k, EVENT, *event)
    engine.step(inputs.build())
    return len(engine.save(slot))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=4.0, help="of offered events per row")
    parser.add_argument("--rounds", type=int, default=1, help="take the best of so many")
    arguments = parser.parse_args()
    began = time.perf_counter()
    warm_up()
    compiled = time.perf_counter() - began
    rows = [
        max(
            measure(load, arguments.seconds, arguments.rounds),
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
    print(f"calibration {result['calibration_mega_steps_per_s']:.1f} M steps/s\n")
    show(rows, result["memory"])


def show(rows: Sequence[Row], kept: Sequence[dict[str, float]]) -> None:
    """Print both tables as the documentation has them."""
    print(
        "| load | events/s | per processor second | evaluations/s | surrogates per evaluation "
        "| batch p50 ms | p99 ms |"
    )
    print("|---" * 7 + "|")
    for row in rows:
        rates = (row.events_per_s, row.events_per_cpu_s, row.evaluations_per_s)
        print(
            f"| {row.name} | "
            + " | ".join(f"{rate:,.0f}" for rate in rates)
            + f" | {100 * row.surrogates_per_evaluation:.1f} %"
            + f" | {row.batch_p50_ms:.1f} | {row.batch_p99_ms:.1f} |"
        )
    print("\n| bytes a source | " + " | ".join(f"{m['channels']} channels" for m in kept) + " |")
    print("|---" * (1 + len(kept)) + "|")
    for name, words in MEMORY:
        print(f"| {words} | " + " | ".join(f"{m[name]:,.0f}" for m in kept) + " |")


if __name__ == "__main__":
    main()
