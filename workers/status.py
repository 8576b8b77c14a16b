"""`percipio status`: lag, pending, owners, dead letters and the ledger."""

from __future__ import annotations

import argparse
import asyncio
import json

from rich.console import Console
from rich.table import Table

from pipeline.ledger import PartitionStatus, Status, differences, read_status
from pipeline.partition import Keys
from pipeline.settings import Settings
from pipeline.stream import Store

NOTHING = "·"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--all", action="store_true", help="partitions at rest too")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Print the state of the deployment."""
    status = asyncio.run(_read(settings))
    if args.json:
        print(json.dumps(status.as_json()))
    else:
        console = Console()
        console.print(_partitions(status, everything=args.all))
        console.print(_ledger(status))
    return 0


async def _read(settings: Settings) -> Status:
    keys = Keys(settings.streams.key_prefix, settings.streams.partitions)
    async with Store.open(settings.redis.url, keys, create=False) as store:
        return await read_status(store)


def _partitions(status: Status, *, everything: bool) -> Table:
    table = Table(title="partitions", title_justify="left")
    for column in ("", "score worker", "sources", "waiting", "oldest", "dead", "results since"):
        table.add_column(column, overflow="fold")
    for part in status.partitions:
        if not (everything or part.owner or part.sources or part.in_flight or part.dead):
            continue
        since = [ms for ms in part.results_since_ms.values() if ms is not None]
        table.add_row(
            part.partition,
            f"{part.owner} (epoch {part.epoch})" if part.owner else "nobody",
            str(part.sources),
            _waiting(part) or NOTHING,
            _span(max(stream.oldest_ms for stream in part.streams.values())),
            str(part.dead),
            _span(status.now_ms - min(since)) if since else NOTHING,
        )
    return table


def _waiting(part: PartitionStatus) -> str:
    """Name the streams with something to do, `events 12+3`: lag and pending."""
    texts = []
    for name, stream in part.streams.items():
        lag = "?" if stream.lag is None else str(stream.lag)
        if lag != "0" or stream.pending:
            texts.append(f"{name} {lag}+{stream.pending}")
    return ", ".join(texts)


def _ledger(status: Status) -> Table:
    terms, gaps = status.terms, differences(status.terms)
    table = Table(title="ledger", title_justify="left")
    for column in ("term", "entries"):
        table.add_column(column, justify="left" if column == "term" else "right")
    for name, count in terms.items():
        table.add_row(name, f"{count:,}")
    for name, gap in gaps.items():
        table.add_row(f"{name}: in flight", f"{gap:,}", style="green" if not gap else "yellow")
    return table


def _span(milliseconds: int) -> str:
    seconds = milliseconds / 1000
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds else NOTHING
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
