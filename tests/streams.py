"""What anybody with a plain Redis client sees of a deployment; written from the contract alone."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import cv2
import msgpack
import numpy as np
import pytest
from redis.exceptions import ResponseError

from tests.conftest import eventually

PARTITIONS = 16
# Tests that choose entry ids have partitions of their own, where no newer entry is in the way.
OLD_FRAMES, OLD_RECORDINGS = 11, 12
OPEN = set(range(PARTITIONS)) - {OLD_FRAMES, OLD_RECORDINGS}
GROUPS = {"frames": "detect", "recordings": "detect", "events": "score", "detections": "score"}
FRAME_TERMS = (
    "frames_detected",
    "frames_cached",
    "frames_dropped_age",
    "frames_dropped_overflow",
    "frames_dropped_duplicate",
    "frames_dead",
    "frames_lost_trimmed",
)
EVENT_TERMS = ("events_scored", "events_dropped_duplicate", "events_dead", "events_lost_trimmed")
SCORED_TERMS = ("frames_scored", "detections_dead")
TERMS = (*FRAME_TERMS, *EVENT_TERMS, *SCORED_TERMS, "events_late", "frames_late")

UNHARMED = (None, 0, -signal.SIGKILL)

Fields = Mapping[str, str | bytes | int | float]

_numbers = itertools.count()


def crc(source: str) -> int:
    return zlib.crc32(source.encode())


def partition_of(source: str) -> int:
    return crc(source) % PARTITIONS


def key(kind: str, source: str) -> str:
    """Name the stream or hash `kind` of the partition that `source` belongs to."""
    return key_in(partition_of(source), kind)


def key_in(partition: int, kind: str) -> str:
    return f"percipio:{{p{partition:03d}}}:{kind}"


def a_source(word: str = "s", partition: int | None = None) -> str:
    """Make up a name that no test used before, in `partition` if that is given."""
    wanted = OPEN if partition is None else {partition}
    while True:
        name = f"{word}-{os.getpid()}-{next(_numbers)}"
        if partition_of(name) in wanted:
            return name


def pack(value: object) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed


def unpack(data: bytes) -> Any:
    return msgpack.unpackb(data, strict_map_key=False)


def picture(seed: int = 0, suffix: str = ".jpg", width: int = 160, height: int = 120) -> bytes:
    """Encode a few bright shapes on noise, different for each seed."""
    noise = np.random.default_rng(seed)
    image = noise.integers(0, 60, (height, width, 3), dtype=np.uint8)
    for _ in range(4):
        x, y = int(noise.integers(0, width // 2)), int(noise.integers(0, height // 2))
        color = [int(value) for value in noise.integers(100, 255, 3)]
        cv2.rectangle(image, (x, y), (x + width // 4, y + height // 4), color, -1)
    encoded, data = cv2.imencode(suffix, image)
    assert encoded
    return data.tobytes()


def at(entry_id: str) -> tuple[int, int]:
    """Give an entry id in a form that sorts."""
    ms, _, number = entry_id.partition("-")
    return int(ms), int(number)


@dataclass
class Entry:
    """One entry of a result stream: text fields as text, `data` and `meta` unpacked."""

    id: str
    raw: dict[str, bytes]
    data: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> str:
        return self.raw[name].decode()

    def __contains__(self, name: str) -> bool:
        return name in self.raw

    def get(self, name: str) -> str | None:
        value = self.raw.get(name)
        return None if value is None else value.decode()


@dataclass
class Streams:
    """Publish to and read one deployment."""

    redis: Any  # a Redis client; its stubs say that replies may be text, ours are bytes
    foreign: Counter[int] = field(default_factory=Counter)
    """By partition, entries of `detections` that no frame stands behind: a test added them."""
    watched: list[subprocess.Popen[bytes]] = field(default_factory=list)
    """Workers in whose place nobody needs to wait once one of them has crashed."""

    async def add(
        self, kind: str, source: str, fields: Fields, *, partition: int | None = None, id: str = "*"
    ) -> str:
        """Add one entry of `source` and these fields; gives its id."""
        return await self.add_raw(
            partition_of(source) if partition is None else partition,
            kind,
            {"source": source, **fields},
            id=id,
        )

    async def add_raw(self, partition: int, kind: str, fields: Fields, *, id: str = "*") -> str:
        added = await self.redis.xadd(key_in(partition, kind), dict(fields), id=id)
        return str(added.decode())

    async def event(self, source: str, **fields: str | bytes | int | float) -> str:
        """Add an event; a channel with a value where neither that nor `values` is given."""
        if "values" not in fields:
            fields = {"channel": "motion", "value": "0.5"} | fields
        return await self.add("events", source, fields)

    async def frame(
        self, source: str, image: bytes | None = None, kind: str = "recordings", **fields: Any
    ) -> str:
        """Add a frame, of a picture of ours unless there is one."""
        return await self.add(kind, source, {"image": image or picture(), **fields})

    async def entries(self, stream_key: str) -> list[Entry]:
        found = await self.redis.xrange(stream_key)
        return [_entry(entry_id, fields) for entry_id, fields in found]

    async def of(self, kind: str, source: str) -> list[Entry]:
        """Give the entries of `source` in `detections`, `scores` or `dead`, oldest first."""
        found = await self.entries(key(kind, source))
        return [entry for entry in found if entry.get("source") == source]

    async def scores(self, source: str) -> list[Entry]:
        """Give the scores of inputs; silence has its own test."""
        return [entry for entry in await self.of("scores", source) if entry["kind"] != "tick"]

    async def state(self, source: str) -> dict[str, str]:
        found = await self.redis.hgetall(key(f"state:{source}", source))
        return {name.decode(): value.decode() for name, value in found.items()}

    async def ledger(self, partition: int) -> dict[str, int]:
        found = await self.redis.hgetall(key_in(partition, "ledger"))
        return {name.decode(): int(value) for name, value in found.items() if value.isdigit()}

    @asynccontextmanager
    async def counting(self, source: str) -> AsyncIterator[dict[str, int]]:
        """Give what the source's ledger counted in the block, filled in when all is at rest."""
        before = await self.ledger(partition_of(source))
        counted: dict[str, int] = {}
        yield counted
        await self.settled(source)
        after = await self.ledger(partition_of(source))
        changed = {name: after.get(name, 0) - before.get(name, 0) for name in TERMS}
        counted |= {name: count for name, count in changed.items() if count}

    async def added(self, partition: int, kind: str) -> int:
        try:
            info = await self.redis.xinfo_stream(key_in(partition, kind))
        except ResponseError:
            return 0
        return int(info["entries-added"])

    async def unbalanced(self, partition: int) -> dict[str, Any]:
        """Tell what is not at rest in a partition: empty where all is done and counted."""
        ledger = await self.ledger(partition)
        frames = await self.added(partition, "frames") + await self.added(partition, "recordings")
        events = await self.added(partition, "events")
        found = _sum(ledger, FRAME_TERMS[:2])
        wrong: dict[str, Any] = {
            "frames": frames - _sum(ledger, FRAME_TERMS),
            "events": events - _sum(ledger, EVENT_TERMS),
            "scored": found + self.foreign[partition] - _sum(ledger, SCORED_TERMS),
        }
        for kind in GROUPS:
            info = await self.group(partition, kind)
            left = info["lag"] if info else await self.added(partition, kind)
            wrong |= {f"lag of {kind}": left, f"pending in {kind}": info.get("pending", 0)}
        return {name: value for name, value in wrong.items() if value != 0}

    async def group(self, partition: int, kind: str) -> dict[str, Any]:
        try:
            groups = await self.redis.xinfo_groups(key_in(partition, kind))
        except ResponseError:
            return {}
        named = {info["name"].decode(): info for info in groups}
        return dict(named.get(GROUPS[kind], {}))

    async def settled(self, *sources: str, timeout_s: float = 30.0) -> None:
        """Wait until everything that came in is done and the ledger says so."""
        await self.settled_in({partition_of(source) for source in sources}, timeout_s)

    async def settled_in(self, partitions: Collection[int], timeout_s: float = 30.0) -> None:
        async def is_settled() -> bool:
            if crashed := [it.args for it in self.watched if it.poll() not in UNHARMED]:
                pytest.fail(f"crashed: {crashed}")
            wrong = {part: await self.unbalanced(part) for part in partitions}
            assert not any(wrong.values()), {part: left for part, left in wrong.items() if left}
            return True

        await eventually(is_settled, timeout_s)


def _sum(ledger: Mapping[str, int], terms: Iterable[str]) -> int:
    return sum(ledger.get(term, 0) for term in terms)


def _entry(entry_id: bytes, fields: dict[bytes, bytes]) -> Entry:
    raw = {name.decode(): value for name, value in fields.items()}
    data = unpack(raw["data"]) if "data" in raw else {}
    return Entry(entry_id.decode(), raw, data)
