"""Ending tasks, also those that do not hear it the first time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

_AGAIN_S = 0.05


async def end_tasks(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks until they have ended; how they ended is not looked at.

    `asyncio.wait_for` of Python 3.11 swallows a cancellation that arrives as its inner future
    finishes, and redis-py sends every command through it: one `cancel` may not be enough.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_AGAIN_S)
