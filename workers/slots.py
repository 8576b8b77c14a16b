"""Stable names for workers: the same worker, started again on the same host, has the same name."""

from __future__ import annotations

import fcntl
import os
import re
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

_SLOTS = 1000


@dataclass(frozen=True, slots=True)
class Slot:
    """The lowest number of a worker that no other process on this host has.

    Attributes:
        name: `<worker>-<host>-<number>`, fit to be a consumer name.
        lock: a locked file; the number is free again when it closes, at the latest when the
            process ends, however it ends.
    """

    name: str
    lock: TextIO


def take_slot(worker: str, folder: Path | None = None) -> Slot:
    """Take the lowest free number of `worker`.

    Args:
        worker: `detect`, `score`.
        folder: where the locks are; by default one of this user's among the temporary files.

    Raises:
        OSError: the folder cannot be used, or belongs to somebody else.
    """
    place = folder or Path(tempfile.gettempdir()) / f"percipio-{os.getuid()}"
    place.mkdir(mode=0o700, exist_ok=True)
    if place.is_symlink() or place.stat().st_uid != os.getuid():
        raise PermissionError(f"{place} belongs to somebody else")
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:64]
    for number in range(_SLOTS):
        lock = open(place / f"{worker}-{number}.lock", "w")  # noqa: SIM115
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
        else:
            return Slot(f"{worker}-{host}-{number}", lock)
    raise OSError(f"more than {_SLOTS} {worker} workers on one host")
