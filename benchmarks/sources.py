"""Memory of many sources in one score worker, and in Redis.

    python -m benchmarks.sources [--sources 100000] [--events 2 | --full] [--channels 8]
        [--cameras] [--producers] [--cold]

Every source of `--sources` sends `--events` events of `--channels` channels. With `--full` some
first send one a bin until their windows are full; the others are given what Redis remembers of
those, which the worker recalls when they send five bins more, so that each has a full window and
was evaluated. With `--producers` each has a publisher of its own that numbers its events. With
`--cameras` each event comes with the detections of a frame, ten objects that move slowly; with
`--channels 0` besides, frames come alone.

Printed are the worker's resident memory before and after, what a source that it holds takes there,
over all of them and over the second half alone (`worker_bytes_per_further_source`: without what
grows up to a bound), and in Redis (`MEMORY USAGE` of a sample), and, without `--full`, what one
with a full window takes in Redis. `--cold` then waits until the worker has put every source out of
its memory (five minutes of silence), lets a thousand come back and checks their counts, and lets as
many new ones come: their memory is that of those that left.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any
from urllib.request import urlopen

import msgpack
import numpy as np
import psutil
from redis import Redis

from benchmarks.events import KEYS, PATIENCE_S, Workers, ledger, score_workers
from benchmarks.load import WINDOW_MS, WINDOW_TURNS, Load
from benchmarks.publisher import PIPELINE
from benchmarks.scaling_memory import grow
from benchmarks.scoring import Plain, traced
from pipeline.embedded import EmbeddedRedis
from pipeline.records import Detections
from pipeline.wire import Envelope, FrameEntry
from pipeline.wire_results import detection_fields

SAMPLE = 500
AHEAD = 20_000
"""Events that may wait, so that Redis holds sources and not a backlog."""
COLD_S = 420.0
FIRST = 2000
"""Sources with full windows that come before those that count: most buffers have grown."""
FIRST_PREFIX = "first-"
COPIED = 200
MORE = 5
GAUGES_S = 2.0
"""The worker's gauges are up to a second old."""
MIB = 2**20
NOTHING = msgpack.packb({})
LABELS = ("person", "bicycle", "car", "dog")
CLASSES = np.array([0, 0, 0, 0, 0, 1, 2, 2, 2, 3], np.int32)
"""Of the objects before each camera."""
SIZES = np.array([[60, 150], [90, 90], [180, 120], [70, 50]])[CLASSES]
"""Pixels of 1280 x 720; each object stays in its own of ten cells of 256 x 360."""
FACTS = {"model": "yolov9-t", "width": 1280, "height": 720, "cached": False, "timing": {}}


Fields = dict[Any, Any]


def plain(names: list[str], events: int, channels: int) -> Iterator[Fields]:
    """Give a few events of every source, all in turn, at the time at which they are published."""
    for turn in range(events):
        values = msgpack.packb({f"c{c}": 1.0 + turn + c for c in range(channels)})
        yield from ({"source": name, "values": values} for name in names)


def load(names: list[str], channels: int, first: int, count: int) -> Iterator[Fields]:
    """Give some bins of every source, all in turn; bin `WINDOW_TURNS` is the first beyond filling.

    Args:
        names: of the sources.
        channels: of an event.
        first: bin to begin with.
        count: bins.
    """
    every = Load(len(names), channels).filling()
    start_ms = every.start_ms + first * WINDOW_MS
    events = replace(every, start_ms=start_ms).events()
    for number, (_, ts_ms, values) in enumerate(islice(events, len(names) * count)):
        name = names[number % len(names)]
        yield {"source": name, "ts": ts_ms, "values": msgpack.packb(values)}


