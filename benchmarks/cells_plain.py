"""The baseline, measured: over the same load of fewer sources, as long as is asked for."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import numpy as np
import psutil
from redis import Redis

from benchmarks.baseline import EVENTS, SCORES, state_key
from benchmarks.cells import Cell, Clock, Figures, percentiles
from benchmarks.load import WINDOW_TURNS, Event, Load
from pipeline.embedded import EmbeddedRedis

SOURCES = 12
"""What an event costs the baseline does not depend on their number."""
LEAST_SCORES = 40
WARM = 50
AHEAD = 60
PATIENCE_S = 180.0


@contextmanager
def worker(url: str, options: list[str]) -> Iterator[list[psutil.Process]]:
    """Run the baseline until the block ends."""
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.baseline", url, *options])
    try:
        yield [psutil.Process(process.pid)]
    finally:
        process.terminate()
        process.wait()


def publish(client: Redis, events: Iterator[Event]) -> int:
    """Add events as the baseline reads them; gives how many."""
    pipe = client.pipeline(transaction=False)
    for source, ts_ms, values in events:
        event = {"source": source, "ts": ts_ms, "values": values}
        pipe.xadd(EVENTS, {"event": json.dumps(event)})
    return len(pipe.execute())


def scored(client: Redis) -> int:
    """Count the scores of the baseline."""
    if not client.exists(SCORES):
        return 0
    return int(client.xinfo_stream(SCORES)["entries-added"])


def measure_plain(cell: Cell, options: list[str], seconds: float) -> Figures:
    """Fill windows, work on a backlog for so long, then offer half of what that gave."""
    load = Load(SOURCES, cell.channels)
    filling = SOURCES * WINDOW_TURNS
    with EmbeddedRedis() as server, Redis.from_url(server.url) as client:
        publish(client, islice(load.filling().events(), filling))
        with worker(server.url, ["--recompute", "window"]):  # the same windows, sooner
            wait(client, filling)
        stream = load.events()
        with worker(server.url, options) as workers:
            publish(client, islice(stream, WARM))
            wait(client, filling + WARM)
            clock = Clock(workers, psutil.Process(server.pid))
            figures = clock.figures(keep_busy(client, stream, seconds))
            wait(client, published(client))
            figures.offered_per_s = max(1, round(figures.events_per_s / 2))
            first = client.xrevrange(SCORES, count=1)[0][0], client.xrevrange(EVENTS, count=1)[0][0]
            offer(client, stream, figures.offered_per_s, seconds)
        figures.latency_ms = percentiles(latencies_ms(client, *first))
        sizes = [client.memory_usage(state_key(name)) for name in load.names]
        figures.redis_bytes_per_source = sum(sizes) / len(sizes)
        return figures


def wait(client: Redis, scores: int) -> None:
    """Wait until there are so many scores."""
    deadline_s = time.monotonic() + PATIENCE_S
    while scored(client) < scores:
        if time.monotonic() > deadline_s:
            raise SystemExit(f"the baseline did not get to {scores} scores")
        time.sleep(0.01)


def published(client: Redis) -> int:
    """Count the events that were added."""
    return int(client.xinfo_stream(EVENTS)["entries-added"])


def keep_busy(client: Redis, stream: Iterator[Event], seconds: float) -> int:
    """Keep some events waiting for so long; gives how many were scored."""
    first, began_s = scored(client), time.monotonic()
    while (done := scored(client) - first) < LEAST_SCORES or time.monotonic() - began_s < seconds:
        if published(client) - scored(client) < AHEAD // 2:
            publish(client, islice(stream, AHEAD))
        time.sleep(0.01)
    return done


def offer(client: Redis, stream: Iterator[Event], rate: int, seconds: float) -> None:
    """Add events at a constant rate and wait until they are scored."""
    before, sent, began_s = scored(client), 0, time.monotonic()
    while (elapsed_s := time.monotonic() - began_s) < seconds:
        if sent <= elapsed_s * rate:
            sent += publish(client, islice(stream, 1))
        else:
            time.sleep(0.001)
    wait(client, before + sent)


def latencies_ms(client: Redis, score: bytes, event: bytes) -> np.ndarray:
    """Give each later event's time to its score: the n-th score is the n-th event's."""
    scores = client.xrange(SCORES, min=f"({score.decode()}")
    events = client.xrange(EVENTS, min=f"({event.decode()}")
    pairs = zip(scores, events, strict=True)
    spans = [int(a[0].split(b"-")[0]) - int(b[0].split(b"-")[0]) for a, b in pairs]
    return np.array(spans, np.float64)
