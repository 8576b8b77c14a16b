"""CPU of one score batch without Redis: read events, score them, pack the commit.

    python -m benchmarks.batches [--profile]

Printed are microseconds of this thread's CPU an event, tenth percentile over batches (other work on
the machine makes the rest slower), and the bytes an event that a commit sends to Redis. `--profile`
divides a batch into steps by explicit spans, medians over batches: a clock is read where some
functions begin and end, and time inside another step is not counted twice. That costs a microsecond
or two an event, so the same batch is timed without spans too. cProfile stops at every call and
makes cheap ones look dear.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from itertools import islice
from typing import Any

import msgpack
import numpy as np

from benchmarks.load import Load
from pipeline import score_rows, scorer
from pipeline.event_reader import EventReader
from pipeline.ownership import _source
from pipeline.partition import Keys, partition_of
from pipeline.score_inputs import Inputs
from pipeline.scorer import PartitionScorer, Result
from pipeline.scoring.batch import InputBuilder
from pipeline.scoring.engine import Engine, warm_up
from pipeline.stream import Raw, pack_arguments

PARTITION, PARTITIONS, CHANNELS = 3, 16, 4
OWN = Keys(partitions=PARTITIONS).of(PARTITION)
T0 = 1_700_000_000_000
ROWS = ((62, 512, 100, 45), (100, 100, 100, 240), (780, 100, 1000, 60))
"""Sources, events of a batch, ms between two events of a source, batches."""
PROFILED = (ROWS[1], ROWS[0])
KINDS, TURNS = 97, 100
"""Courses of values that sources share, and turns until they come round."""

READ, GROUP, ENCODE, ENGINE = "read, decode", "group, producers", "encode", "engine"
ENTRIES, WRITES, PACK = "describe, pack entries", "state writes", "pack commit"
STEPS: tuple[tuple[Any, str, str], ...] = (
    (EventReader, "take", READ),
    (PartitionScorer, "score", GROUP),
    (PartitionScorer, "_prepare_event", ENCODE),
    (InputBuilder, "build", ENCODE),
    (score_rows, "group", GROUP),
    (Engine, "step", ENGINE),
    (PartitionScorer, "_scored", ENTRIES),
    (scorer, "score_fields", ENTRIES),
    (PartitionScorer, "_write", WRITES),
)
"""Which function of what belongs to which step, less the functions that it calls."""


class Spans:
    """Divides time among the steps that are open, each moment to the innermost."""

    def __init__(self) -> None:
        self.taken_s: Counter[str] = Counter()
        self._open = [""]
        self._since_s = time.perf_counter()

    def _turn(self) -> None:
        now_s = time.perf_counter()
        self.taken_s[self._open[-1]] += now_s - self._since_s
        self._since_s = now_s

    def around(self, step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Give the function with its time counted to a step."""

        @wraps(function)
        def timed(*given: Any, **named: Any) -> Any:
            self._turn()
            self._open.append(step)
            try:
                return function(*given, **named)
            finally:
                self._turn()
                self._open.pop()

        return timed

    def take(self) -> dict[str, float]:
        """Give seconds by step since the last call."""
        taken, self.taken_s = self.taken_s, Counter()
        return taken


@contextmanager
def spans() -> Iterator[Spans]:
    """Time the steps of a batch while this lasts."""
    found, plain = Spans(), [(owner, name, getattr(owner, name)) for owner, name, _ in STEPS]
    for owner, name, step in STEPS:
        setattr(owner, name, found.around(step, getattr(owner, name)))
    try:
        yield found
    finally:
        for owner, name, function in plain:
            setattr(owner, name, function)


def waiting_batches(sources: int, size: int, spread_ms: int, batches: int) -> Iterator[deque[Raw]]:
    """Give batches of events of sources in turn, as they are read from Redis."""
    names = [name.encode() for name in names_of(sources)]
    events = islice(Load(sources=KINDS, channels=CHANNELS).events(), KINDS * TURNS)
    bodies = [msgpack.packb(values) for _, _, values in events]
    for number in range(batches):
        waiting: deque[Raw] = deque()
        for k in range(number * size, (number + 1) * size):
            turn, source = divmod(k, sources)
            body = bodies[turn % TURNS * KINDS + source % KINDS]
            at_ms = T0 + turn * spread_ms
            fields = {b"source": names[source], b"values": body, b"ts": b"%d" % at_ms}
            waiting.append((b"%d-%d" % (at_ms, k), fields))
        yield waiting


