"""`percipio keys new|list|revoke`: who may use the API."""

from __future__ import annotations

import argparse
import json
import os
import stat
import sys
import tempfile
from pathlib import Path

from pipeline.api.keys import ROLES, Grant, hash_key, make_key, read_grants
from pipeline.errors import SettingsError
from pipeline.settings import Settings

_SHOWN = 12
_LEAST = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="new|list|revoke")
    new = actions.add_parser("new", help="make a key and print it, this once")
    new.add_argument("role", choices=ROLES, help="what it may do; admin may do everything")
    new.add_argument("--sources", default="*", help="pattern of source names, `cam-*` (all)")
    listing = actions.add_parser("list", help="what keys there are, by the start of their hashes")
    revoke = actions.add_parser("revoke", help="take a key away, at once")
    revoke.add_argument("hash", help=f"the first {_LEAST} or more digits of its hash, or the key")
    for action in (new, listing, revoke):
        action.add_argument("--file", type=Path, help="instead of PERCIPIO_API_KEYS_FILE")
        action.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Carry out one action."""
    path = args.file or settings.api.keys_file
    if path is None:
        raise SettingsError("say which file: PERCIPIO_API_KEYS_FILE, or --file")
    if args.action == "new":
        _add(path, args)
    elif args.action == "list":
        _list(path, as_json=args.json)
    else:
        _revoke(path, args)
    return 0


def _add(path: Path, args: argparse.Namespace) -> None:
    key = make_key()
    line = f"{hash_key(key)} {args.role} {args.sources}"
    read_grants(line, "--sources")
    text = path.read_text() if path.exists() else ""
    read_grants(text, str(path))
    _replace(path, text + ("\n" if text and not text.endswith("\n") else "") + line + "\n")
    if args.json:
        print(json.dumps({"key": key, "role": args.role, "sources": args.sources}))
        return
    print(key)
    print(f"role {args.role}, sources {args.sources}; not shown again", file=sys.stderr)


def _list(path: Path, *, as_json: bool) -> None:
    for grant in read_grants(_read(path), str(path)):
        if as_json:
            row = {"hash": grant.key_hash, "role": grant.role, "sources": grant.pattern}
            print(json.dumps(row))
        else:
            print(f"{grant.key_hash[:_SHOWN]}  {grant.role:<8} {grant.pattern}")


def _revoke(path: Path, args: argparse.Namespace) -> None:
    text, wanted = _read(path), args.hash.lower()
    found = _named(read_grants(text, str(path)), args.hash)
    hashes = {grant.key_hash for grant in found}
    if len(hashes) != 1:
        raise SettingsError(f"{len(hashes)} keys have a hash that starts with {wanted[:_SHOWN]!r}")
    kept = [
        line
        for line in text.splitlines(keepends=True)
        if line.split()[:1] == [] or line.split()[0].lower() not in hashes
    ]
    _replace(path, "".join(kept))
    shown = hashes.pop()[:_SHOWN]
    print(json.dumps({"revoked": shown}) if args.json else f"revoked {shown}")


def _named(grants: tuple[Grant, ...], name: str) -> list[Grant]:
    by_key = [grant for grant in grants if grant.key_hash == hash_key(name)]
    if by_key:
        return by_key
    if len(name) < _LEAST:
        raise SettingsError(f"give at least {_LEAST} digits of the hash")
    return [grant for grant in grants if grant.key_hash.startswith(name.lower())]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from error


def _replace(path: Path, text: str) -> None:
    """Write a file whole; a new one is readable by its owner alone, an old one as it was."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        if path.exists():
            _allow_the_same(path, name)
        os.replace(name, path)
    except OSError as error:
        os.unlink(name)
        raise SettingsError(f"{path}: {error.strerror}; it is as it was") from error


def _allow_the_same(path: Path, name: str) -> None:
    """Give a file the owner and mode of another, or an API of another user could not reread it."""
    found = path.stat()
    if (found.st_uid, found.st_gid) != (os.geteuid(), os.getegid()):
        os.chown(name, found.st_uid, found.st_gid)
    os.chmod(name, stat.S_IMODE(found.st_mode))
