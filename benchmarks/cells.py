"""One cell of the comparison, measured: a pipeline, a number of workers, a batch size."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice

import numpy as np
import psutil
from redis import Redis

from benchmarks import ours
from benchmarks.load import Load
from pipeline.embedded import EmbeddedRedis

MEBI = 1 << 20


@dataclass(frozen=True, slots=True)
class Cell:
    """What to measure.

    Attributes:
        pipeline: `percipio`, or `baseline` with its options.
        place: `processes` or `ray`.
        batch: `PERCIPIO_SCORE_BATCH`; None leaves the default.
    """

    pipeline: str = "percipio"
    place: str = "processes"
    workers: int = 1
    batch: int | None = None
    channels: int = 4


@dataclass(slots=True)
class Figures:
    """What was measured.

    Attributes:
        events_per_s: while a backlog is worked off.
        cpu_us: of the workers per event, and of Redis.
        latency_ms: p50, p95 and p99 from an event's XADD to its score, at `offered_per_s`.
        rss_mib: of all workers; uss_mib: less what they share.
        spread: most and least events that a worker scored of the backlog, over their mean.
    """

    events: int
    seconds: float
    cpu_us: float
    redis_us: float
    rss_mib: float
    uss_mib: float
    offered_per_s: int = 0
    latency_ms: tuple[float, float, float] = (0.0, 0.0, 0.0)
    spread: tuple[float, float] = (1.0, 1.0)
    redis_bytes_per_source: float = 0.0

    @property
    def events_per_s(self) -> float:
        """Throughput."""
        return self.events / self.seconds

    def as_json(self, cell: Cell) -> str:
        """Give a line of JSON with what was measured of what."""
        row = asdict(cell) | asdict(self) | {"events_per_s": round(self.events_per_s, 1)}
        return json.dumps(row | {"load_average": round(psutil.getloadavg()[0], 2)})


def percentiles(milliseconds: np.ndarray) -> tuple[float, float, float]:
    """Give p50, p95 and p99."""
    if not len(milliseconds):
        return (float("nan"),) * 3
    p50, p95, p99 = np.percentile(milliseconds, (50, 95, 99)).round(1).tolist()
    return p50, p95, p99


def memory_mib(these: list[psutil.Process]) -> tuple[float, float]:
    """Give RSS and USS of all."""
    full = [process.memory_full_info() for process in these]
    return sum(each.rss for each in full) / MEBI, sum(each.uss for each in full) / MEBI


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how hard.

    Attributes:
        events: of the backlog.
        rate: events a second that are offered afterwards, for the latency.
        seconds: how long.
    """

    load: Load
    events: int
    rate: int
    seconds: float


def measure_ours(cell: Cell, fleet: ours.Fleet, plan: Plan) -> Figures:
    """Fill windows, write a backlog while the workers are suspended, drain it, then offer."""
    settings = {} if cell.batch is None else {"PERCIPIO_SCORE_BATCH": str(cell.batch)}
    with (
        EmbeddedRedis() as server,
        Redis.from_url(server.url) as client,
        fleet(server.url, cell.workers, settings) as workers,
    ):
        owners = ours.settle(client, cell.workers)
        total = ours.fill(client, plan.load)
        stream = plan.load.events()
        with suspended(workers):
            total += ours.publish(client, islice(stream, plan.events))
            before = ours.scored(client)
            clock = Clock(workers, psutil.Process(server.pid))
        ours.drain(client, total)
        figures = clock.figures(plan.events)
        figures.spread = spread(owners, before, ours.scored(client))
        since = ours.newest_scores(client)
        total += ours.offer(client, stream, plan.rate, plan.seconds)
        ours.drain(client, total)
        figures.offered_per_s = plan.rate
        figures.latency_ms = percentiles(ours.latencies_ms(client, since))
        figures.redis_bytes_per_source = ours.bytes_per_source(client, plan.load.names[:100])
        return figures


@contextmanager
def suspended(workers: list[psutil.Process]) -> Iterator[None]:
    """Hold processes still during the block."""
    for worker in workers:
        worker.suspend()
    try:
        yield
    finally:
        for worker in workers:
            worker.resume()


class Clock:
    """Measures time and processor time from now on."""

    def __init__(self, workers: list[psutil.Process], redis: psutil.Process) -> None:
        self._workers, self._redis = workers, redis
        self._cpu_s = ours.cpu_s(workers), ours.cpu_s([redis])
        self.began_s = time.monotonic()

    def figures(self, events: int) -> Figures:
        """Give what so many events have taken."""
        seconds = time.monotonic() - self.began_s
        rss, uss = memory_mib(self._workers)
        return Figures(
            events,
            seconds,
            (ours.cpu_s(self._workers) - self._cpu_s[0]) / events * 1e6,
            (ours.cpu_s([self._redis]) - self._cpu_s[1]) / events * 1e6,
            rss,
            uss,
        )


def spread(
    owners: dict[int, str], before: dict[int, int], after: dict[int, int]
) -> tuple[float, float]:
    """Give the most and the least events that a worker scored, over the mean."""
    shares = Counter[str]()
    for partition, owner in owners.items():
        shares[owner] += after[partition] - before[partition]
    mean = sum(shares.values()) / len(shares)
    return max(shares.values()) / mean, min(shares.values()) / mean
