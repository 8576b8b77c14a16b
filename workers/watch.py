"""`percipio watch`: follow detections and scores as they come."""

from __future__ import annotations

import argparse
import asyncio
import json
from contextlib import aclosing
from datetime import datetime

from pipeline.client import Client
from pipeline.log import configure
from pipeline.results import KINDS, Result
from pipeline.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what to follow."""
    parser.add_argument("--source", help="only this source")
    parser.add_argument("--kind", choices=KINDS, help="only one of the two")
    parser.add_argument("--count", type=int, help="end after so many")
    parser.add_argument(
        "--all", action="store_true", help="begin with the oldest that is kept, not with now"
    )
    parser.add_argument("--json", action="store_true", help="JSON lines")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Print results until there were enough of them, or Ctrl-C."""
    configure(settings.process.log_format, settings.process.log_level, command="watch")
    asyncio.run(_watch(args, settings))
    return 0


async def _watch(args: argparse.Namespace, settings: Settings) -> None:
    left = args.count
    async with Client(settings=settings, wait_s=settings.redis.wait_s) as client:
        after = "0" if args.all else None
        async with aclosing(client.follow(args.source, kind=args.kind, after=after)) as results:
            while left != 0 and (result := await anext(results, None)) is not None:
                print(json.dumps(result.as_json()) if args.json else _line(result), flush=True)
                left = left and left - 1


def _line(result: Result) -> str:
    at = datetime.fromtimestamp(result.ts_ms / 1000).astimezone()
    head = f"{at:%H:%M:%S}.{at.microsecond // 1000:03d} {result.source:<16}"
    gap = f"[{result.missed} removed unread] " if result.missed else ""
    text = _detections(result) if result.kind == "detections" else _score(result)
    return f"{gap}{head} {text}"


def _detections(result: Result) -> str:
    timing = result.fields.get("timing") or {}
    spent_ms = sum(timing.get(name, 0) for name in ("queued_ms", "decode_ms", "infer_ms"))
    labels = str(result.fields.get("labels", "")).replace(",", " ") or "nothing"
    return f"found {labels} ({spent_ms:.0f} ms)"


def _score(result: Result) -> str:
    fields = result.fields
    text = f"score {fields.get('level', 0):.4f} {fields.get('phase', '?')}"
    if transition := fields.get("transition"):
        text += f" ({transition})"
    return f"{text}, {fields.get('kind', '?')}, n={fields.get('n', '?')}" + (
        ", late" if fields.get("late") else ""
    )
