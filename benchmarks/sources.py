"""Memory of many sources in one score worker, and in Redis.

    python -m benchmarks.sources [--sources 100000] [--events 2] [--cold]

Every source of `--sources` sends `--events` events of eight channels. Printed are the worker's
resident memory before and after, what a source takes there and in Redis (`MEMORY USAGE` of a
sample), and what one with a full window takes in Redis. `--cold` then waits until the worker has
put every source out of its memory (five minutes of silence), lets a thousand come back and checks
their counts, and lets as many new ones come: their memory is that of those that left.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any
from urllib.request import urlopen

import msgpack
import psutil
from redis import Redis

from benchmarks.events import KEYS, Workers, drain, ledger, score_workers
from benchmarks.publisher import PIPELINE
from benchmarks.scaling_memory import grow
from benchmarks.scoring import Plain, traced
from pipeline.embedded import EmbeddedRedis

CHANNELS = 8
SAMPLE = 500
AHEAD = 20_000
"""Events that may wait, so that Redis holds sources and not a backlog."""
COLD_S = 420.0
MIB = 2**20


def publish(client: Redis, names: list[str], events: int) -> None:
    """Add events of every source, no more ahead of the worker than Redis should hold."""
    scored, sent = ledger(client, "events_scored"), 0
    for turn in range(events):
        values = msgpack.packb({f"c{c}": 1.0 + turn + c for c in range(CHANNELS)})
        for begin in range(0, len(names), PIPELINE):
            pipe = client.pipeline(transaction=False)
            for name in names[begin : begin + PIPELINE]:
                pipe.xadd(KEYS.of_source(name).events, {"source": name, "values": values})
            pipe.execute()
            sent += len(names[begin : begin + PIPELINE])
            while sent - (ledger(client, "events_scored") - scored) > AHEAD:
                time.sleep(0.05)
    drain(client, scored + sent)


def in_memory(workers: Workers) -> int:
    """Give how many sources the worker holds."""
    with urlopen(f"http://127.0.0.1:{workers.ports[0]}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    found = (line for line in lines if line.startswith("percipio_sources{"))
    return int(sum(float(line.split()[1]) for line in found))


def resident(workers: Workers) -> int:
    """Give the worker's resident memory in bytes."""
    return int(psutil.Process(workers.processes[0].pid).memory_info().rss)


def usage(client: Redis, names: list[str], kind: str) -> float:
    """Give the mean bytes of a kind of key over a sample of sources."""
    sample = names[:: max(1, len(names) // SAMPLE)]
    pipe = client.pipeline(transaction=False)
    for name in sample:
        pipe.memory_usage(getattr(KEYS.of_source(name), kind)(name))
    return float(sum(pipe.execute()) / len(sample))


def go_cold(client: Redis, workers: Workers, names: list[str], events: int) -> dict[str, Any]:
    """Let all sources leave the worker's memory, some come back and as many new ones come."""
    deadline_s = time.monotonic() + COLD_S
    while (left := in_memory(workers)) and time.monotonic() < deadline_s:
        time.sleep(5)
    back = names[:1000]
    publish(client, back, 1)
    pipe = client.pipeline(transaction=False)
    for name in back:
        pipe.hget(KEYS.of_source(name).state(name), "seq")
    right = sum(int(seq) == events + 1 for seq in pipe.execute())
    before = resident(workers)
    publish(client, [f"new-{name}" for name in names], 1)
    return {
        "left_in_memory": left,
        "came_back_with_the_right_count": right,
        "of": len(back),
        "grown_by_as_many_new_mib": round((resident(workers) - before) / MIB),
    }


def worker_bytes(sources: int, events: int = 2) -> float:
    """Measure what a source takes in a score worker."""
    names = [f"s{number}" for number in range(sources)]
    with (
        EmbeddedRedis() as server,
        Redis.from_url(server.url) as client,
        score_workers(server.url, client, 1) as workers,
    ):
        publish(client, names[:1], 1)
        base = resident(workers)
        publish(client, names, events)
        return (resident(workers) - base) / sources


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sources", type=int, default=100_000)
    parser.add_argument("--events", type=int, default=2)
    parser.add_argument("--cold", action="store_true")
    args = parser.parse_args()
    names = [f"s{number}" for number in range(args.sources)]
    with (
        EmbeddedRedis() as server,
        Redis.from_url(server.url) as client,
        score_workers(server.url, client, 1) as workers,
    ):
        publish(client, names[:1], 1)
        base = resident(workers)
        publish(client, names[1:], 1)
        publish(client, names, args.events - 1)
        grown = resident(workers)
        plain = traced(lambda: [Plain(CHANNELS) for _ in range(200)]) / 200
        row: dict[str, Any] = {
            "sources": args.sources,
            "worker_mib": round(grown / MIB),
            "worker_mib_without_sources": round(base / MIB),
            "worker_bytes_per_source": round((grown - base) / args.sources),
            "plain_object_bytes_per_source": round(plain),
            "redis_memory_bytes_per_source": round(usage(client, names, "memory")),
            "redis_state_bytes_per_source": round(usage(client, names, "state")),
            "redis_bytes_per_full_source": round(grow(CHANNELS)[1]),
        }
        print(json.dumps(row), flush=True)
        if args.cold:
            print(json.dumps(go_cold(client, workers, names, args.events)), flush=True)


if __name__ == "__main__":
    main()
