"""Load on the API, generator on the same cores: reads, throughput, fan-out, publishing, memory.

    python -m benchmarks.api [--server uvicorn] [--rounds 3] [--seconds 8] [--worker] [--json]

Redis (embedded), the API and this generator share the machine. Requests are offered at a constant
rate and timed from when they were due; the route's throughput is compared with that of a bare
Starlette route in the same process, turn by turn. `--worker` adds a score worker and the way
through it: an event posted, its score received.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from statistics import median
from typing import Any

import msgpack
import psutil
import uvloop
from redis.asyncio import Redis

from benchmarks.api_load import Pool, at_rate, request, socket_opening, sse_opening, subscribe
from benchmarks.api_servers import SERVERS
from pipeline.embedded import EmbeddedRedis
from pipeline.partition import Keys

KEYS = Keys()
SOURCES = [f"cam-{number}" for number in range(100)]
CONNECTIONS, READS_PER_S = 1000, 1500
SUBSCRIBERS = 1000
EVENTS_PER_S, EVENTS_A_BATCH = 2000, 100
STATE = {
    "v": 1, "level": "0.4213", "phase": "active", "arousal": "0.5000", "differentiation": "0.4000",
    "integration": "0.3000", "workspace": "0.2000", "novelty": "0.1000", "confidence": "0.9000",
    "level_ts": 1700000000000, "ts": 1700000000000, "updated_ms": 1700000000000, "seq": 4711,
    "frames": 4000, "events": 711, "tracks": 5, "late": 0, "frames_dropped": 0, "dead": 0,
    "map_version": "none", "engine_version": "1", "model": "yolov9t@0123456789ab",
}  # fmt: skip


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


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print rows, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--server", choices=SERVERS, default="uvicorn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--worker", action="store_true", help="with a score worker")
    parser.add_argument("--only", help="names of rows, with commas between")
    parser.add_argument("--json", action="store_true", help="JSON lines")
    args = parser.parse_args(argv)
    for row in uvloop.run(_measure(args)):
        _print(row, as_json=args.json)
    return 0


def _print(row: dict[str, Any], *, as_json: bool) -> None:
    name = row["row"]
    shown = "  ".join(f"{key} {value}" for key, value in row.items() if key != "row")
    print(json.dumps(row) if as_json else f"{name:<22} {shown}", flush=True)


async def _measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with EmbeddedRedis() as server, _running(server.url, args) as (port, process):
        async with Redis.from_url(server.url) as redis:
            bench = Bench(port, psutil.Process(process.pid), redis, args.seconds)
            await _write_states(redis)
            measures = {
                "reads": _reads,
                "throughput": _throughput,
                "fan-out": _fan_out,
                "publish": _publish,
            }
            if args.worker:
                measures["through the worker"] = _through_worker
            for name, measure in measures.items():
                if args.only is None or name in args.only.split(","):
                    found = [await measure(bench) for _ in range(args.rounds)]
                    rows.append({"row": name, "server": args.server, **_middle(found)})
    return rows


def _middle(found: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Give the median of each figure with its extremes."""
    row: dict[str, Any] = {}
    for key in found[0]:
        values = [each[key] for each in found]
        row[key] = f"{median(values):g} ({min(values):g}-{max(values):g})"
    return row


