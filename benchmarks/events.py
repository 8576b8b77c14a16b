"""Events through Redis: stream in, score, state and ledger out, by one score worker.

    python -m benchmarks.events [--events 200000] [--sources 1000] [--json]

Redis (embedded, AOF on), the worker and this generator share the machine's cores. Three rows:
a backlog over many sources; a backlog in which every source of a batch has one input; and events
offered at a constant rate, for the latency from XADD to score entry.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np
import psutil
from redis import Redis

from pipeline.embedded import EmbeddedRedis
from pipeline.partition import Keys

KEYS = Keys()
CHANNELS = 4
PIPELINE = 1000
PATIENCE_S = 300.0


@dataclass(slots=True)
class Row:
    """One measurement."""

    name: str
    events: int
    seconds: float
    worker_cpu_s: float
    redis_cpu_s: float
    score_entries: int
    evaluations: int
    latency_ms: tuple[float, float, float] | None = None

    def as_json(self) -> dict[str, Any]:
        """Give it with what follows from it."""
        row = {
            "row": self.name,
            "events": self.events,
            "events_per_s": round(self.events / self.seconds),
            "worker_cpu_us_per_event": round(self.worker_cpu_s / self.events * 1e6, 1),
            "redis_cpu_us_per_event": round(self.redis_cpu_s / self.events * 1e6, 1),
            "score_entries": self.score_entries,
            "evaluations_per_s": round(self.evaluations / self.seconds),
        }
        if self.latency_ms is not None:
            row |= dict(zip(("p50_ms", "p95_ms", "p99_ms"), self.latency_ms, strict=True))
        return row


class Publisher:
    """Adds events of many sources; values follow a slow wave so that there is structure."""

    def __init__(self, client: Redis, sources: int) -> None:
        self._client = client
        self._names = [f"s{number}" for number in range(sources)]
        self._streams = [KEYS.of_source(name).events for name in self._names]
        rng = np.random.default_rng(7)
        self._bodies = [
            msgpack.packb({f"c{c}": float(v) for c, v in enumerate(row)})
            for row in rng.gamma(2.0, 1.0, (997, CHANNELS))
        ]
        self._sent = 0

    def send(self, count: int, ts_ms: Sequence[int] | None = None) -> None:
        """Add `count` events, sources in turn."""
        pipe = self._client.pipeline(transaction=False)
        for index in range(count):
            turn = self._sent % len(self._names)
            fields: dict[str, Any] = {"source": self._names[turn]}
            fields["values"] = self._bodies[self._sent % len(self._bodies)]
            if ts_ms is not None:
                fields["ts"] = ts_ms[index]
            pipe.xadd(self._streams[turn], fields)
            self._sent += 1
        pipe.execute()


def ledger(client: Redis, term: str) -> int:
    """Sum a term of the ledger over the partitions."""
    pipe = client.pipeline(transaction=False)
    for number in range(KEYS.partitions):
        pipe.hget(KEYS.of(number).ledger, term)
    return sum(int(value or 0) for value in pipe.execute())


def count_entries(client: Redis) -> int:
    """Count score entries ever added."""
    pipe = client.pipeline(transaction=False)
    for number in range(KEYS.partitions):
        pipe.xinfo_stream(KEYS.of(number).scores)
    return sum(
        int(info["entries-added"])
        for info in pipe.execute(raise_on_error=False)
        if isinstance(info, dict)
    )


@contextmanager
def score_worker(url: str, client: Redis) -> Iterator[psutil.Process]:
    """Run a score worker that owns every partition."""
    environ = os.environ | {"PERCIPIO_REDIS_URL": url, "PERCIPIO_LOG_LEVEL": "warning"}
    process = subprocess.Popen([sys.executable, "-m", "workers.score"], env=environ)
    try:
        while (
            sum(client.hget(KEYS.of(n).owner, "owner") not in (None, b"") for n in range(16)) < 16
        ):
            if process.poll() is not None:
                raise SystemExit(f"the score worker ended with {process.returncode}")
            time.sleep(0.05)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def cpu_s(process: psutil.Process) -> float:
    """Give the CPU seconds a process has used."""
    times = process.cpu_times()
    return times.user + times.system


def drain(client: Redis, events: int) -> None:
    """Wait until so many events are scored."""
    deadline_s = time.monotonic() + PATIENCE_S
    while ledger(client, "events_scored") < events:
        if time.monotonic() > deadline_s:
            raise SystemExit("the backlog did not drain")
        time.sleep(0.01)


def backlog(name: str, events: int, sources: int, *, spread_ms: int) -> Row:
    """Measure a backlog; time between two events of a source is `spread_ms` of source time."""
    with EmbeddedRedis() as server, Redis.from_url(server.url) as client:
        redis = psutil.Process(server.pid)
        with score_worker(server.url, client) as worker:
            warm = Publisher(client, sources)
            start_ms = int(time.time() * 1000) - events // sources * spread_ms - 10_000
            warm.send(sources, [start_ms] * sources)
            drain(client, sources)
            worker.suspend()
            for begin in range(0, events, PIPELINE):
                numbers = range(begin, min(events, begin + PIPELINE))
                warm.send(
                    len(numbers), [start_ms + (1 + n // sources) * spread_ms for n in numbers]
                )
            before, entries = (cpu_s(worker), cpu_s(redis)), count_entries(client)
            began_s = time.monotonic()
            worker.resume()
            drain(client, sources + events)
            seconds = time.monotonic() - began_s
            after = (cpu_s(worker), cpu_s(redis))
            return Row(
                name,
                events,
                seconds,
                after[0] - before[0],
                after[1] - before[1],
                count_entries(client) - entries,
                0,
            )


def offered(rate: int, seconds: float, sources: int) -> Row:
    """Offer events at a constant rate; latency is what the entry ids tell."""
    with EmbeddedRedis() as server, Redis.from_url(server.url) as client:
        redis = psutil.Process(server.pid)
        with score_worker(server.url, client) as worker:
            publisher = Publisher(client, sources)
            publisher.send(sources)
            drain(client, sources)
            before, first = (cpu_s(worker), cpu_s(redis)), count_entries(client)
            began_s, sent, step = time.monotonic(), 0, max(1, rate // 200)
            while (elapsed_s := time.monotonic() - began_s) < seconds:
                if sent <= elapsed_s * rate:
                    publisher.send(step)
                    sent += step
                else:
                    time.sleep(0.001)
            drain(client, sources + sent)
            spent = time.monotonic() - began_s
            after = (cpu_s(worker), cpu_s(redis))
            latencies = np.concatenate([_latencies(client, n) for n in range(KEYS.partitions)])
            p50, p95, p99 = np.percentile(latencies, (50, 95, 99)).round(1).tolist()
            return Row(
                f"offered {rate}/s",
                sent,
                spent,
                after[0] - before[0],
                after[1] - before[1],
                count_entries(client) - first,
                0,
                (p50, p95, p99),
            )


def _latencies(client: Redis, number: int) -> np.ndarray[Any, Any]:
    """Give for each score entry its id's time minus that of its first input: the slowest of it."""
    found = []
    for entry_id, fields in client.xrange(KEYS.of(number).scores):
        if fields[b"kind"] == b"event":
            first_ms = int(fields[b"first"].partition(b"-")[0])
            found.append(int(entry_id.partition(b"-")[0]) - first_ms)
    return np.array(found, np.float64)


def main() -> None:
    """Run all rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--sources", type=int, default=1000)
    parser.add_argument("--rate", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = [
        backlog("backlog", args.events, args.sources, spread_ms=100),
        backlog("one input a source", args.events // 4, args.events // 16, spread_ms=1000),
        offered(args.rate, args.seconds, args.sources),
    ]
    for row in rows:
        print(json.dumps(row.as_json()) if args.json else row.as_json())


if __name__ == "__main__":
    main()
