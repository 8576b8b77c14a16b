"""Answers of the network in Redis, shared by all detect workers; work goes on without it.

Where an answer lives depends on its picture alone: the partition that the digest falls into, so
that the load spreads and equal pictures meet whoever publishes them. Two hashes a partition, of
one slot: when the young one is full it becomes the old one, whose answers are dropped. No read or
write of these has part in a commit, and none may use memory beyond Redis's `maxmemory`.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from pipeline import metrics
from pipeline.errors import DependencyError, FullError, PercipioError
from pipeline.log import get_logger
from pipeline.stream import Argument, Store, refusal

WAITING = 1024
"""Answers that wait to be written, at most; beyond it new ones are not kept in Redis."""
_AT_ONCE = 64
_PAUSE_S = 0.1


class AnswerStore:
    """Finds and keeps packed answers by digest.

    Args:
        store: the deployment's.
        limit_bytes: of all answers in Redis; a partition has its equal share.
        ttl_s: how long an answer is kept at most.
    """

    def __init__(self, store: Store, limit_bytes: int, ttl_s: int) -> None:
        self._store = store
        self._ttl_s = ttl_s
        self._generation_bytes = max(1, limit_bytes // store.keys.partitions // 2)
        self._waiting: dict[bytes, bytes] = {}
        self._bytes: dict[int, int] = {}
        self._has_some = asyncio.Event()
        self._is_away = False

    async def find(self, digests: Iterable[bytes]) -> dict[bytes, bytes]:
        """Give those that are there, in one round trip a node; nothing where Redis fails."""
        places = self._by_place(digests)
        if not places:
            return {}
        commands: list[Sequence[Argument]] = []
        for place, wanted in places:
            keys = self._store.keys.of(place)
            commands += [("HMGET", key, *wanted) for key in (keys.answers, keys.old_answers)]
        answers = await self._run(commands)
        found: dict[bytes, bytes] = {}
        for number, (_, wanted) in enumerate(places):
            for row in answers[2 * number : 2 * number + 2]:
                pairs = zip(wanted, row or (), strict=False)
                found.update((digest, packed) for digest, packed in pairs if packed is not None)
        return found

    def put(self, digest: bytes, packed: bytes) -> None:
        """Have an answer written soon; never waits. Called on the event loop."""
        if len(self._waiting) < WAITING:
            self._waiting[digest] = packed
            self._has_some.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Write what waits, a few at a time, until `stop`."""
        stopping = asyncio.ensure_future(stop.wait())
        try:
            while not stop.is_set():
                waiting = asyncio.ensure_future(self._has_some.wait())
                await asyncio.wait((waiting, stopping), return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                await asyncio.wait((stopping,), timeout=_PAUSE_S)  # so that several go together
                await self.write()
        finally:
            stopping.cancel()

    async def write(self) -> None:
        """Write what waits now."""
        waiting, self._waiting = self._waiting, {}
        self._has_some.clear()
        commands: list[Sequence[Argument]] = []
        written: list[int] = []
        for place, digests in self._by_place(waiting):
            keys = self._store.keys.of(place)
            for start in range(0, len(digests), _AT_ONCE):
                flat = [x for d in digests[start : start + _AT_ONCE] for x in (d, waiting[d])]
                limits = (self._generation_bytes, self._ttl_s)
                names = [keys.answers, keys.old_answers]
                commands.append(self._store.command("keep_answers", names, *limits, *flat))
                written.append(place)
        sizes = zip(written, await self._run(commands), strict=True)
        self._bytes.update((place, size) for place, size in sizes if size is not None)
        metrics.CACHE_BYTES.labels("redis").set(sum(self._bytes.values()))

    def _by_place(self, digests: Iterable[bytes]) -> list[tuple[int, list[bytes]]]:
        places: dict[int, list[bytes]] = defaultdict(list)
        for digest in digests:
            places[int.from_bytes(digest[:4], "big") % self._store.keys.partitions].append(digest)
        return list(places.items())

    async def _run(self, commands: list[Sequence[Argument]]) -> list[Any]:
        """Run commands; what fails is counted, said once, and answered with None."""
        try:
            answers = await self._store.run_many(commands)
        except PercipioError as error:
            answers = [error] * len(commands)
        failed = [answer for answer in answers if isinstance(answer, Exception)]
        for answer in failed:
            metrics.CACHE_FAILURES.labels(_why(answer)).inc()
        if failed and not self._is_away:
            get_logger().warning("answers_not_shared", error=str(failed[0]))
        self._is_away = bool(failed)
        return [None if isinstance(answer, Exception) else answer for answer in answers]


def _why(answer: Exception) -> str:
    error = answer if isinstance(answer, PercipioError) else refusal(answer, "answers")
    if isinstance(error, FullError):
        return "full"
    return "away" if isinstance(error, DependencyError) else "refused"
