"""Lag and pending of the whole deployment as metrics of each worker."""

from __future__ import annotations

import asyncio

from pipeline import metrics
from pipeline.consumer import sleep_unless
from pipeline.errors import DependencyError
from pipeline.ledger import GROUPS, Status, read_status
from pipeline.log import get_logger
from pipeline.stream import Store

PERIOD_S = 5.0


async def watch_lag(store: Store, stop: asyncio.Event) -> None:
    """Set the gauges every five seconds until `stop`."""
    while not stop.is_set():
        try:
            _show(await read_status(store))
        except DependencyError as error:
            get_logger().warning("dependency_down", error=str(error))
        await sleep_unless(stop, PERIOD_S)


def _show(status: Status) -> None:
    pending: dict[str, int] = {}
    for stream, stage in GROUPS:
        parts = [part.streams[stream] for part in status.partitions]
        metrics.LAG.labels(stage, stream).set(sum(part.lag or 0 for part in parts))
        pending[stage] = pending.get(stage, 0) + sum(part.pending for part in parts)
    for stage, entries in pending.items():
        metrics.PENDING.labels(stage).set(entries)
