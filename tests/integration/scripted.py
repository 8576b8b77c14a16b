"""A worker for the tests of the runner: does what its argument says.

Run as `python -m tests.integration.scripted WORD`, or with the word in SCRIPTED.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

from redis.asyncio import Redis

from pipeline.errors import DependencyError, FencedError
from workers.runner import Context, run_worker


async def wait(context: Context) -> None:
    context.health.ready()
    print("ready", context.consumer, flush=True)
    await context.stop.wait()


async def drain(context: Context) -> None:
    await wait(context)
    await asyncio.sleep(0.2)
    print("drained", flush=True)


async def stuck(context: Context) -> None:
    """A thread that goes on, as an inference does that never returns."""
    print("ready", context.consumer, flush=True)
    await asyncio.to_thread(time.sleep, 60)


async def blocked(context: Context) -> None:
    """Hold the event loop itself."""
    await wait(context)
    time.sleep(60)  # noqa: ASYNC251


async def done(_context: Context) -> None:
    print(type(asyncio.get_running_loop()).__module__, flush=True)


async def leave_name(context: Context) -> None:
    async with Redis.from_url(context.settings.redis.url) as client:
        await client.set("name", context.consumer)


async def away(_context: Context) -> None:
    raise DependencyError("no Redis at redis://user:hunter2@host after 60 s")


async def group(_context: Context) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(away(_context))


async def fenced(_context: Context) -> None:
    raise FencedError("p001 has another owner")


async def crash(_context: Context) -> None:
    raise ZeroDivisionError("nobody foresaw this")


if __name__ == "__main__":
    word = sys.argv[1] if len(sys.argv) > 1 else os.environ["SCRIPTED"]
    sys.exit(run_worker("scripted", globals()[word]))