@contextmanager
def _running(
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


async def _write_states(redis: Redis) -> None:
    for source in SOURCES:
        await redis.hset(KEYS.of_source(source).state(source), mapping=STATE)  # type: ignore[misc]
        await redis.zadd(KEYS.of_source(source).sources, {source: 1})


def _state_requests() -> list[bytes]:
    return [request("GET", f"/v1/sources/{source}/state") for source in SOURCES]


async def _lookups(bench: Bench) -> dict[str, dict[str, int]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", bench.port)
    writer.write(
        request("GET", "/v1/status").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    )
    answer = await reader.read()
    writer.close()
    body = answer.partition(b"\r\n\r\n")[2]
    found: dict[str, dict[str, int]] = json.loads(body[body.find(b"{") : body.rfind(b"}") + 1])[
        "api"
    ]["lookups"]
    return found


async def _reads(bench: Bench) -> dict[str, float]:
    """1,000 connections kept open, 1,500 reads a second offered, sources changing meanwhile."""
    pool = Pool(200)
    await pool.open(bench.port, CONNECTIONS)
    changing = asyncio.create_task(_change(bench, bench.seconds))
    load = await pool.offer(_state_requests(), READS_PER_S, bench.seconds)
    await changing
    pool.close()
    hits = (await _lookups(bench))["state"]
    share = hits.get("hit", 0) / max(1, sum(hits.values()))
    return {**load.percentiles_ms(), "errors": load.errors, "hits": round(share, 4)}


async def _change(bench: Bench, seconds: float) -> None:
    """Give every source a score a second."""

    async def add(index: int) -> None:
        await bench.redis.xadd(*_score(SOURCES[index % len(SOURCES)], index))

    await at_rate(add, len(SOURCES), seconds)


def _score(source: str, n: int) -> tuple[str, dict[str, Any]]:
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


async def _throughput(bench: Bench) -> dict[str, float]:
    """The state route and the bare one, turn by turn."""
    pool = Pool(200)
    await pool.open(bench.port, 64)
    ours, bare, costs_us = [], [], []
    for _ in range(4):
        bare.append(await pool.saturate([request("GET", "/bare")], bench.seconds / 8))
        began_s = bench.cpu_s()
        ours.append(await pool.saturate(_state_requests(), bench.seconds / 8))
        costs_us.append((bench.cpu_s() - began_s) / len(pool.load.latencies_s) * 1e6)
    pool.close()
    ratios = [mine / its for mine, its in zip(ours, bare, strict=True)]
    return {
        "state_per_s": round(median(ours)),
        "bare_per_s": round(median(bare)),
        "ratio": round(median(ratios), 3),
        "cpu_us_per_read": round(median(costs_us)),
    }


async def _fan_out(bench: Bench) -> dict[str, float]:
    """1,000 subscribers, half SSE, half WebSocket, each given one update a second."""
    pool = Pool(200)
    await pool.open(bench.port, 1)
    await pool.offer(_state_requests(), 50, 1)
    before = bench.memory_bytes()
    openings = [
        (socket_opening if number % 2 else sse_opening)(SOURCES[number // 2 % len(SOURCES)])
        for number in range(SUBSCRIBERS)
    ]
    subscribers, load = await subscribe(bench.port, openings)
    await asyncio.sleep(1)
    per_subscriber = (bench.memory_bytes() - before) / SUBSCRIBERS
    began_s = bench.cpu_s()
    await _change(bench, bench.seconds)
    await asyncio.sleep(1)
    cost_us = (bench.cpu_s() - began_s) / max(1, len(load.latencies_s)) * 1e6
    expected = int(bench.seconds) * SUBSCRIBERS
    missing = expected - len(load.latencies_s)
    for each in subscribers:
        each.close()
    pool.close()
    await asyncio.sleep(1)
    return {
        **load.percentiles_ms(),
        "missing": missing,
        "errors": load.errors,
        "cpu_us_per_update": round(cost_us),
        "kB_per_subscriber": round(per_subscriber / 1e3, 1),
    }


async def _publish(bench: Bench) -> dict[str, float]:
    """2,000 events a second in batches of 100, and 1,500 reads a second beside them."""
    readers, writers = Pool(200), Pool(202)
    await readers.open(bench.port, 200)
    await writers.open(bench.port, 20)
    body = json.dumps([{"values": {"a": 0.5, "b": 1.5}}] * EVENTS_A_BATCH).encode()
    batches = [
        request("POST", f"/v1/sources/{source}/events", body, "application/json")
        for source in SOURCES
    ]
    reads, writes = await asyncio.gather(
        readers.offer(_state_requests(), READS_PER_S, bench.seconds),
        writers.offer(batches, EVENTS_PER_S / EVENTS_A_BATCH, bench.seconds),
    )
    readers.close()
    writers.close()
    for source in SOURCES:
        await bench.redis.delete(KEYS.of_source(source).events)
    named = {f"write_{name}": value for name, value in writes.percentiles_ms().items()}
    reads_ms = {f"read_{name}": value for name, value in reads.percentiles_ms().items()}
    return {**named, **reads_ms, "errors": reads.errors + writes.errors}


async def _through_worker(bench: Bench) -> dict[str, float]:
    """As fan-out, but each update is an event posted, scored by a worker, and received."""
    sources = [f"robot-{number}" for number in range(100)]
    openings = [
        (socket_opening if number % 2 else sse_opening)(sources[number // 2 % len(sources)])
        for number in range(SUBSCRIBERS)
    ]
    subscribers, load = await subscribe(bench.port, openings)
    pool = Pool(202)
    await pool.open(bench.port, 20)

    async def post(index: int) -> None:
        event = {"values": {"a": 0.5, "b": 1.5}, "meta": {"sent": time.time(), "end": 0}}
        path = f"/v1/sources/{sources[index % len(sources)]}/events"
        await pool.offer(
            [request("POST", path, json.dumps(event).encode(), "application/json")], 1e6, 1e-6
        )

    await at_rate(post, len(sources), bench.seconds)
    await asyncio.sleep(2)
    missing = int(bench.seconds) * SUBSCRIBERS - len(load.latencies_s)
    for each in subscribers:
        each.close()
    pool.close()
    await asyncio.sleep(1)
    return {**load.percentiles_ms(), "missing": missing, "errors": load.errors}


if __name__ == "__main__":
    raise SystemExit(main())
