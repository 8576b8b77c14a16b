"""What a measurement of the API runs on: an embedded Redis, the server, and what they hold."""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import msgpack
import psutil
from redis.asyncio import Redis

from benchmarks.api_load import request
from pipeline.partition import Keys

KEYS = Keys()
SOURCES = [f"cam-{number}" for number in range(100)]
STATE = {
    "v": 1, "level": "0.4213", "phase": "active", "arousal": "0.5000", "differentiation": "0.4000",
    "integration": "0.3000", "workspace": "0.2000", "novelty": "0.1000", "confidence": "0.9000",
    "level_ts": 1700000000000, "ts": 1700000000000, "updated_ms": 1700000000000, "seq": 4711,
    "frames": 4000, "events": 711, "tracks": 5, "late": 0, "frames_dropped": 0, "dead": 0,
    "map_version": "none", "engine_version": "1", "model": "yolov9t@0123456789ab",
}  # fmt: skip


_TRIES = 3


@dataclass(frozen=True, slots=True)
class Bench:
    """What runs, and how long to look at it."""

    port: int
    process: psutil.Process
    redis: Redis
    seconds: float

    def cpu_s(self) -> float:
        """Give the CPU time that the API's process has used."""
        used = self.process.cpu_times()
        return float(used.user + used.system)

    def memory_bytes(self) -> int:
        """Give what the API's process holds."""
        return int(self.process.memory_info().rss)


Measure = Callable[[Bench], Awaitable[dict[str, float]]]


async def calm(bench: Bench, measure: Measure, most_cores: float) -> dict[str, float]:
    """Measure while others leave the machine alone, as far as they do."""
    found: list[dict[str, float]] = []
    while len(found) < _TRIES and (not found or found[-1]["others"] > most_cores):
        began_s, others_s, ours_s = time.monotonic(), _busy_s(), _ours_s()
        row = await measure(bench)
        used_s = (_busy_s() - others_s) - (_ours_s() - ours_s)
        row["others"] = round(max(0.0, used_s) / (time.monotonic() - began_s), 2)
        found.append(row)
    return min(found, key=lambda row: row["others"])


def _busy_s() -> float:
    """Give the CPU time that all programs have used."""
    spent = psutil.cpu_times()
    return float(sum(spent) - spent.idle - spent.iowait - spent.guest - spent.guest_nice)


def _ours_s() -> float:
    """Give the CPU time that this process and those it started have used."""
    mine = psutil.Process()
    times = [each.cpu_times() for each in (mine, *mine.children(recursive=True))]
    return float(sum(each.user + each.system for each in times))


@contextmanager
def running(
    redis_url: str, args: argparse.Namespace
) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    environ = os.environ | {"PERCIPIO_REDIS_URL": redis_url, "PERCIPIO_LOG_LEVEL": "warning"}
    commands = [["benchmarks.api_servers", args.server, str(port)]]
    commands += [["workers.score"]] if args.worker else []
    started = [subprocess.Popen([sys.executable, "-m", *each], env=environ) for each in commands]
    try:
        _wait_for(port, started)
        yield port, started[0]
    finally:
        for process in started:
            process.kill()
            process.wait()


def _wait_for(port: int, started: Sequence[subprocess.Popen[bytes]]) -> None:
    ends_s = time.monotonic() + 120
    while time.monotonic() < ends_s and all(process.poll() is None for process in started):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise SystemExit("the API did not start")


async def write_states(redis: Redis) -> None:
    for source in SOURCES:
        await redis.hset(KEYS.of_source(source).state(source), mapping=STATE)  # type: ignore[misc]
        await redis.zadd(KEYS.of_source(source).sources, {source: 1})


def state_requests() -> list[bytes]:
    return [request("GET", f"/v1/sources/{source}/state") for source in SOURCES]


def score(source: str, n: int) -> tuple[str, dict[str, Any]]:
    data = {
        "sent": time.time(),
        "components": dict.fromkeys(("arousal", "integration", "novelty"), 0.4),
        "confidence": 0.9, "core": ["a", "b"], "latency_ms": 5,
        "tracks": [{"id": 1, "label": "car", "box": [1.0, 2.0, 3.0, 4.0], "confidence": 0.8}] * 3,
    }  # fmt: skip
    fields = {
        "v": 1,
        "source": source,
        "kind": "frame",
        "inputs": 1,
        "n": n,
        "ts": 1,
        "last": "1-0",
    }
    fields |= {"level": "0.4213", "phase": "active", "data": msgpack.packb(data)}
    return KEYS.of_source(source).scores, fields
