"""`percipio dead list|show|replay|drop`: entries that could not be processed."""

from __future__ import annotations

import argparse
import asyncio
import json

from rich.console import Console
from rich.table import Table

from pipeline.dead import DeadLetter, drop_dead, list_dead, replay_dead, show_dead
from pipeline.partition import Keys
from pipeline.settings import Settings
from pipeline.stream import Store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|show|replay|drop")
    listing = actions.add_parser("list", help="all dead letters, newest first")
    listing.add_argument("--reason", help="only those with this reason")
    listing.add_argument("--source", help="only those of this source")
    listing.add_argument("--limit", type=int, default=100, help="at most so many (100)")
    for name, text in (
        ("show", "everything kept of one"),
        ("replay", "publish the original fields anew and remove the dead letter"),
        ("drop", "remove for good"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("id", nargs="+", help="written in full, p000/1234-0")
        action.add_argument("--json", action="store_true", help="JSON lines")
    listing.add_argument("--json", action="store_true", help="JSON lines")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Carry out one action."""
    return asyncio.run(_run(args, settings))


async def _run(args: argparse.Namespace, settings: Settings) -> int:
    keys = Keys(settings.streams.key_prefix, settings.streams.partitions)
    async with Store.open(settings.redis.url, keys, create=False) as store:
        if args.action == "list":
            _print_list(await _select(store, args), as_json=args.json)
            return 0
        for name in args.id:
            if args.action == "show":
                print(json.dumps((await show_dead(store, name)).as_json(), indent=None))
            elif args.action == "replay":
                added = await replay_dead(store, name)
                _say({"replayed": name, "as": added}, as_json=args.json)
            else:
                await drop_dead(store, name)
                _say({"dropped": name}, as_json=args.json)
    return 0


async def _select(store: Store, args: argparse.Namespace) -> list[DeadLetter]:
    found: list[DeadLetter] = []
    async for letter in list_dead(store):
        if args.reason not in (None, letter.reason) or args.source not in (None, letter.source):
            continue
        found.append(letter)
        if len(found) >= args.limit:
            break
    return found


def _print_list(letters: list[DeadLetter], *, as_json: bool) -> None:
    if as_json:
        for letter in letters:
            print(json.dumps(letter.as_json()))
        return
    table = Table()
    for column in ("id", "stream", "source", "reason", "deliveries", "error"):
        table.add_column(column, overflow="fold")
    for letter in letters:
        row = (letter.name, letter.stream, letter.source or "?", letter.reason)
        table.add_row(*row, str(letter.deliveries), letter.error)
    Console().print(table if letters else "no dead letters")


def _say(facts: dict[str, str], *, as_json: bool) -> None:
    print(json.dumps(facts) if as_json else ", ".join(f"{k} {v}" for k, v in facts.items()))
