"""Events through Redis: stream in, score, state and ledger out, by one score worker.

    python -m benchmarks.events [--events 200000] [--sources 1000] [--workers 1] [--rounds 3]

Redis (embedded, AOF on), the workers and this generator share the machine's cores. Four rows:
a backlog over many sources; a backlog in which every source of a batch has one input; and events
offered at a constant rate, for the latency from XADD to score entry, without and with Redis
rewriting its AOF meanwhile, which takes a core for a while (`aof_rewrite_s`). An id is given when
Redis runs the XADD: `behind` is how far the generator was behind its schedule.

Most inputs only add to an open bin: beside inputs a second stand evaluations a second, and beside
the time to the score entry the time to the first entry whose level includes the input. Windows are
filled first and channels follow each other, so that there is a level: the share of score entries
with one above 0 is printed.
`stolen_share` is what the host of a virtual machine gave to others meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.request import urlopen
from zlib import crc32

import numpy as np
import psutil
from redis import Redis

from benchmarks.publisher import Publisher
from pipeline.embedded import EmbeddedRedis
from pipeline.partition import Keys
from pipeline.scoring.parameters import Parameters
from pipeline.scoring.state import golden_phase

# `PERCIPIO_PARTITIONS` counts: what a partition's turn costs is shared by the inputs it brings.
KEYS = Keys(partitions=int(os.environ.get("PERCIPIO_PARTITIONS", Keys().partitions)))
FILL_TURNS, FILL_MS = 68, 250
"""One event a bin for so many turns fills every window."""
LONE_TURNS = 20
"""An event every fourth bin for so many turns does too."""
SETTLE_S = 3.0
PATIENCE_S = 300.0
QUANTILES = (50, 95, 99)
Percentiles = tuple[float, ...]


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
    level_share: float
    phases_changed: int
    stolen: float = 0.0
    entry_ms: Percentiles | None = None
    level_ms: Percentiles | None = None
    behind_ms: Percentiles | None = None
    aof_rewrite_s: int | None = None

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
            "level_above_0_share": round(self.level_share, 3),
            "phases_changed": self.phases_changed,
            "stolen_share": round(self.stolen, 2),
        }
        if self.aof_rewrite_s is not None:
            row["aof_rewrite_s"] = self.aof_rewrite_s
        percentiles = ("entry", self.entry_ms), ("level", self.level_ms), ("behind", self.behind_ms)
        for name, found in percentiles:
            if found is not None:
                row |= {f"{name}_p{q}_ms": ms for q, ms in zip(QUANTILES, found, strict=True)}
        return row


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


@dataclass(slots=True)
class Workers:
    """Score workers, as their operating system and their metrics see them."""

    processes: list[psutil.Process]
    ports: list[int]

    def suspend(self) -> None:
        """Stop them where they are."""
        for process in self.processes:
            process.suspend()

    def resume(self) -> None:
        """Let them go on."""
        for process in self.processes:
            process.resume()

    def cpu_s(self) -> float:
        """Give the CPU seconds they have used."""
        return sum(cpu_s(process) for process in self.processes)

    def evaluations(self) -> int:
        """Give how many windows they have evaluated."""
        total = 0.0
        for port in self.ports:
            with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                for line in answer.read().decode().splitlines():
                    if line.startswith("percipio_evaluations_total "):
                        total += float(line.split()[1])
        return int(total)


@contextmanager
def score_workers(url: str, client: Redis, count: int) -> Iterator[Workers]:
    """Run score workers that own all partitions between them."""
    started: list[subprocess.Popen[bytes]] = []
    ports = [free_port() for _ in range(count)]
    for port in ports:
        environ = os.environ | {"PERCIPIO_REDIS_URL": url, "PERCIPIO_LOG_LEVEL": "warning"}
        environ["PERCIPIO_METRICS_PORT"] = str(port)
        environ["PERCIPIO_PARTITIONS"] = str(KEYS.partitions)
        started.append(subprocess.Popen([sys.executable, "-m", "workers.score"], env=environ))
    try:
        while not all_owned(client, count):
            for process in started:
                if process.poll() is not None:
                    raise SystemExit(f"a score worker ended with {process.returncode}")
            time.sleep(0.05)
        yield Workers([psutil.Process(process.pid) for process in started], ports)
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait()


def all_owned(client: Redis, owners: int) -> bool:
    """Tell whether so many workers share all partitions."""
    found = [client.hget(KEYS.of(n).owner, "owner") for n in range(KEYS.partitions)]
    return all(found) and len(set(found)) == owners


def free_port() -> int:
    """Give a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cpu_s(process: psutil.Process) -> float:
    """Give the CPU seconds a process has used, and its children that have ended."""
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


def drain(client: Redis, events: int) -> None:
    """Wait until so many events are scored."""
    deadline_s = time.monotonic() + PATIENCE_S
    while ledger(client, "events_scored") < events:
        if time.monotonic() > deadline_s:
            raise SystemExit("the backlog did not drain")
        time.sleep(0.01)


