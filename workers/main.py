"""The command `percipio`: finds the command asked for and turns its end into an exit code."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module, metadata

from pipeline.errors import PercipioError

COMMANDS = {
    "demo": "everything in one go: Redis, workers, a source, a live table",
    "up": "Redis and all workers on this machine, until Ctrl-C",
    "detect": "a worker that finds objects in frames",
    "score": "a worker that tracks objects and scores sources",
    "api": "the HTTP API and the page",
    "ray": "the workers on a Ray cluster: up, status, scale, restart, down",
    "keys": "who may use the API: new, list, revoke",
    "produce": "publish a video, pictures, a camera, a stream, or events",
    "watch": "follow detections and scores",
    "status": "lag, owners, consumers, dead letters, ledger",
    "dead": "list, show, replay or drop dead letters",
    "model": "what would run here; export and compare runtimes",
    "plan": "machines and processes for so many cameras, events and sources",
}
_EPILOG = """\
Settings are environment variables: PERCIPIO_REDIS_URL and others, see README.
exit codes: 0 ok, 1 failed, 2 wrong usage or setting, 3 something it needs is away"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; gives its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(words)
    except PercipioError as error:
        print(f"percipio: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _run(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="percipio",
        description="Frames and events through YOLOv9 and consciousness scoring, over Redis.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=metadata.version("percipio"))
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    parsers = {
        name: commands.add_parser(name, help=text, description=text)
        for name, text in COMMANDS.items()
    }
    name = words[0] if words and words[0] in COMMANDS else None
    if name is None:
        parser.parse_args(words)
        return 2
    module = import_module(f"workers.{name}")
    module.add_arguments(parsers[name])
    arguments = parser.parse_args(words)
    return int(module.run(arguments, import_module("pipeline.settings").load_settings()))


if __name__ == "__main__":
    raise SystemExit(main())
