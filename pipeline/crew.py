"""Who works: detect workers as consumers of the inputs, score workers by their signs of life."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import DependencyError
from pipeline.stream import INPUT_GROUP, Store, pairs


@dataclass(frozen=True, slots=True)
class Crew:
    """Workers by name, as Redis knows them.

    Attributes:
        detect: entries that each has in hand, and ms since it last asked for more.
        score: ms since each last said that it is alive; the silent are gone.
    """

    detect: Mapping[str, tuple[int, int]]
    score: Mapping[str, int]

    def as_json(self, owners: Sequence[str | None]) -> dict[str, Any]:
        """Give it for JSON.

        Args:
            owners: of each partition.
        """
        return {
            "detect": [
                {"name": name, "pending": pending, "idle_ms": idle_ms}
                for name, (pending, idle_ms) in sorted(self.detect.items())
            ],
            "score": [
                {"name": name, "partitions": owners.count(name), "idle_ms": idle_ms}
                for name, idle_ms in sorted(self.score.items())
            ],
        }


async def read_crew(store: Store, now_ms: int) -> Crew:
    """Read who works; one round trip a node.

    Raises:
        DependencyError: Redis is away.
    """
    parts = [store.keys.of(number) for number in range(store.keys.partitions)]
    streams = [key for part in parts for key in (part.frames, part.recordings)]
    commands = [("XINFO CONSUMERS", key, INPUT_GROUP) for key in streams]
    beats = ("ZRANGE", store.keys.workers, 0, -1, "WITHSCORES")
    *answers, alive = await store.run_many([*commands, beats])
    if isinstance(alive, Exception):
        raise DependencyError(f"Redis: workers: {alive}") from alive
    detect: dict[str, tuple[int, int]] = {}
    for name, pending, idle_ms in _consumers(answers):
        had, idled_ms = detect.get(name, (0, idle_ms))
        detect[name] = had + pending, min(idled_ms, idle_ms)
    rows = zip(alive[::2], alive[1::2], strict=True)
    return Crew(detect, {name.decode(): max(0, now_ms - int(float(at))) for name, at in rows})


def _consumers(answers: Sequence[Any]) -> Iterator[tuple[str, int, int]]:
    for answer in answers:
        if isinstance(answer, Exception):
            continue  # nothing was ever added to it
        for raw in answer:
            row = pairs(raw)
            yield row["name"].decode(), int(row["pending"]), int(row["idle"])
