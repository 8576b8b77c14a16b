"""Several workers for a long time at a constant rate: spread between them, drift, memory."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator

import psutil
from redis import Redis

from benchmarks import ours
from benchmarks.cells import memory_mib, percentiles
from benchmarks.load import Event, Load
from pipeline.embedded import EmbeddedRedis

EVERY_S = 10.0
SETTINGS = {"PERCIPIO_RESULTS_KEEP": "5000", "PERCIPIO_LEASE_MS": "6000"}
Row = dict[str, float | list[float]]


def soak(seconds: float, rate: int, workers: int, load: Load) -> Iterator[Row]:
    """Give a row every ten seconds: events/s of each worker, latency, memory, backlog."""
    with (
        EmbeddedRedis() as server,
        Redis.from_url(server.url) as client,
        ours.processes(server.url, workers, SETTINGS) as processes,
    ):
        owners = ours.settle(client, workers)
        total = ours.fill(client, load)
        offering = Offering(server.url, load.events(), rate)
        offering.start()
        began_s, before = time.monotonic(), ours.scored(client)
        try:
            while (at_s := time.monotonic() - began_s) < seconds:
                since, then_s = ours.newest_scores(client), time.monotonic()
                time.sleep(EVERY_S)
                now = ours.scored(client)
                row = _rates(client, owners, before, now, time.monotonic() - then_s)
                p50, p95, p99 = percentiles(ours.latencies_ms(client, since))
                row |= {"at_s": round(at_s), "p50_ms": p50, "p95_ms": p95, "p99_ms": p99}
                row |= {"waiting": total + offering.count - sum(now.values())}
                row |= {"rss_mib": [round(memory_mib([each])[0], 1) for each in processes]}
                row |= {"redis_rss_mib": round(_redis_mib(server.pid), 1)}
                before = now
                print(row, flush=True)
                yield row
        finally:
            offering.stop()
        ours.drain(client, total + offering.count)
        print(f"{offering.count} events offered, every one of them scored", flush=True)


class Offering(threading.Thread):
    """Adds events at a constant rate until told to stop."""

    def __init__(self, url: str, events: Iterator[Event], rate: int) -> None:
        super().__init__(name="offering", daemon=True)
        self._url, self._events, self._rate = url, events, rate
        self._ending = threading.Event()
        self.count = 0

    def run(self) -> None:
        """Offer a second's worth at a time."""
        with Redis.from_url(self._url) as client:
            while not self._ending.is_set():
                self.count += ours.offer(client, self._events, self._rate, 1.0)

    def stop(self) -> None:
        """End after the second that has begun."""
        self._ending.set()
        self.join()


def _rates(
    client: Redis,
    owners: dict[int, str],
    before: dict[int, int],
    now: dict[int, int],
    seconds: float,
) -> Row:
    shares = Counter[str]()
    for partition, owner in owners.items():
        shares[owner] += now[partition] - before[partition]
    rates = [round(count / seconds, 1) for _, count in sorted(shares.items())]
    moved = sum(ours.owners(client).get(number) != owner for number, owner in owners.items())
    return {"events_per_s": round(sum(rates), 1), "by_worker": rates, "partitions_moved": moved}


def _redis_mib(pid: int) -> float:
    return float(psutil.Process(pid).memory_info().rss / (1 << 20))
