"""`percipio up`: Redis, all workers, API and page as one process group here, until Ctrl-C."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from pipeline.settings import Settings
from workers.group import Group, run_group

CHECK_S = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("--detect", type=int, default=1, help="detect workers (1)")
    parser.add_argument("--score", type=int, default=1, help="score workers (1)")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Run until Ctrl-C, or until a worker ends."""
    console = Console(stderr=True)
    names = ["detect"] * args.detect + ["score"] * args.score
    with (
        tempfile.TemporaryDirectory(prefix="percipio-up-") as folder,
        run_group(settings, names, {}, Path(folder)) as group,
        suppress(KeyboardInterrupt),
    ):
        console.print(f"PERCIPIO_REDIS_URL={group.redis_url}", highlight=False)
        console.print(f"logs in {folder}; Ctrl-C ends everything", highlight=False)
        _until(group, group.page.is_ready)
        console.print(f"page and API at {group.page.url}", highlight=False)
        _until(group, lambda: False)
    return 0


def _until(group: Group, is_done: Callable[[], bool]) -> None:
    while not is_done():
        group.check()
        time.sleep(CHECK_S)