def copy(client: Redis, full: list[str], names: list[str]) -> None:
    """Give sources what Redis remembers of those with full windows."""
    kept: list[dict[Any, Any]] = [
        client.hgetall(KEYS.of_source(one).memory(one)) for one in full[:COPIED]
    ]
    for begin in range(0, len(names), PIPELINE):
        pipe = client.pipeline(transaction=False)
        for number, name in enumerate(names[begin : begin + PIPELINE]):
            pipe.hset(KEYS.of_source(name).memory(name), mapping=kept[number % COPIED])
        pipe.execute()


def numbered(events: Iterator[Fields], sources: int) -> Iterator[Fields]:
    """Number each source's events, under a publisher's name of its own."""
    for number, fields in enumerate(events):
        yield fields | {"producer": f"{fields['source']}:1a2b3c4d", "seq": number // sources}


def watched(events: Iterator[Fields]) -> Iterator[Fields]:
    """Give with each event the detections of a frame of its time, the event unless it is empty."""
    rng, cells = np.random.default_rng(7), np.arange(len(CLASSES))
    for fields in events:
        ts_ms = int(fields.get("ts", time.time() * 1000))
        way = ts_ms / 2500 + cells
        middle = np.stack((256 * (cells % 5) + 128 + 25 * np.sin(way),
                           360 * (cells // 5) + 180 + 80 * np.cos(way)), 1)  # fmt: skip
        corners = np.concatenate((middle - SIZES / 2, middle + SIZES / 2), 1)
        corners += rng.normal(0, 1, corners.shape)
        sure = rng.uniform(0.5, 0.95, len(CLASSES)).astype(np.float32)
        found = Detections(corners.astype(np.float32), sure, CLASSES)
        now_ms = int(time.time() * 1000)
        head = Envelope(b"%d-0" % now_ms, now_ms, fields["source"], ts_ms)
        flat = detection_fields(FrameEntry(head, b""), "frames", found, LABELS, FACTS)
        yield dict(zip(flat[::2], flat[1::2], strict=True))
        if fields["values"] != NOTHING:
            yield fields


def scored(client: Redis) -> int:
    """Give how many inputs the worker has scored."""
    return ledger(client, "events_scored") + ledger(client, "frames_scored")


def publish(client: Redis, events: Iterator[Fields]) -> None:
    """Add events, no more ahead of the worker than Redis should hold; wait until all are scored."""
    before, sent = scored(client), 0
    while some := list(islice(events, PIPELINE)):
        pipe = client.pipeline(transaction=False)
        for fields in some:
            keys = KEYS.of_source(str(fields["source"]))
            pipe.xadd(keys.detections if "frame" in fields else keys.events, fields)
        pipe.execute()
        sent += len(some)
        while sent - (scored(client) - before) > AHEAD:
            time.sleep(0.05)
    deadline_s = time.monotonic() + PATIENCE_S
    while scored(client) - before < sent:
        if time.monotonic() > deadline_s:
            raise SystemExit("the backlog did not drain")
        time.sleep(0.01)


def in_memory(workers: Workers) -> int:
    """Give how many sources the worker holds."""
    with urlopen(f"http://127.0.0.1:{workers.ports[0]}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    found = (line for line in lines if line.startswith("percipio_sources{"))
    return int(sum(float(line.split()[1]) for line in found))


def resident(workers: Workers) -> int:
    """Give the worker's resident memory in bytes."""
    return int(psutil.Process(workers.processes[0].pid).memory_info().rss)


def weigh(workers: Workers) -> tuple[int, int]:
    """Give the worker's resident memory in bytes and the sources it holds, once it is at rest."""
    time.sleep(GAUGES_S)
    return resident(workers), in_memory(workers)


def usage(client: Redis, names: list[str], kind: str) -> float:
    """Give the mean bytes of a kind of key over a sample of sources."""
    sample = names[:: max(1, len(names) // SAMPLE)]
    pipe = client.pipeline(transaction=False)
    for name in sample:
        pipe.memory_usage(getattr(KEYS.of_source(name), kind)(name))
    return float(sum(pipe.execute()) / len(sample))


def seen(client: Redis, names: list[str]) -> list[int]:
    """Give how many inputs of each source were scored."""
    pipe = client.pipeline(transaction=False)
    for name in names:
        pipe.hget(KEYS.of_source(name).state(name), "seq")
    return [int(seq) for seq in pipe.execute()]


def go_cold(client: Redis, workers: Workers, names: list[str], channels: int) -> dict[str, Any]:
    """Let all sources leave the worker's memory, some come back and as many new ones come."""
    deadline_s = time.monotonic() + COLD_S
    while (left := in_memory(workers)) and time.monotonic() < deadline_s:
        time.sleep(5)
    back = names[:1000]
    counts = seen(client, back)
    publish(client, plain(back, 1, channels))
    right = sum(now == count + 1 for now, count in zip(seen(client, back), counts, strict=True))
    before = resident(workers)
    publish(client, plain([f"new-{name}" for name in names], 1, channels))
    return {
        "left_in_memory": left,
        "came_back_with_the_right_count": right,
        "of": len(back),
        "grown_by_as_many_new_mib": round((resident(workers) - before) / MIB),
    }


def worker_bytes(sources: int, events: int = 2, channels: int = 8) -> float:
    """Measure what a source takes in a score worker."""
    names = [f"s{number}" for number in range(sources)]
    with (
        EmbeddedRedis() as server,
        Redis.from_url(server.url) as client,
        score_workers(server.url, client, 1) as workers,
    ):
        publish(client, plain(names[:1], 1, channels))
        base = resident(workers)
        publish(client, plain(names, events, channels))
        return (resident(workers) - base) / sources


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sources", type=int, default=100_000)
    parser.add_argument("--events", type=int, default=2)
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--cameras", action="store_true")
    parser.add_argument("--producers", action="store_true")
    parser.add_argument("--cold", action="store_true")
    args = parser.parse_args()

    def send(events: Iterator[Fields], sources: int) -> None:
        if args.producers:
            events = numbered(events, sources)
        publish(client, watched(events) if args.cameras else events)

    names = [f"s{number}" for number in range(args.sources)]
    with (
        EmbeddedRedis() as server,
        Redis.from_url(server.url) as client,
        score_workers(server.url, client, 1) as workers,
    ):
        send(plain(["first"], 1, args.channels), 1)
        if args.full:
            first = [f"{FIRST_PREFIX}{number}" for number in range(FIRST)]
            send(load(first, args.channels, 0, WINDOW_TURNS), FIRST)
            copy(client, first, names)
        sizes = [weigh(workers)]
        middle = len(names) // 2
        for some in (names[:middle], names[middle:]):
            events = plain(some, args.events, args.channels)
            if args.full:
                events = load(some, args.channels, WINDOW_TURNS, MORE)
            send(events, len(some))
            sizes.append(weigh(workers))
        (base, before), half, (grown, held) = sizes
        memory, state = (usage(client, names, kind) for kind in ("memory", "state"))
        row: dict[str, Any] = {
            "sources": args.sources,
            "events_each": WINDOW_TURNS + MORE if args.full else args.events,
            "channels": args.channels,
            "cameras": args.cameras,
            "held_before": before,
            "held": held,
            "worker_mib": round(grown / MIB),
            "worker_mib_without_sources": round(base / MIB),
            "worker_bytes_per_source": round((grown - base) / (held - before)),
            "worker_bytes_per_further_source": round((grown - half[0]) / (held - half[1])),
            "redis_memory_bytes_per_source": round(memory),
            "redis_state_bytes_per_source": round(state),
            "redis_bytes_per_source": round(memory + state),
        }
        if not args.full:
            row["plain_object_bytes_per_source"] = round(
                traced(lambda: [Plain(args.channels) for _ in range(200)]) / 200
            )
            row["redis_bytes_per_full_source"] = round(grow(args.channels)[1])
        print(json.dumps(row), flush=True)
        if args.cold:
            print(json.dumps(go_cold(client, workers, names, args.channels)), flush=True)


if __name__ == "__main__":
    main()