@dataclass(slots=True)
class Meter:
    """Counters since `start`.

    Attributes:
        client: of the Redis that is measured.
        workers: that are measured.
        redis: its process.
        before: events sent before.
        newest: score entry of each partition before.
    """

    client: Redis
    workers: Workers
    redis: psutil.Process
    before: int
    newest: dict[int, bytes] = field(default_factory=dict)
    _evaluations: int = 0
    _entries: int = 0
    _cpu_s: tuple[float, float] = (0.0, 0.0)
    _began_s: float = 0.0
    _stolen_s: float = 0.0

    def start(self) -> None:
        """Begin to count; the workers must run."""
        self._evaluations = self.workers.evaluations()
        self._entries = count_entries(self.client)
        self.newest = {n: last_score(self.client, n) for n in range(KEYS.partitions)}
        self.restart_clock()

    def restart_clock(self) -> None:
        """Count CPU and wall time from now on."""
        self._cpu_s = (self.workers.cpu_s(), cpu_s(self.redis))
        self._stolen_s = psutil.cpu_times().steal
        self._began_s = time.monotonic()

    def row(self, name: str, events: int) -> Row:
        """Give a row; call it as soon as the last event is scored."""
        seconds = time.monotonic() - self._began_s
        worker_s, redis_s = self.workers.cpu_s(), cpu_s(self.redis)
        stolen_s = psutil.cpu_times().steal - self._stolen_s
        level_share, phases_changed = shown(self.client, self.newest)
        return Row(
            name,
            events,
            seconds,
            worker_s - self._cpu_s[0],
            redis_s - self._cpu_s[1],
            count_entries(self.client) - self._entries,
            self.workers.evaluations() - self._evaluations,
            level_share,
            phases_changed,
            stolen_s / seconds / psutil.cpu_count(),
        )


@contextmanager
def running(
    workers: int, sources: int, until_ms: int, turns: int, every_ms: int, *, independent: bool
) -> Iterator[tuple[Meter, Publisher]]:
    """Run Redis and workers, the windows filled by events at some times up to one."""
    with (
        EmbeddedRedis(options=["auto-aof-rewrite-percentage 0"]) as server,
        Redis.from_url(server.url) as client,
        score_workers(server.url, client, workers) as group,
    ):
        publisher = Publisher(server.url, sources, KEYS, independent=independent)
        publisher.send_turns(turns, until_ms - (turns - 1) * every_ms, every_ms)
        drain(client, turns * sources)
        yield Meter(client, group, psutil.Process(server.pid), turns * sources), publisher


def backlog(
    name: str, events: int, sources: int, workers: int, *, spread_ms: int, independent: bool
) -> Row:
    """Measure a backlog; time between two events of a source is `spread_ms` of source time."""
    turns = events // sources
    events = turns * sources
    start_ms = int(time.time() * 1000) - turns * spread_ms - 10_000
    fill_ms = max(spread_ms, FILL_MS)
    filling = FILL_TURNS if fill_ms == FILL_MS else LONE_TURNS
    with running(workers, sources, start_ms, filling, fill_ms, independent=independent) as (
        meter,
        publisher,
    ):
        meter.start()
        meter.workers.suspend()
        publisher.send_turns(turns, start_ms + spread_ms, spread_ms)
        meter.restart_clock()
        meter.workers.resume()
        drain(meter.client, meter.before + events)
        return meter.row(name, events)


def offered(
    rate: int, seconds: float, sources: int, workers: int, *, independent: bool, rewrite: bool
) -> Row:
    """Offer events at a constant rate; latency is what the entry ids tell.

    What is measured begins when the load has lasted `SETTLE_S`: before it the sources were silent
    while their windows were filled, and all that silence is evaluated at once. Nothing is sent for
    the moment in which the counters are read.
    """
    until_ms = int(time.time() * 1000)
    with running(workers, sources, until_ms, FILL_TURNS, FILL_MS, independent=independent) as (
        meter,
        publisher,
    ):
        meter.before += len(offer(publisher, rate, SETTLE_S)) * step_of(rate)
        if rewrite:
            meter.client.bgrewriteaof()
        meter.start()
        scored = ledger(meter.client, "events_scored")
        behind_ms = offer(publisher, rate, seconds)
        sent = meter.before + len(behind_ms) * step_of(rate)
        drain(meter.client, sent)
        row = meter.row(f"offered {rate}/s", sent - scored)
        if rewrite:
            row.name += ", AOF rewritten meanwhile"
            row.aof_rewrite_s = rewrite_s(meter.client)
        found = [latencies(meter.client, n, after) for n, after in meter.newest.items()]
        times_ms = *map(np.concatenate, zip(*found, strict=True)), np.array(behind_ms)
        row.entry_ms, row.level_ms, row.behind_ms = (
            tuple(np.percentile(each, QUANTILES).round(1).tolist()) for each in times_ms
        )
        return row


