"""What a source costs in memory, ours and the baseline's, worker and Redis apart."""

from __future__ import annotations

import tracemalloc
from itertools import islice

from redis import Redis

from benchmarks import ours
from benchmarks.load import WINDOW_TURNS, Load
from benchmarks.plain_source import Source
from pipeline.embedded import EmbeddedRedis

SOURCES = 12_000
FIRST = 2_000
CHANNELS = (4, 16)
TURNS = 1
HELD = 200


def measure_memory() -> dict[str, float]:
    """Give bytes per source with a full window, by pipeline, place and number of channels."""
    row: dict[str, float] = {"sources": SOURCES}
    for channels in CHANNELS:
        worker, redis = grow(channels)
        text, objects = _plain(channels)
        row |= {
            f"percipio worker, {channels} channels": round(worker),
            f"percipio redis, {channels} channels": round(redis),
            f"baseline redis, {channels} channels": round(text),
            f"baseline objects, {channels} channels": round(objects),
        }
    return row


def grow(channels: int) -> tuple[float, float]:
    """Measure by growth: a worker that has met some sources meets thousands more."""
    with EmbeddedRedis() as server, Redis.from_url(server.url) as client:
        keep = {"PERCIPIO_RESULTS_KEEP": "100"}
        with ours.processes(server.url, 1, keep) as workers:
            ours.settle(client, 1)
            total = ours.fill(client, Load(FIRST, channels))
            before = workers[0].memory_info().rss
            load = Load(SOURCES, channels).filling()
            # Some bins at a time, so that a backlog does not count.
            events = load.events()
            for _ in range(WINDOW_TURNS // TURNS):
                total += ours.publish(client, islice(events, TURNS * SOURCES))
                ours.drain(client, total)
            grown = workers[0].memory_info().rss - before
        redis = ours.bytes_per_source(client, load.names[FIRST : FIRST + 200])
        return grown / (SOURCES - FIRST), redis


def _plain(channels: int) -> tuple[float, float]:
    """Give the size in Redis of one source's JSON, and of the objects it is read into."""
    source = Source("s0")
    for _, ts_ms, values in islice(Load(1, channels).filling().events(), WINDOW_TURNS + 3):
        source.observe(ts_ms, values, always=False)
    text = source.to_json().encode()
    tracemalloc.start()
    held = [Source.from_json(text, "s0") for _ in range(HELD)]
    objects = tracemalloc.get_traced_memory()[0] / len(held)
    tracemalloc.stop()
    with EmbeddedRedis() as server, Redis.from_url(server.url) as client:
        client.set("plain:state:s0", text)
        return float(client.memory_usage("plain:state:s0")), objects
