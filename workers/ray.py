"""`percipio ray`: the workers on a Ray cluster: up, status, scale, restart, down."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from pipeline.errors import SettingsError
from pipeline.settings import Settings

if TYPE_CHECKING:
    from workers.fleet.client import Fleet
    from workers.fleet.spec import Role

ROLES = ("detect", "score")
_BOUNDS = re.compile(r"(\d{1,5})(?:\.\.(\d{1,5}))?\Z")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    up = _verb(verbs, "up", "start the fleet, or bring it to what is said now; safe to repeat")
    for role in ROLES:
        group = up.add_argument_group(f"{role} workers (what is not said stays as it was)")
        group.add_argument(f"--{role}", metavar="N|MIN..MAX", type=bounds, help="how many (1)")
        group.add_argument(f"--{role}-cpus", metavar="N", type=float, help="CPU shares of each")
        group.add_argument(f"--{role}-gpus", metavar="N", type=float, help="GPUs of each, 0.5 too")
        group.add_argument(f"--{role}-memory-mb", metavar="N", type=int, help="memory of each")
        group.add_argument(
            f"--{role}-target-s", metavar="S", type=float, help="age that adds workers"
        )
    up.add_argument("--runtime-env", metavar="FILE", help="JSON: Ray's runtime environment")
    up.add_argument("--no-wait", action="store_true", help="do not wait until all take work")
    status = _verb(verbs, "status", "workers, where they run, their logs and metrics")
    status.add_argument("--json", action="store_true", help="one JSON object")
    scale = _verb(verbs, "scale", "another number of workers")
    scale.add_argument("role", choices=ROLES)
    scale.add_argument("workers", metavar="N|MIN..MAX", type=bounds)
    scale.add_argument("--no-wait", action="store_true", help="do not wait until it is so")
    restart = _verb(verbs, "restart", "replace all workers, one after the other")
    restart.add_argument("--no-wait", action="store_true", help="do not wait until it is done")
    _verb(verbs, "down", "let all workers finish, and leave nothing behind")


def _verb(verbs: Any, name: str, text: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text)
    made.add_argument("--address", metavar="HOST:PORT", help="of the Ray cluster, or auto")
    return made


def bounds(text: str) -> tuple[int, int]:
    """Read `4` or `1..8`.

    Raises:
        ArgumentTypeError: it is neither.
    """
    found = _BOUNDS.match(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text}: takes N or MIN..MAX")
    least, most = int(found[1]), int(found[2] or found[1])
    if least > most:
        raise argparse.ArgumentTypeError(f"{text}: the smaller first")
    return least, most


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Do what was asked for."""
    try:
        from workers.fleet.client import Fleet, stop_local
    except ModuleNotFoundError as error:
        raise SettingsError(f"{error}; pip install 'percipio[ray]'") from error
    if args.verb == "down":
        return _down(args, settings, Fleet, stop_local)
    with Fleet.connect(settings, args.address, start=args.verb == "up") as fleet:
        if args.verb == "up":
            fleet.up(roles_of(args, fleet.roles()), _environ(settings), _runtime_env(args))
        elif args.verb == "scale":
            fleet.scale(args.role, *args.workers)
        elif args.verb == "restart":
            fleet.restart()
        if args.verb != "status" and not args.no_wait:
            with Console(stderr=True).status("waiting for the workers …"):
                fleet.wait_until_ready()
        _show(fleet.status(), as_json=args.verb == "status" and args.json)
    return 0


def _down(args: argparse.Namespace, settings: Settings, fleet: type[Fleet], stop_local: Any) -> int:
    with fleet.connect(settings, args.address) as found:
        found.down()
    if not (args.address or os.environ.get("RAY_ADDRESS")):
        stop_local(settings.streams.key_prefix)
    return 0


def roles_of(args: argparse.Namespace, known: Mapping[str, Role]) -> dict[str, Role]:
    """Give the roles with what the arguments say of them."""
    said = vars(args)
    found = {}
    for name, role in known.items():
        changes = {
            "cpus": said[f"{name}_cpus"],
            "gpus": said[f"{name}_gpus"],
            "target_s": said[f"{name}_target_s"],
        }
        if (memory_mb := said[f"{name}_memory_mb"]) is not None:
            changes["memory_bytes"] = memory_mb * 2**20
        if said[name] is not None:
            changes["least"], changes["most"] = said[name]
        found[name] = replace(role, **{k: v for k, v in changes.items() if v is not None})
    return found


def _environ(settings: Settings) -> dict[str, str]:
    """Give the settings that were given to us: the workers get the same."""
    return {name: os.environ[name] for name in sorted(settings.given)}


def _runtime_env(args: argparse.Namespace) -> dict[str, Any] | None:
    if args.runtime_env is None:
        return None
    try:
        with open(args.runtime_env) as file:
            found = json.load(file)
    except (OSError, ValueError) as error:
        raise SettingsError(f"--runtime-env {args.runtime_env}: {error}") from error
    if not isinstance(found, dict):
        raise SettingsError(f"--runtime-env {args.runtime_env}: takes a JSON object")
    return found


def _why(role: Mapping[str, Any]) -> str:
    return f"; {role['reason']}" if role.get("reason") else ""


def _show(status: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(status))
        return
    table = Table(title=f"workers, generation {status['generation']}", title_justify="left")
    for column in ("worker", "state", "node", "pid", "metrics", "log", "why"):
        table.add_column(column, overflow="fold")
    for row in status["workers"]:
        table.add_row(
            row["name"],
            row["state"],
            row.get("host", ""),
            str(row.get("pid", "")),
            row.get("metrics") or "",
            row.get("logs", ""),
            row["why"],
        )
    console = Console()
    console.print(table)
    for name, role in status["roles"].items():
        limits = "" if role["min"] == role["max"] else f" of {role['min']} to {role['max']}"
        console.print(f"{name}: {role['ready']} ready, {role['wanted']} wanted{limits}{_why(role)}")
    for row in status["decisions"]:
        at = datetime.fromtimestamp(int(row["at_ms"]) / 1e3).strftime("%H:%M:%S")
        console.print(f"{at} {row['role']} {row['from']} to {row['to']}: {row['reason']}")
    for name in ("dashboard", "log_folder", "problem"):
        if status.get(name):
            console.print(f"{name.replace('_', ' ')}: {status[name]}", highlight=False)