def step_of(rate: int) -> int:
    """Give how many events are sent together, 200 times a second."""
    return max(1, rate // 200)


def offer(publisher: Publisher, rate: int, seconds: float) -> list[float]:
    """Send events at a constant rate; gives how far behind its time each step ended, ms."""
    began_s, step, behind_ms = time.monotonic(), step_of(rate), list[float]()
    while (elapsed_s := time.monotonic() - began_s) < seconds:
        due_s = len(behind_ms) * step / rate
        if due_s <= elapsed_s:
            publisher.send(step)
            behind_ms.append((time.monotonic() - began_s - due_s) * 1e3)
        else:
            time.sleep(0.001)
    return behind_ms


def rewrite_s(client: Redis) -> int:
    """Give how long the rewrite of the AOF took, in whole seconds, once it has ended."""
    while (info := client.info("persistence"))["aof_rewrite_in_progress"]:
        time.sleep(0.1)
    return int(info["aof_last_rewrite_time_sec"])


def shown(client: Redis, newest: dict[int, bytes]) -> tuple[float, int]:
    """Give the share of new score entries with a level above 0, and how many changed phase."""
    entries = above = moved = 0
    for number, after in newest.items():
        found: Any = client.xrange(KEYS.of(number).scores, b"(" + after)
        entries += len(found)
        above += sum(float(fields[b"level"]) > 0 for _, fields in found)
        moved += sum(b"transition" in fields for _, fields in found)
    return above / max(1, entries), moved


def last_score(client: Redis, number: int) -> bytes:
    """Give the id of the newest score entry of a partition."""
    entries: Any = client.xrevrange(KEYS.of(number).scores, count=1)
    return entries[0][0] if entries else b"0-0"


def latencies(
    client: Redis, number: int, after: bytes
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Give two times from an input on, in ms, of what was scored after an id.

    Returns:
        of each score entry, from its first input (the slowest of it) to the entry; of each entry,
        from its first input to the first entry of the source whose level includes that input.
    """
    parameters = Parameters()
    by_source: dict[bytes, list[tuple[int, int, int]]] = {}
    entries: Any = client.xrange(KEYS.of(number).scores, b"(" + after)
    for entry_id, fields in entries:
        if fields[b"kind"] == b"event":
            row = (milliseconds(fields[b"first"]), int(fields[b"ts"]), milliseconds(entry_id))
            by_source.setdefault(fields[b"source"], []).append(row)
    to_entry, to_level = [np.zeros(0)], [np.zeros(0)]
    for source, rows in by_source.items():
        first_ms, ts_ms, entry_ms = np.array(rows).T
        to_entry.append(entry_ms - first_ms)
        phase_ms = golden_phase(crc32(source), parameters.period_ms)
        span_ms = parameters.hop_bins * parameters.delta_ms
        # the bins whose index is a multiple of the hop are evaluated when they close
        bins = -(-((first_ms + phase_ms) // parameters.delta_ms) // parameters.hop_bins)
        known_ms = bins * span_ms + parameters.delta_ms - phase_ms
        at = np.searchsorted(ts_ms, known_ms)
        shown = at < len(rows)
        to_level.append(entry_ms[at[shown]] - first_ms[shown])
    return np.concatenate(to_entry), np.concatenate(to_level)


def milliseconds(entry_id: bytes) -> int:
    """Give the time part of an id."""
    return int(entry_id.partition(b"-")[0])


def main() -> None:
    """Run all rows, in turn as often as asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--sources", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", choices=("backlog", "single", "offered"))
    parser.add_argument("--rate", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--independent", action="store_true", help="channels that know nothing of each other"
    )
    parser.add_argument("--json", action="store_true", help="every round, a line each")
    args = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {}
    for number in range(args.rounds):
        for row in measure(args):
            found.setdefault(row.name, []).append(row.as_json())
            if args.json:
                print(json.dumps(found[row.name][-1]), flush=True)
            else:
                print(f"round {number + 1} of {args.rounds}: {row.name}", file=sys.stderr)
    if not args.json:
        print(f"{args.workers} workers, {KEYS.partitions} partitions, median (least to most)")
        for name, rows in found.items():
            print(summary(name, rows))


def measure(args: argparse.Namespace) -> Iterator[Row]:
    """Give the rows that were asked for, one after another."""
    events, sources, workers, apart = args.events, args.sources, args.workers, args.independent
    if args.only in (None, "backlog"):
        yield backlog("backlog", events, sources, workers, spread_ms=100, independent=apart)
    if args.only in (None, "single"):
        name, events = "one input a source and batch", events // 4
        yield backlog(name, events, events // 4, workers, spread_ms=1000, independent=apart)
    if args.only in (None, "offered"):
        for rewrite in (False, True):
            yield offered(
                args.rate, args.seconds, sources, workers, independent=apart, rewrite=rewrite
            )


def summary(name: str, rows: list[dict[str, Any]]) -> str:
    """Give the median and the range of each figure over the rounds."""
    lines = [name]
    for key in rows[0].keys() - {"row"}:
        values = [row[key] for row in rows]
        lines.append(f"  {key}: {np.median(values):g} ({min(values):g} to {max(values):g})")
    return "\n".join([lines[0], *sorted(lines[1:])])


if __name__ == "__main__":
    main()
