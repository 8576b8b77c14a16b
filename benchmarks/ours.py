"""A deployment of score workers under load: started, fed, drained, asked for latency and memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from itertools import islice

import msgpack
import numpy as np
import psutil
from redis import Redis

from benchmarks.load import WINDOW_TURNS, Event, Load
from pipeline.partition import Keys

KEYS = Keys()
A_TRIP = 1000
PATIENCE_S = 400.0
SETTLED_S = 1.0
STEP_S = 0.004
LONG_LEASE_MS = "120000"
"""Workers are suspended while a backlog is written; nobody shall take their partitions then."""
Fleet = Callable[[str, int, Mapping[str, str]], AbstractContextManager[list[psutil.Process]]]
"""Starts workers on a Redis URL with settings; gives their processes."""


@contextmanager
def processes(
    url: str, workers: int, settings: Mapping[str, str]
) -> Iterator[list[psutil.Process]]:
    """Run score workers as plain processes until the block ends."""
    environ = os.environ | {
        "PERCIPIO_REDIS_URL": url,
        "PERCIPIO_LOG_LEVEL": "warning",
        "PERCIPIO_LEASE_MS": LONG_LEASE_MS,
        **settings,
    }
    command = [sys.executable, "-m", "workers.score"]
    started = [subprocess.Popen(command, env=environ) for _ in range(workers)]
    try:
        yield [psutil.Process(process.pid) for process in started]
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait()


def owners(client: Redis) -> dict[int, str]:
    """Give the score worker of each partition that has one."""
    pipe = client.pipeline(transaction=False)
    for number in range(KEYS.partitions):
        pipe.hget(KEYS.of(number).owner, "owner")
    return {n: name.decode() for n, name in enumerate(pipe.execute()) if name}


def settle(client: Redis, workers: int) -> dict[int, str]:
    """Wait until every partition has an owner, every worker its share, and it stays so."""
    deadline_s = time.monotonic() + PATIENCE_S
    before, since_s = dict[int, str](), time.monotonic()
    fair = -(-KEYS.partitions // workers)
    while True:
        now = owners(client)
        shares = Counter(now.values())
        if now != before or len(now) < KEYS.partitions or len(shares) < workers:
            before, since_s = now, time.monotonic()
        elif max(shares.values()) <= fair and time.monotonic() - since_s > SETTLED_S:
            return now
        if time.monotonic() > deadline_s:
            raise SystemExit(f"{len(shares)} of {workers} workers own {len(now)} partitions")
        time.sleep(0.05)


def ledger(client: Redis, term: str) -> dict[int, int]:
    """Give a term of the ledger, by partition."""
    pipe = client.pipeline(transaction=False)
    for number in range(KEYS.partitions):
        pipe.hget(KEYS.of(number).ledger, term)
    return {number: int(count or 0) for number, count in enumerate(pipe.execute())}


def scored(client: Redis) -> dict[int, int]:
    """Count the events scored, by partition."""
    return ledger(client, "events_scored")


def publish(client: Redis, events: Iterable[Event]) -> int:
    """Add events, a trip for each thousand; gives how many."""
    count = 0
    remaining = iter(events)
    while some := list(islice(remaining, A_TRIP)):
        pipe = client.pipeline(transaction=False)
        for source, ts_ms, values in some:
            fields = {"source": source, "ts": ts_ms, "values": msgpack.packb(values)}
            pipe.xadd(KEYS.of_source(source).events, fields)
        pipe.execute()
        count += len(some)
    return count


def drain(client: Redis, events: int) -> None:
    """Wait until so many events are scored."""
    deadline_s = time.monotonic() + PATIENCE_S
    while (count := sum(scored(client).values())) < events:
        if time.monotonic() > deadline_s:
            raise SystemExit(f"{count} of {events} events were scored in {PATIENCE_S:g} s")
        time.sleep(0.02)


def offer(client: Redis, events: Iterator[Event], rate: int, seconds: float) -> int:
    """Add events at a constant rate, all that are due at once; gives how many."""
    began_s, sent = time.monotonic(), 0
    while (elapsed_s := time.monotonic() - began_s) < seconds:
        if due := int(elapsed_s * rate) - sent:
            sent += publish(client, islice(events, due))
        time.sleep(STEP_S)
    return sent


def latencies_ms(client: Redis, since: Mapping[int, str]) -> np.ndarray:
    """Give for each score entry after those ids the age of its oldest input when it was written."""
    found = []
    for number, after in since.items():
        for entry_id, fields in client.xrange(KEYS.of(number).scores, min=f"({after}"):
            if fields[b"kind"] == b"event":
                first = fields[b"first"]
                found.append(_milliseconds(entry_id) - _milliseconds(first))
    return np.array(found, np.float64)


def newest_scores(client: Redis) -> dict[int, str]:
    """Give the id of the newest score entry of each partition."""
    found = {}
    for number in range(KEYS.partitions):
        newest = client.xrevrange(KEYS.of(number).scores, count=1)
        found[number] = newest[0][0].decode() if newest else "0"
    return found


def _milliseconds(entry_id: bytes) -> int:
    return int(entry_id.partition(b"-")[0])


def cpu_s(these: Iterable[psutil.Process]) -> float:
    """Give the processor seconds used by processes."""
    times = [process.cpu_times() for process in these]
    return sum(each.user + each.system for each in times)


def fill(client: Redis, load: Load) -> int:
    """Fill every source's window and wait until that is scored; gives the events so far."""
    publish(client, islice(load.filling().events(), load.sources * WINDOW_TURNS))
    total = load.sources * WINDOW_TURNS
    drain(client, total)
    return total


def bytes_per_source(client: Redis, sources: Iterable[str]) -> float:
    """Give what Redis holds of a source besides streams: MEMORY USAGE of its keys, mean."""
    total, count = 0, 0
    for source in sources:
        keys = KEYS.of_source(source)
        pipe = client.pipeline(transaction=False)
        pipe.memory_usage(keys.memory(source))
        pipe.memory_usage(keys.state(source))
        total += sum(size or 0 for size in pipe.execute())
        count += 1
    return total / count


def entries_added(client: Redis) -> int:
    """Count the score entries ever added."""
    pipe = client.pipeline(transaction=False)
    for number in range(KEYS.partitions):
        pipe.xinfo_stream(KEYS.of(number).scores)
    found = pipe.execute(raise_on_error=False)
    return sum(int(info["entries-added"]) for info in found if isinstance(info, dict))


def bytes_per_entry(client: Redis) -> float:
    """Give Redis's memory for a score entry, mean over all that are kept."""
    streams = [KEYS.of(number).scores for number in range(KEYS.partitions)]
    sizes = [client.memory_usage(stream, samples=0) or 0 for stream in streams]
    return sum(sizes) / max(1, sum(client.xlen(stream) for stream in streams))


def traffic(client: Redis) -> int:
    """Give the bytes that went into and out of Redis so far."""
    stats = client.info("stats")
    return int(stats["total_net_input_bytes"]) + int(stats["total_net_output_bytes"])