def names_of(sources: int) -> list[str]:
    """Name so many sources of the partition."""
    every = (f"s{number}" for number in range(sources * PARTITIONS * 2))
    return [name for name in every if partition_of(name, PARTITIONS) == PARTITION][:sources]


def packed(result: Result) -> bytes:
    """Give what a commit sends of a result."""
    keys: list[str] = []
    writes = [_source(write, OWN, keys) for write in result.sources]
    return pack_arguments({"scores": result.scores, "sources": writes})


def measure(
    sources: int, size: int, spread_ms: int, batches: int, percentile: int = 10
) -> dict[str, Any]:
    """Score batches of events of sources in turn."""
    partition, reader = PartitionScorer(Engine()), EventReader(PARTITION, PARTITIONS)
    partition.learn(dict.fromkeys(names_of(sources)))
    times: list[tuple[float, float, float]] = []
    sent = 0
    for waiting in waiting_batches(sources, size, spread_ms, batches):
        began_s = time.thread_time()
        inputs = Inputs()
        reader.take(waiting, inputs, size, size)
        read_s = time.thread_time()
        result = partition.score(inputs, T0)
        scored_s = time.thread_time()
        sent += len(packed(result))
        times.append((read_s - began_s, scored_s - read_s, time.thread_time() - scored_s))
    taken = np.percentile(np.array(times[batches // 3 :]), percentile, axis=0) / size * 1e6
    row: dict[str, Any] = {"sources": sources, "batch": size, "spread_ms": spread_ms}
    row |= dict(zip(("read_us", "score_us", "pack_us"), taken.round(1).tolist(), strict=True))
    return row | {"bytes": round(sent / batches / size)}


def profile(sources: int, size: int, spread_ms: int, batches: int) -> dict[str, float]:
    """Give microseconds an event by step, median over the last two thirds of the batches."""
    found: list[dict[str, float]] = []
    with spans() as clock:
        partition, reader = PartitionScorer(Engine()), EventReader(PARTITION, PARTITIONS)
        partition.learn(dict.fromkeys(names_of(sources)))
        pack = clock.around(PACK, packed)
        for waiting in waiting_batches(sources, size, spread_ms, batches):
            inputs = Inputs()
            clock.take()
            reader.take(waiting, inputs, size, size)
            pack(partition.score(inputs, T0))
            found.append(clock.take())
    steps = (READ, GROUP, ENCODE, ENGINE, ENTRIES, WRITES, PACK)
    kept = found[batches // 3 :]
    return {step: float(np.median([one[step] for one in kept])) / size * 1e6 for step in steps}


def show_profile() -> None:
    """Print a table with a column a load."""
    columns = [profile(*row) for row in PROFILED]
    plain = [measure(*row, percentile=50) for row in PROFILED]
    print(
        "| step, us an event | " + " | ".join(f"{s} events of {n}" for n, s, *_ in PROFILED) + " |"
    )
    print("|---" * (1 + len(PROFILED)) + "|")
    for step in columns[0]:
        cells = (f"{c[step]:.1f} ({100 * c[step] / sum(c.values()):.0f} %)" for c in columns)
        print(f"| {step} | " + " | ".join(cells) + " |")
    print("| all | " + " | ".join(f"{sum(c.values()):.1f}" for c in columns) + " |")
    alone = (sum(row[name] for name in ("read_us", "score_us", "pack_us")) for row in plain)
    print("| without spans | " + " | ".join(f"{total:.1f}" for total in alone) + " |")


def main() -> None:
    """Print a row a load, or where the time of two goes."""
    parser = argparse.ArgumentParser(description="CPU of one score batch without Redis")
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    warm_up()
    if arguments.profile:
        show_profile()
        return
    for row in ROWS:
        print(measure(*row), flush=True)


if __name__ == "__main__":
    main()
