"""The partitions a score worker owns: taken, renewed, handed over, one task each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import monotonic

from pipeline import metrics
from pipeline.balance import assign
from pipeline.consumer import sleep_unless
from pipeline.errors import DependencyError, FencedError, PercipioError
from pipeline.log import get_logger
from pipeline.ownership import OwnedPartition, Ownership

BEAT_S = 0.5
"""A worker that comes or goes is noticed so soon, one that died so soon after its lease."""
RENEWALS_PER_LEASE = 4
PAUSE_S = 0.5
"""A partition whose serving failed is tried again after it."""
MOST_FAILURES = 20
Serve = Callable[[OwnedPartition, asyncio.Event], Awaitable[None]]
"""Serves a partition until the event is set; raises FencedError when it is no longer ours."""


@dataclass(slots=True)
class _Served:
    owned: OwnedPartition
    stop: asyncio.Event
    task: asyncio.Task[bool]
    renewed_s: float


@dataclass(slots=True)
class PartitionPool:
    """Owns the partitions that rendezvous hashing gives this worker, as workers come and go.

    Attributes:
        serve: what to do with a partition.
        full: inputs of a full batch.
    """

    ownership: Ownership
    serve: Serve
    full: int
    _fatal: BaseException | None = None
    _served: dict[int, _Served] = field(default_factory=dict)
    _paused: dict[int, float] = field(default_factory=dict)
    _failures: int = 0

    async def run(self, stop: asyncio.Event, progress: Callable[[], None]) -> None:
        """Keep what should be ours until `stop`, then hand everything over.

        Raises:
            Exception: what will fail however often it is tried.
        """
        period_s = min(BEAT_S, self.ownership.lease_ms / 8e3)
        try:
            while not stop.is_set() and self._fatal is None:
                await self._guarded(self._balance)
                if not self._served:
                    progress()
                await sleep_unless(stop, period_s)
        finally:
            await self._leave()
        if self._fatal is not None:
            raise self._fatal

    async def _guarded(self, action: Callable[[], Awaitable[None]]) -> None:
        try:
            await action()
        except DependencyError as error:
            get_logger().warning("dependency_down", error=str(error))

    async def _balance(self) -> None:
        store, me = self.ownership.store, self.ownership.me
        owners = assign(store.keys.partitions, await self.ownership.beat())
        wanted = {partition for partition, owner in owners.items() if owner == me}
        for number, served in list(self._served.items()):
            if number not in wanted:
                served.stop.set()
            await self._tend(number, served)
        for number in sorted(wanted - self._served.keys()):
            if self._paused.get(number, 0.0) <= monotonic():
                await self._acquire(number)
        metrics.OWNED.set(len(self._served))

    async def _acquire(self, number: int) -> None:
        owned = await self.ownership.acquire(number, self.full)
        if owned is None:
            return
        stop = asyncio.Event()
        task = asyncio.create_task(self._guard(owned, stop), name=f"partition-{number}")
        self._served[number] = _Served(owned, stop, task, monotonic())

    async def _tend(self, number: int, served: _Served) -> None:
        """Renew a lease that is due; give back what is no longer served."""
        if served.task.done():
            del self._served[number]
            await self.ownership.release(served.owned, clean=served.task.result())
            return
        if monotonic() - served.renewed_s < self.ownership.lease_ms / 1e3 / RENEWALS_PER_LEASE:
            return
        served.renewed_s = monotonic()
        try:
            await self.ownership.renew(served.owned)
        except FencedError as error:
            served.stop.set()
            get_logger().warning("partition_lost", partition=number, error=str(error))

    async def _guard(self, owned: OwnedPartition, stop: asyncio.Event) -> bool:
        """Serve a partition; False where it failed as it would if one of its entries kills."""
        first = owned.commit
        try:
            await self.serve(owned, stop)
        except FencedError as error:
            metrics.FENCED.labels("score").inc()
            get_logger().warning("partition_lost", partition=owned.number, error=str(error))
        except DependencyError as error:
            get_logger().warning("dependency_down", error=str(error))
        except Exception as error:  # an entry may be the cause: the next owner tries fewer
            self._failures = 1 if owned.commit > first else self._failures + 1
            if isinstance(error, PercipioError) or self._failures > MOST_FAILURES:
                self._fatal = error
            get_logger().error("serving_failed", partition=owned.number, exc_info=error)
            self._paused[owned.number] = monotonic() + PAUSE_S
            return False
        return True

    async def _leave(self) -> None:
        """Finish what is in hand, then give everything back, so that others take over at once."""
        await self._guarded(self.ownership.leave)
        for served in self._served.values():
            served.stop.set()
        while self._served:
            tasks = [served.task for served in self._served.values()]
            await asyncio.wait(tasks, timeout=BEAT_S, return_when=asyncio.FIRST_COMPLETED)
            for number, served in list(self._served.items()):
                try:
                    await self._tend(number, served)
                except DependencyError as error:
                    get_logger().warning("release_failed", error=str(error))
