"""`percipio api`: the HTTP API and the page."""

from __future__ import annotations

import argparse
import asyncio
import gc
import resource

from pipeline.log import get_logger
from pipeline.partition import Keys
from pipeline.settings import Settings
from pipeline.stream import Store
from workers.heap import give_back_large_blocks
from workers.runner import Context, run_worker

log = get_logger()

_FILES = 16_384


def add_arguments(_parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes: nothing, the settings say it all."""


def run(_args: argparse.Namespace, _settings: Settings) -> int:
    """Run until SIGTERM or Ctrl-C."""
    return run_worker("api", main)


def prepare_process() -> None:
    """Have room for thousands of connections, and no long pauses of the garbage collector.

    What is there once the application is made stays; what comes later is freed by its counts, and
    the collector, which looks for cycles only, need not look every few milliseconds.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


async def main(context: Context) -> None:
    """Serve until told to stop."""
    give_back_large_blocks()
    from pipeline.api import access
    from pipeline.api.app import guarded_app
    from pipeline.api.server import listen, make_server, url_of
    from pipeline.api.service import open_service

    settings, streams = context.settings, context.settings.streams
    api_keys = access.Keys(settings.api.keys_file)
    access.check_exposure(settings.api, api_keys)
    keys = Keys(streams.key_prefix, streams.partitions)
    with listen(settings.api.host, settings.api.port) as listening:
        async with (
            Store.open(settings.redis.url, keys, wait_s=settings.redis.wait_s) as store,
            open_service(store, settings, api_keys, context.health) as service,
        ):
            server = make_server(guarded_app(service))
            prepare_process()
            serving = asyncio.create_task(server.serve([listening]), name="serving")
            stopping = asyncio.create_task(context.stop.wait(), name="stopping")
            log.info("api_ready", url=url_of(listening), keys=len(api_keys.grants))
            await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            service.stop()
            server.should_exit = True
            await serving


if __name__ == "__main__":
    raise SystemExit(run_worker("api", main))
