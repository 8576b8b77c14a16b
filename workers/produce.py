"""`percipio produce`: publish frames of a file, folder, camera or stream, or events of a file."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Coroutine
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from time import monotonic
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pipeline.client import Client
from pipeline.log import configure
from pipeline.partition import is_source
from pipeline.settings import Settings
from workers.feeds import EventFeed, Feed, FrameFeed

_LAST_FLUSH_S = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `frames` and `events` and what they take."""
    kinds = parser.add_subparsers(dest="what", metavar="frames|events", required=True)
    frames = kinds.add_parser("frames", help="a video, a folder of pictures, a camera or a stream")
    frames.add_argument("--input", required=True, help="FILE, DIR, rtsp://…, http://… or 0")
    frames.add_argument(
        "--fps",
        type=_fps,
        help="frames a second: of a file every frame, slower or faster (its own rate by default); "
        "of a camera at most so many; of a folder as many as are taken by default",
    )
    frames.add_argument("--loop", action="store_true", help="begin anew at the end, for ever")
    frames.add_argument("--live", action="store_true", help="send a file as a camera would")
    frames.add_argument(
        "--as-fast-as-possible", dest="fast", action="store_true", help="do not wait between frames"
    )
    events = kinds.add_parser("events", help="JSON lines, or CSV with a header ts,channel,value")
    events.add_argument("--input", required=True, help="FILE, or - for standard input")
    events.add_argument("--real-time", action="store_true", help="keep the distances of their ts")
    for each in (frames, events):
        each.add_argument("--source", required=True, type=_source, help="name of the source")
        each.add_argument("--limit", type=_count, help="publish at most so many")
        each.add_argument("--strict", action="store_true", help="end at the first that is wrong")
        each.add_argument("--json", action="store_true", help="summary as one JSON object")


def _fps(text: str) -> float:
    number = float(text)
    if not 0 < number <= 1000:
        raise argparse.ArgumentTypeError(f"{text}: above 0, at most 1000")
    return number


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: at least 1")
    return number


def _source(text: str) -> str:
    if not is_source(text):
        raise argparse.ArgumentTypeError(f"{text!r}: 1 to 128 characters of A-Z a-z 0-9 . _ : -")
    return text


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Publish until the end of the input or a signal, and say what was done."""
    configure(settings.process.log_format, settings.process.log_level, command="produce")
    feed = _open(args)
    try:
        ended_by = asyncio.run(_publish(feed, settings))
    finally:
        feed.close()
    summary = feed.summary
    print(json.dumps(asdict(summary)) if args.json else summary.as_text(), flush=True)
    if ended_by:
        return 128 + ended_by
    return summary.exit_code


def _open(args: argparse.Namespace) -> Feed:
    common = {"limit": args.limit, "strict": args.strict}
    if args.what == "events":
        return EventFeed(args.source, args.input, real_time=args.real_time, **common)
    return FrameFeed(
        args.source,
        args.input,
        fps=args.fps,
        loop=args.loop,
        live=args.live,
        fast=args.fast,
        **common,
    )


async def _publish(feed: Feed, settings: Settings) -> int:
    """Give the number of the signal that ended it, or 0."""
    client = Client(
        settings=settings,
        wait_s=settings.redis.wait_s,
        wait_for_room=not feed.is_live,
        full_retry_s=float("inf"),
    )
    summary = feed.summary
    async with client:
        began_s = monotonic()
        with _progress(feed):
            ended_by = await _until_signal(feed.publish(client))
        await client.flush(_LAST_FLUSH_S if ended_by or feed.is_live else float("inf"))
    summary.published = client.sent
    summary.lost += client.lost
    summary.held_back_s = round(client.held_back_s, 3)
    summary.seconds = round(monotonic() - began_s, 3)
    return ended_by


async def _until_signal(work: Coroutine[Any, Any, None]) -> int:
    loop, seen = asyncio.get_running_loop(), list[int]()
    task = asyncio.create_task(work, name="produce")

    def end(number: int) -> None:
        seen.append(number)
        for each in (signal.SIGINT, signal.SIGTERM):  # a second one is not held up
            loop.remove_signal_handler(each)
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end, number)
    try:
        await task
    except asyncio.CancelledError:
        if not seen:
            raise
    return seen[0] if seen else 0


def _progress(feed: Feed) -> AbstractContextManager[object]:
    """Show a bar on standard error, if that is a terminal."""
    if not sys.stderr.isatty():
        return nullcontext()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    bar = Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True))
    task = bar.add_task(feed.summary.source, total=feed.total)
    feed.on_progress = lambda count: bar.update(task, completed=count)
    return bar
