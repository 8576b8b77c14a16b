"""The partitions a score worker owns: taken, renewed, handed over, one task each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from pipeline import metrics
from pipeline.balance import assign
from pipeline.consumer import sleep_unless
from pipeline.errors import DependencyError, FencedError
from pipeline.log import get_logger
from pipeline.ownership import OwnedPartition, Ownership

BEATS_PER_LEASE = 3
Serve = Callable[[OwnedPartition, asyncio.Event], Awaitable[None]]
"""Serves a partition until the event is set; raises FencedError when it is no longer ours."""


@dataclass(slots=True)
class _Served:
    owned: OwnedPartition
    stop: asyncio.Event
    task: asyncio.Task[None]


@dataclass(slots=True)
class PartitionPool:
    """Owns the partitions that rendezvous hashing gives this worker, as workers come and go.

    Attributes:
        serve: what to do with a partition.
        fatal: set when serving failed in a way that the process should not survive.
    """

    ownership: Ownership
    serve: Serve
    fatal: BaseException | None = None
    _served: dict[int, _Served] = field(default_factory=dict)

    async def run(self, stop: asyncio.Event, progress: Callable[[], None]) -> None:
        """Keep what should be ours until `stop`, then hand everything over.

        Raises:
            Exception: whatever ended a partition's task and is neither a fence nor an outage.
        """
        period_s = self.ownership.lease_ms / 1e3 / BEATS_PER_LEASE
        try:
            while not stop.is_set() and self.fatal is None:
                try:
                    await self._balance()
                    progress()
                except DependencyError as error:
                    get_logger().warning("dependency_down", error=str(error))
                await sleep_unless(stop, period_s if self._is_settled() else period_s / 8)
        finally:
            await self._release(list(self._served))
            await self._leave()
        if self.fatal is not None:
            raise self.fatal

    def _is_settled(self) -> bool:
        return self._wanted_count == len(self._served)

    _wanted_count: int = -1

    async def _balance(self) -> None:
        store, me = self.ownership.store, self.ownership.me
        owners = assign(store.keys.partitions, await self.ownership.beat())
        wanted = {partition for partition, owner in owners.items() if owner == me}
        self._wanted_count = len(wanted)
        await self._release([number for number in self._served if number not in wanted])
        for number in sorted(wanted - self._served.keys()):
            owned = await self.ownership.acquire(number)
            if owned is not None:
                self._start(owned)
        for served in list(self._served.values()):
            await self._renew(served)
        metrics.OWNED.set(len(self._served))

    def _start(self, owned: OwnedPartition) -> None:
        stop = asyncio.Event()
        name = f"partition-{owned.number}"
        task = asyncio.create_task(self._guard(owned, stop), name=name)
        self._served[owned.number] = _Served(owned, stop, task)

    async def _guard(self, owned: OwnedPartition, stop: asyncio.Event) -> None:
        """Serve a partition; a fence ends only this, anything unforeseen ends the worker."""
        try:
            await self.serve(owned, stop)
        except FencedError as error:
            metrics.FENCED.labels("score").inc()
            get_logger().warning("partition_lost", partition=owned.number, error=str(error))
        except Exception as error:  # reported by run()
            self.fatal = error
        if not stop.is_set():
            self._served.pop(owned.number, None)

    async def _renew(self, served: _Served) -> None:
        try:
            await self.ownership.renew(served.owned)
        except FencedError as error:
            served.stop.set()
            self._served.pop(served.owned.number, None)
            get_logger().warning("partition_lost", partition=served.owned.number, error=str(error))

    async def _release(self, numbers: list[int]) -> None:
        """Finish what is in hand of these partitions, then give them back."""
        leaving = [self._served.pop(number) for number in numbers]
        for served in leaving:
            served.stop.set()
        for served in leaving:
            await asyncio.wait([served.task])
            try:
                await self.ownership.release(served.owned)
            except DependencyError as error:
                get_logger().warning("release_failed", error=str(error))

    async def _leave(self) -> None:
        try:
            await self.ownership.leave()
        except DependencyError as error:
            get_logger().warning("leave_failed", error=str(error))
