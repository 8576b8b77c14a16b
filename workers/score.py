"""`percipio score`: one score worker, events and detections to scores and state."""

from __future__ import annotations

import argparse
import asyncio
import gc
import math
import secrets
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic

from pipeline.entries import InputLimits
from pipeline.errors import SettingsError
from pipeline.gauges import watch_lag
from pipeline.log import get_logger
from pipeline.ownership import OwnedPartition, Ownership
from pipeline.partition import Keys
from pipeline.pool import PartitionPool
from pipeline.score_stage import PartitionFeed, PartitionWork, ScoreLimits, serve_partition
from pipeline.scorer import PartitionScorer
from pipeline.scoring.channels import ChannelMaps
from pipeline.scoring.engine import Engine, is_cached, warm_up
from pipeline.scoring.parameters import WINDOW, Parameters
from pipeline.settings import ScoreSettings, Settings
from pipeline.stream import Store
from workers.heap import give_back_large_blocks
from workers.runner import Context, run_worker

AWAY_MS = 5000
MARGIN_S = 10
"""What is kept of a source outlives its window by so much."""
COMPILE = "from pipeline.scoring.engine import warm_up; warm_up()"
LOADED_S = 4.0
"""Kernels that take longer are compiled, most likely: from the cache it is one or two."""


def add_arguments(_parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes: nothing, the settings say it all."""


def run(_args: argparse.Namespace, _settings: Settings) -> int:
    """Run until SIGTERM or Ctrl-C."""
    return run_worker("score", main)


async def main(context: Context) -> None:
    """Own partitions and score them until told to stop."""
    give_back_large_blocks()
    settings, streams = context.settings, context.settings.streams
    maps, parameters = read_maps(settings.score.channel_map), parameters_of(settings.score)
    check_ttl(parameters, maps, streams.state_ttl_s)
    keys = Keys(streams.key_prefix, streams.partitions)
    async with Store.open(settings.redis.url, keys, wait_s=settings.redis.wait_s) as store:
        await _warm_up()
        limits = InputLimits(ttl_s=streams.state_ttl_s, results_keep=streams.results_keep)
        name = f"{context.consumer}-{secrets.token_hex(4)}"
        ownership = Ownership(store, name, settings.score.lease_ms, limits)
        await _own(context, ownership, parameters, maps)


async def _warm_up() -> None:
    log, began_s = get_logger(), monotonic()
    loading = asyncio.create_task(asyncio.to_thread(_load))
    done, _ = await asyncio.wait([loading], timeout=LOADED_S)
    if not done:
        log.info("kernels_loading", note="compiled at the first start, half a minute")
    await loading
    log.info("kernels_ready", seconds=round(monotonic() - began_s, 1))
    gc.collect()
    gc.freeze()  # what is there now stays; entries are freed by their counts, there are no cycles
    gc.set_threshold(50_000, 20, 50)


def _load() -> None:
    """Have the kernels ready; what compiling them takes, 160 MiB, goes with another process."""
    if not is_cached():  # where that process fails, which it says, this one compiles
        subprocess.run([sys.executable, "-c", COMPILE], check=False)
    warm_up()


def parameters_of(mine: ScoreSettings) -> Parameters:
    """Give the score's parameters; a source is away after 5 s, but not within a bin."""
    return Parameters(
        delta_ms=mine.bin_ms,
        hop_bins=mine.hop,
        surrogates=mine.surrogates,
        stale_after_ms=min(max(AWAY_MS, mine.bin_ms), 4 * WINDOW * mine.bin_ms),
    )


def read_maps(path: Path | None) -> ChannelMaps:
    """Read the channel map file, if there is one.

    Raises:
        SettingsError: it cannot be read or is wrong.
    """
    if path is None:
        return ChannelMaps()
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"channel map file {path}: {error}") from error
    return ChannelMaps.parse(text, f"channel map file {path}")


def check_ttl(parameters: Parameters, maps: ChannelMaps, ttl_s: int) -> None:
    """Check that no source is forgotten while silence still changes its level.

    Raises:
        SettingsError: the widest bins make a window that lasts longer.
    """
    widest_ms = max([parameters.delta_ms, *(each.bin_ms or 0 for each in maps.maps)])
    least_s = math.ceil(parameters.fades_ms(widest_ms) / 1e3) + MARGIN_S
    if ttl_s < least_s:
        raise SettingsError(
            f"PERCIPIO_STATE_TTL_S={ttl_s}: a window of bins of {widest_ms} ms empties later; "
            f"set at least {least_s}, or narrower bins"
        )


async def _own(
    context: Context, ownership: Ownership, parameters: Parameters, maps: ChannelMaps
) -> None:
    mine, ttl_s = context.settings.score, context.settings.streams.state_ttl_s
    limits = ScoreLimits(inputs=mine.batch, patience_ms=mine.reorder_ms)
    with ThreadPoolExecutor(1, thread_name_prefix="score") as thread:

        async def serve(owned: OwnedPartition, stop: asyncio.Event) -> None:
            scorer = PartitionScorer(Engine(parameters, maps), ttl_s * 1000)
            feed = PartitionFeed(ownership, owned, scorer, limits)
            work = PartitionWork(scorer, thread)
            await serve_partition(feed, work, stop, context.health)

        context.health.ready()
        pool = PartitionPool(ownership, serve, limits.inputs)
        async with asyncio.TaskGroup() as group:
            group.create_task(watch_lag(ownership.store, context.stop), name="lag")
            group.create_task(pool.run(context.stop, context.health.progress), name="pool")


if __name__ == "__main__":
    raise SystemExit(run_worker("score", main))
