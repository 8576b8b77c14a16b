"""The loop that every stage runs: next batch, work, commit; and what it does when things fail."""

from __future__ import annotations

import asyncio
import random
from typing import Protocol, TypeVar

from pipeline import metrics
from pipeline.errors import DependencyError
from pipeline.health import Health
from pipeline.log import get_logger

B = TypeVar("B")
R = TypeVar("R")
B_co = TypeVar("B_co", covariant=True)
B_contra = TypeVar("B_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)
R_contra = TypeVar("R_contra", contravariant=True)


class Feed(Protocol[B_co, R_contra]):
    """Where batches come from and results go."""

    async def next_batch(self, stop: asyncio.Event) -> B_co | None:
        """Give a closed batch; None when nothing came for about a second, or on stop."""

    async def commit(self, result: R_contra) -> None:
        """Write results, state and acks of a batch whole or not at all; safe to repeat."""


class Work(Protocol[B_contra, R_co]):
    """What a stage computes; one outcome an entry, whatever is wrong with the entry."""

    async def handle(self, batch: B_contra) -> R_co:
        """Turn a batch into its result."""


class Backoff:
    """Pauses with jitter, doubling from 50 ms to 2 s while failures follow each other."""

    def __init__(self) -> None:
        self._pause_s = 0.05

    def reset(self) -> None:
        """Forget earlier failures."""
        self._pause_s = 0.05

    async def pause(self, stop: asyncio.Event) -> None:
        """Wait, or return at once on stop."""
        await sleep_unless(stop, random.uniform(self._pause_s / 2, self._pause_s))
        self._pause_s = min(2.0, self._pause_s * 2)


async def sleep_unless(stop: asyncio.Event, seconds: float) -> bool:
    """Wait; True as soon as `stop` is set."""
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return False
    return True


async def consume(feed: Feed[B, R], work: Work[B, R], stop: asyncio.Event, health: Health) -> None:
    """Run a stage until `stop`; the batch in hand is finished and committed first.

    Args:
        feed: gives batches and takes results.
        work: computes.
        stop: set it to drain and return.
        health: told of progress after each batch and each quiet second, and of outages.

    Raises:
        Exception: whatever is no `DependencyError`; entries stay pending and come again.
    """
    backoff = Backoff()
    while not stop.is_set():
        try:
            await _process(feed, work, stop, health)
        except DependencyError as error:
            get_logger().warning("dependency_down", error=str(error))
            metrics.FAILURES.labels("redis").inc()
            health.away(str(error))
            await backoff.pause(stop)
        else:
            backoff.reset()
            health.progress()


async def _process(feed: Feed[B, R], work: Work[B, R], stop: asyncio.Event, health: Health) -> None:
    """Do one batch; a function of its own, so that a committed batch's frames are freed at once."""
    batch = await feed.next_batch(stop)
    if batch is not None:
        with health.working():
            result = await work.handle(batch)
        await _commit(feed, result, stop, health)


async def _commit(feed: Feed[B, R], result: R, stop: asyncio.Event, health: Health) -> None:
    """Repeat a commit while Redis is away, so that finished work is not thrown away."""
    backoff = Backoff()
    while True:
        try:
            return await feed.commit(result)
        except DependencyError as error:
            if stop.is_set():
                raise
            get_logger().warning("commit_delayed", error=str(error))
            metrics.FAILURES.labels("redis").inc()
            health.away(str(error))
            await backoff.pause(stop)
