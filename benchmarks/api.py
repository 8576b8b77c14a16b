"""Load on the API, generator on the same cores: reads, throughput, fan-out, publishing, memory.

    python -m benchmarks.api [--server uvicorn] [--rounds 3] [--seconds 8] [--worker] [--json]

Redis (embedded), the API and this generator share the machine. Requests are offered at a constant
rate and timed from when they were due; the route's throughput is compared with that of a bare
Starlette route in the same process, turn by turn. `--worker` adds a score worker and the way
through it: an event posted, its score received. `others` is how many cores other programs used
meanwhile; a round in which it was more than `--others` is taken again, twice at most.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import psutil
import uvloop
from redis.asyncio import Redis

from benchmarks.api_load import Pool, at_rate, request, socket_opening, sse_opening, subscribe
from benchmarks.api_rig import (
    KEYS,
    SOURCES,
    Bench,
    calm,
    running,
    score,
    state_requests,
    write_states,
)
from benchmarks.api_servers import SERVERS
from pipeline.embedded import EmbeddedRedis

CONNECTIONS, READS_PER_S = 1000, 1500
SUBSCRIBERS = 1000
EVENTS_PER_S, EVENTS_A_BATCH = 2000, 100


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print rows, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--server", choices=SERVERS, default="uvicorn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--others", type=float, default=0.25, help="cores that others may use")
    parser.add_argument("--worker", action="store_true", help="with a score worker")
    parser.add_argument("--only", help="names of rows, with commas between")
    parser.add_argument("--json", action="store_true", help="JSON lines")
    args = parser.parse_args(argv)
    uvloop.run(_measure(args))
    return 0


def _print(row: dict[str, Any], *, as_json: bool) -> None:
    name = row["row"]
    shown = "  ".join(f"{key} {value}" for key, value in row.items() if key != "row")
    print(json.dumps(row) if as_json else f"{name:<22} {shown}", flush=True)


async def _measure(args: argparse.Namespace) -> None:
    with EmbeddedRedis() as server, running(server.url, args) as (port, process):
        async with Redis.from_url(server.url) as redis:
            bench = Bench(port, psutil.Process(process.pid), redis, args.seconds)
            await write_states(redis)
            measures = {
                "memory": _memory,
                "reads": _reads,
                "throughput": _throughput,
                "fan-out": _fan_out,
                "publish": _publish,
            }
            if args.worker:
                measures["through the worker"] = _through_worker
            for name, measure in measures.items():
                if args.only is None or name in args.only.split(","):
                    rounds = 1 if measure is _memory else args.rounds  # freed memory stays ours
                    found = [await calm(bench, measure, args.others) for _ in range(rounds)]
                    row = {"row": name, "server": args.server, **_middle(found)}
                    _print(row, as_json=args.json)


def _middle(found: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Give the median of each figure with its extremes."""
    row: dict[str, Any] = {}
    for key in found[0]:
        values = [each[key] for each in found]
        row[key] = f"{median(values):g} ({min(values):g}-{max(values):g})"
    return row


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
    load = await pool.offer(state_requests(), READS_PER_S, bench.seconds)
    await changing
    pool.close()
    hits = (await _lookups(bench))["state"]
    share = hits.get("hit", 0) / max(1, sum(hits.values()))
    return {**load.percentiles_ms(), "errors": load.errors, "hits": round(share, 4)}


async def _change(bench: Bench, seconds: float) -> None:
    """Give every source a score a second."""

    async def add(index: int) -> None:
        await bench.redis.xadd(*score(SOURCES[index % len(SOURCES)], index))

    await at_rate(add, len(SOURCES), seconds)


async def _throughput(bench: Bench) -> dict[str, float]:
    """The state route and the bare one, turn by turn."""
    pool = Pool(200)
    await pool.open(bench.port, 64)
    ours, bare, costs_us = [], [], []
    for _ in range(4):
        bare.append(await pool.saturate([request("GET", "/bare")], bench.seconds / 8))
        began_s = bench.cpu_s()
        ours.append(await pool.saturate(state_requests(), bench.seconds / 8))
        costs_us.append((bench.cpu_s() - began_s) / len(pool.load.latencies_s) * 1e6)
    pool.close()
    ratios = [mine / its for mine, its in zip(ours, bare, strict=True)]
    return {
        "state_per_s": round(median(ours)),
        "bare_per_s": round(median(bare)),
        "ratio": round(median(ratios), 3),
        "cpu_us_per_read": round(median(costs_us)),
    }


def _openings(sources: Sequence[str]) -> list[bytes]:
    """Give what opens half SSE and half WebSocket, each for one source."""
    return [
        (socket_opening if number % 2 else sse_opening)(sources[number // 2 % len(sources)])
        for number in range(SUBSCRIBERS)
    ]


async def _memory(bench: Bench) -> dict[str, float]:
    """What 1,000 subscribers that get nothing cost, before anything else was asked of the API."""
    pool = Pool(200)
    await pool.open(bench.port, 1)
    await pool.offer(state_requests(), 50, 1)
    before = bench.memory_bytes()
    subscribers, load = await subscribe(bench.port, _openings(SOURCES))
    await asyncio.sleep(2)
    cost = (bench.memory_bytes() - before) / SUBSCRIBERS
    for each in subscribers:
        each.close()
    pool.close()
    await asyncio.sleep(1)
    return {"kB_per_subscriber": round(cost / 1e3, 1), "errors": load.errors}


async def _fan_out(bench: Bench) -> dict[str, float]:
    """1,000 subscribers, half SSE, half WebSocket, each given one update a second."""
    subscribers, load = await subscribe(bench.port, _openings(SOURCES))
    began_s = bench.cpu_s()
    await _change(bench, bench.seconds)
    await asyncio.sleep(1)
    cost_us = (bench.cpu_s() - began_s) / max(1, len(load.latencies_s)) * 1e6
    expected = int(bench.seconds) * SUBSCRIBERS
    missing = expected - len(load.latencies_s)
    for each in subscribers:
        each.close()
    await asyncio.sleep(1)
    costs = {"cpu_us_per_update": round(cost_us)}
    return {**load.percentiles_ms(), "missing": missing, "errors": load.errors, **costs}


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
        readers.offer(state_requests(), READS_PER_S, bench.seconds),
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
    subscribers, load = await subscribe(bench.port, _openings(sources))
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
