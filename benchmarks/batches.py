"""CPU of one score batch without Redis: read events, score them, pack the commit.

    python -m benchmarks.batches

Printed are microseconds of this thread's CPU an event, tenth percentile over batches (other work on
the machine makes the rest slower), and the bytes an event that a commit sends to Redis.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import msgpack
import numpy as np

from pipeline.event_reader import EventReader
from pipeline.ownership import _source
from pipeline.partition import Keys, partition_of
from pipeline.score_inputs import Inputs
from pipeline.scorer import PartitionScorer
from pipeline.scoring.engine import Engine, warm_up
from pipeline.stream import Raw, pack_arguments

PARTITION, PARTITIONS, CHANNELS = 3, 16, 4
T0 = 1_700_000_000_000
ROWS = ((62, 512, 100, 45), (100, 100, 100, 120), (780, 100, 1000, 60))
"""Sources, events of a batch, ms between two events of a source, batches."""


def measure(sources: int, size: int, spread_ms: int, batches: int) -> dict[str, Any]:
    """Score batches of events of sources in turn."""
    every = (f"s{number}" for number in range(sources * PARTITIONS * 2))
    names = [name for name in every if partition_of(name, PARTITIONS) == PARTITION][:sources]
    rng = np.random.default_rng(7)
    bodies = [
        msgpack.packb({f"c{c}": float(v) for c, v in enumerate(row)})
        for row in rng.gamma(2.0, 1.0, (997, CHANNELS))
    ]
    scorer, reader = PartitionScorer(Engine()), EventReader(PARTITION, PARTITIONS)
    scorer.learn(dict.fromkeys(names))
    spans: list[tuple[float, float, float]] = []
    sent = 0
    for number in range(batches):
        waiting: deque[Raw] = deque()
        for k in range(number * size, (number + 1) * size):
            at_ms = T0 + k // sources * spread_ms
            fields = {b"source": names[k % sources].encode(), b"values": bodies[k % len(bodies)]}
            waiting.append((b"%d-%d" % (at_ms, k), fields | {b"ts": b"%d" % at_ms}))
        began_s = time.thread_time()
        inputs = Inputs()
        reader.take(waiting, inputs, size, size)
        read_s = time.thread_time()
        result = scorer.score(inputs, T0)
        scored_s = time.thread_time()
        keys: list[str] = []
        writes = [_source(write, Keys().of(PARTITION), keys) for write in result.sources]
        sent += len(pack_arguments({"scores": result.scores, "sources": writes}))
        packed_s = time.thread_time()
        spans.append((read_s - began_s, scored_s - read_s, packed_s - scored_s))
    taken = np.percentile(np.array(spans[batches // 3 :]), 10, axis=0) / size * 1e6
    row: dict[str, Any] = {"sources": sources, "batch": size, "spread_ms": spread_ms}
    row |= dict(zip(("read_us", "score_us", "pack_us"), taken.round(1).tolist(), strict=True))
    return row | {"bytes": round(sent / batches / size)}


def main() -> None:
    """Print a row a load."""
    warm_up()
    for row in ROWS:
        print(measure(*row), flush=True)


if __name__ == "__main__":
    main()
