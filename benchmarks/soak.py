"""Does memory grow? Real workers for a long time, sources coming and going, nobody twice.

    python -m benchmarks.soak [--minutes 20] [--warm-up 25] [--sources 24] [--json FILE]

Redis (embedded, AOF on), two detect workers, two score workers and the API share the machine.
Every source lives for 2 to 20 s under a name of its own, sends frames as a camera would and
events, and never comes back: some 130 a minute, so that what stays of each would show. Somebody
looks at the page's parts of one source after the other, and one listens to everything.

The rate is the same from beginning to end: nothing is filled up before that could hide growth
later. What is kept on purpose has bounds, and those that take hours to fill by default are set
low, so that they are reached while it warms up:

    STATE_TTL_S 60         what Redis and the API have of a source that is gone (default: a day)
    RESULTS_KEEP 500       results in Redis, each partition and kind (100,000)
    API_HELD_BYTES 4 MiB   results in the API (128 MiB)
    CACHE_BYTES 256 KiB    detections by picture in a detect worker (16 MiB)
    CACHE_REDIS_BYTES 2 MiB, CACHE_TTL_S 120   the same in Redis (64 MiB, an hour)

Two have no setting. A score worker lets go of a source five minutes after it has come to rest, six
or so after its last input. And CPython makes its table of interned names anew once so many have
been added, which messages do whose names nothing else holds: 1.9 MiB more in a score worker, after
11 minutes of this load, 0.9 MiB in a detect worker after 20; from then on it is made anew in the
same size. Hence 25 minutes that do not count. What others compute on the same cores counts for the
detect workers: batches grow, and with them what threads keep.

Memory is resident memory, read every 5 s; the slope is a straight line through the means of each
minute after the warm-up, with its 95 % confidence interval from Student's t. Divided by the
sources that came and went it is what one leaves behind.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgpack
import numpy as np
import psutil
from redis.asyncio import Redis
from scipy import stats

from pipeline.image import encode_jpeg
from pipeline.ledger import Status, differences, read_status
from pipeline.partition import Keys
from pipeline.scene import Scene
from pipeline.settings import load_settings
from pipeline.stream import Store
from workers.group import Group, run_group

WORKERS = "detect,detect,score,score"
SETTINGS = {
    "PERCIPIO_MODEL": str(Path(__file__).parents[1] / "pipeline" / "data" / "demo.pt"),
    "PERCIPIO_IMAGE_SIZE": "320",
    "PERCIPIO_STATE_TTL_S": "60",
    "PERCIPIO_RESULTS_KEEP": "500",
    "PERCIPIO_CACHE_BYTES": "262144",
    "PERCIPIO_CACHE_REDIS_BYTES": "2097152",
    "PERCIPIO_CACHE_TTL_S": "120",
    "PERCIPIO_STILL_THRESHOLD": "8",
    "PERCIPIO_API_HELD_BYTES": "4194304",
    "PERCIPIO_LOG_LEVEL": "warning",
}
SAMPLE_S = 5.0
TICK_S = 0.25
FRAMES_A_TICK = 0.25  # of a source: one frame a second
LIFE_S = (2.0, 20.0)
PICTURES = 240
DRAIN_S = 60.0
LOOK_S = 0.2
PARTS = ("", "/frame.jpg", "/history", "/scores?limit=10", "/detections?limit=10")


@dataclass(frozen=True)
class Slope:
    """How memory went on after the warm-up.

    Attributes:
        process: its name, or what of Redis.
        mean_mib: mean after the warm-up.
        mib_per_h: slope of the line, MiB an hour.
        low: and high: its 95 % confidence interval.
        minutes: means that the line goes through.
    """

    process: str
    mean_mib: float
    mib_per_h: float
    low: float
    high: float
    minutes: int

    def bytes_a_source(self, sources_per_h: float) -> tuple[float, float]:
        """Give the interval by source that came and went."""
        each = 2**20 / sources_per_h
        return round(self.low * each, 1), round(self.high * each, 1)


@dataclass
class Samples:
    """Memory over time, MiB by process."""

    at_s: list[float] = field(default_factory=list)
    mib: dict[str, list[float]] = field(default_factory=dict)

    def add(self, at_s: float, row: dict[str, float]) -> None:
        """Note one reading."""
        self.at_s.append(at_s)
        for name, value in row.items():
            self.mib.setdefault(name, []).append(value)

    def slopes(self, from_s: float) -> list[Slope]:
        """Fit a line to each, from `from_s` on."""
        at_s = np.array(self.at_s)
        return [slope(name, at_s, np.array(row), from_s) for name, row in self.mib.items()]


def slope(name: str, at_s: np.ndarray[Any, Any], mib: np.ndarray[Any, Any], from_s: float) -> Slope:
    """Fit a line to the means of each whole minute from `from_s` on."""
    kept = at_s >= from_s
    minutes = ((at_s[kept] - from_s) // 60).astype(int)
    means = np.array([mib[kept][minutes == n].mean() for n in np.unique(minutes)])
    if len(means) < 3:
        raise SystemExit(f"{len(means)} minutes after the warm-up: a slope needs 3")
    fit = stats.linregress(np.unique(minutes) / 60, means)
    half = float(stats.t.ppf(0.975, len(means) - 2) * fit.stderr)
    rise = float(fit.slope)
    low, high = round(rise - half, 2), round(rise + half, 2)
    return Slope(name, round(float(means.mean()), 2), round(rise, 2), low, high, len(means))


@dataclass
class Crowd:
    """Sources that come, live and go; `number` never repeats."""

    size: int
    rng: random.Random = field(default_factory=lambda: random.Random(5))
    number: int = 0
    alive: dict[str, float] = field(default_factory=dict)

    def step(self, now_s: float) -> list[str]:
        """Let go whose time is up, and others come."""
        self.alive = {name: end_s for name, end_s in self.alive.items() if end_s > now_s}
        while len(self.alive) < self.size:
            self.number += 1
            self.alive[f"soak-{self.number}"] = now_s + self.rng.uniform(*LIFE_S)
        return list(self.alive)


def pictures() -> list[bytes]:
    """Encode frames of the built-in scene, standing and moving by turns."""
    scene = Scene(11, fps=5.0, size_wh=(320, 192))
    return [
        encode_jpeg(scene.frame(n if (n // 20) % 2 else n // 20 * 20).image)
        for n in range(PICTURES)
    ]


def unique(jpeg: bytes, number: int) -> bytes:
    """Give a picture with a comment in it, so that no two have the same bytes."""
    return jpeg[:2] + b"\xff\xfe\x00\x0a" + number.to_bytes(8, "big") + jpeg[2:]


async def publish(client: Redis, crowd: Crowd, stop: asyncio.Event, sent: Counter[str]) -> None:
    """Publish until told to stop: each source a frame a second and four events."""
    shown, keys, rng = pictures(), Keys(), np.random.default_rng(3)
    while not stop.is_set():
        began_s = time.monotonic()
        pipe = client.pipeline(transaction=False)
        for index, source in enumerate(crowd.step(began_s)):
            of = keys.of_source(source)
            values = msgpack.packb({f"c{c}": float(v) for c, v in enumerate(rng.gamma(2, 1, 4))})
            pipe.xadd(of.events, {"source": source, "values": values})
            sent["events"] += 1
            if (sent["ticks"] + index) % round(1 / FRAMES_A_TICK) == 0:
                sent["frames"] += 1
                turn = int(source.rpartition("-")[2]) * 20 + sent["ticks"] // 4
                image = unique(shown[turn % PICTURES], sent["frames"])
                stream = of.frames if index % 3 else of.recordings
                pipe.xadd(stream, {"source": source, "image": image})
        await pipe.execute()
        sent["ticks"] += 1
        await asyncio.sleep(max(0.0, began_s + TICK_S - time.monotonic()))


async def look(page: str, crowd: Crowd, stop: asyncio.Event, sent: Counter[str]) -> None:
    """Ask the API for what the page shows of one source after the other."""
    async with httpx.AsyncClient(base_url=page, timeout=30) as http:
        for number in itertools.count():
            names = list(crowd.alive)
            if stop.is_set():
                return
            if names:
                source = names[number % len(names)]
                answers = [await http.get(f"/v1/sources/{source}{part}") for part in PARTS]
                sent["looks"] += sum(answer.status_code == 200 for answer in answers)
            await asyncio.sleep(LOOK_S)


async def listen(page: str, sent: Counter[str]) -> None:
    """Read all results as Server-Sent Events, until cancelled."""
    async with (
        httpx.AsyncClient(base_url=page, timeout=None) as http,
        http.stream("GET", "/v1/live") as answer,
    ):
        async for line in answer.aiter_lines():
            sent["heard"] += line.startswith("data:")


async def watch(client: Redis, group: Group, samples: Samples, until_s: float, say: bool) -> None:
    """Read memory every few seconds until `until_s`; ends early when a worker does."""
    began_s = time.monotonic()
    processes = {f"{w.name} {n}": _worker(w.process.pid) for n, w in enumerate(group.workers, 1)}
    while (at_s := time.monotonic() - began_s) < until_s:
        group.check()
        row = {name: p.memory_info().rss / 2**20 for name, p in processes.items()}
        memory = await client.info("memory")
        row["redis used"] = memory["used_memory"] / 2**20
        row["redis rss"] = memory["used_memory_rss"] / 2**20
        samples.add(at_s, row)
        if say and int(at_s / SAMPLE_S) % 12 == 0:
            print(f"{at_s:5.0f} s", {k: round(v, 1) for k, v in row.items()}, file=sys.stderr)
        await asyncio.sleep(SAMPLE_S)


def _worker(pid: int) -> psutil.Process:
    """Give the worker itself: below the leash that holds it, if there is a process between."""
    process = psutil.Process(pid)
    children = process.children()
    return children[0] if children else process


async def until_ready(store: Store, group: Group) -> None:
    """Wait for every owner and both detect workers."""
    deadline_s = time.monotonic() + 240
    while True:
        group.check()
        status = await read_status(store)
        readers = status.partitions[0].streams["frames"].consumers
        if all(part.owner for part in status.partitions) and readers >= 2:
            return
        if time.monotonic() > deadline_s:
            raise SystemExit("the workers were not ready after 240 s")
        await asyncio.sleep(0.5)


async def drained(store: Store) -> Status:
    """Wait until nothing is in flight."""
    deadline_s = time.monotonic() + DRAIN_S
    while True:
        status = await read_status(store)
        if status.is_balanced or time.monotonic() > deadline_s:
            return status
        await asyncio.sleep(0.5)


async def soak(args: argparse.Namespace, group: Group) -> dict[str, Any]:
    """Run it; gives everything that is printed."""
    samples, crowd, sent, stop = Samples(), Crowd(args.sources), Counter[str](), asyncio.Event()
    async with Store.open(group.redis_url, Keys(), wait_s=60) as store:
        await until_ready(store, group)
        async with Redis.from_url(group.redis_url) as client:
            others = [
                asyncio.create_task(publish(client, crowd, stop, sent)),
                asyncio.create_task(look(group.page.url, crowd, stop, sent)),
            ]
            listening = asyncio.create_task(listen(group.page.url, sent))
            total_s = 60 * (args.warm_up + args.minutes)
            try:
                await watch(client, group, samples, total_s, say=not args.quiet)
            finally:
                stop.set()
                listening.cancel()
                await asyncio.gather(*others)
        status = await drained(store)
    sources_per_h = crowd.number / total_s * 3600
    slopes = samples.slopes(60 * args.warm_up)
    return {
        "minutes": args.minutes,
        "warm_up": args.warm_up,
        "sources_at_once": args.sources,
        "sources": crowd.number,
        "sent": {name: sent[name] for name in ("frames", "events", "looks", "heard")},
        "ledger": status.terms,
        "difference": differences(status.terms),
        "slopes": [
            asdict(one) | {"bytes_a_source": one.bytes_a_source(sources_per_h)} for one in slopes
        ],
        "samples": asdict(samples),
    }


def print_table(found: dict[str, Any]) -> None:
    """Print what `soak` found."""
    terms = found["ledger"]
    print(
        f"{found['sources']} sources, {found['sources_at_once']} at once; "
        f"{found['sent']['frames']} frames ({terms['frames_detected']} detected, "
        f"{terms['frames_cached']} cached, {terms['frames_dropped_age']} too old), "
        f"{found['sent']['events']} events; {found['sent']['looks']} answers and "
        f"{found['sent']['heard']} live results of the API; ledger's difference "
        f"{found['difference']}"
    )
    print(f"{'process':<12} {'MiB':>8} {'MiB/h':>8}   {'95 % interval':<16}   bytes a source")
    for row in found["slopes"]:
        interval = f"{row['low']:+.2f} to {row['high']:+.2f}"
        figures = f"{row['mean_mib']:>8.1f} {row['mib_per_h']:>+8.2f}   {interval:<16}"
        low, high = row["bytes_a_source"]
        print(f"{row['process']:<12} {figures}   {low:+.0f} to {high:+.0f}")


def main(argv: Sequence[str] | None = None) -> None:
    """Soak, print, and exit 1 when the ledger does not balance."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0, help="after the warm-up")
    parser.add_argument("--warm-up", type=float, default=25.0, help="minutes that do not count")
    parser.add_argument("--sources", type=int, default=24, help="at once")
    parser.add_argument("--workers", default=WORKERS, help="default: %(default)s")
    parser.add_argument("--json", type=Path, help="write everything there too")
    parser.add_argument("--quiet", action="store_true", help="say nothing meanwhile")
    args = parser.parse_args(argv)
    with (
        tempfile.TemporaryDirectory(prefix="percipio-soak-") as folder,
        run_group(load_settings(), args.workers.split(","), SETTINGS, Path(folder)) as group,
    ):
        found = asyncio.run(soak(args, group))
    if args.json:
        args.json.write_text(json.dumps(found, indent=2))
    print_table(found)
    if any(found["difference"].values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
