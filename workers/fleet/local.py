"""A Ray cluster of this machine's own, in the background, where none was named.

`python -m workers.fleet.local FOLDER` is its head: it ends with SIGTERM and takes everything along.
The file `head` in its folder is locked while it runs, and says where it is.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, TextIO

import psutil

from pipeline.errors import DependencyError

START_S = 120.0
STOP_S = 30.0
OBJECT_STORE_BYTES = 100 * 2**20
"""Data goes through Redis: what Ray asks for at least is plenty."""
MOST_BYTES = 35
"""Of a folder's path: Ray's sockets in it add up to 72 bytes, and Unix takes 107."""


@dataclass(frozen=True, slots=True)
class Head:
    """A running head.

    Attributes:
        address: of the cluster.
        dashboard: host and port of its dashboard.
    """

    pid: int
    address: str
    dashboard: str


def folder_of(prefix: str) -> Path:
    """Give the folder of a deployment's local cluster: this user's alone.

    Raises:
        DependencyError: somebody else has it, or its path is too long for Ray.
    """
    parent = Path(tempfile.gettempdir()) / f"percipio-{os.getuid()}"
    parent.mkdir(mode=0o700, exist_ok=True)
    if parent.is_symlink() or parent.stat().st_uid != os.getuid():
        raise DependencyError(f"{parent} belongs to somebody else; set TMPDIR")
    name = prefix if len(prefix) <= 8 else blake2b(prefix.encode(), digest_size=4).hexdigest()
    folder = parent / name
    if len(os.fsencode(folder)) > MOST_BYTES:
        raise DependencyError(f"{folder}: too long for Ray's sockets; set TMPDIR to a shorter path")
    return folder


def find_head(folder: Path) -> Head | None:
    """Give the head that runs there; None when none does."""
    try:
        with (folder / "head").open() as file, _unlocked(file) as is_free:
            return None if is_free else Head(**json.loads(file.read()))
    except (FileNotFoundError, ValueError, TypeError):  # not there, or it is only starting
        return None


@contextmanager
def _unlocked(file: TextIO) -> Iterator[bool]:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True


def start_head(folder: Path, cpus: int | None) -> Head:
    """Start a head in the background and wait until it answers.

    Args:
        folder: where it keeps its files.
        cpus: that it may hand out; None for what the machine has.

    Raises:
        DependencyError: it did not start; says what it said last.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    words = folder / "head.log"
    command = [sys.executable, "-m", __name__, str(folder), *([str(cpus)] if cpus else [])]
    with words.open("wb") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    deadline_s = time.monotonic() + START_S
    while (head := find_head(folder)) is None:
        if process.poll() is not None or time.monotonic() > deadline_s:
            process.kill()
            raise DependencyError(f"Ray did not start: {words.read_text(errors='replace')[-500:]}")
        time.sleep(0.1)
    return head


def stop_head(folder: Path, head: Head) -> None:
    """End a head and everything that it started, and remove its files."""
    family = _session_of(head.pid)
    with suppress(ProcessLookupError):
        os.kill(head.pid, signal.SIGTERM)
    _, alive = psutil.wait_procs(family, STOP_S)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, STOP_S)
    shutil.rmtree(folder, ignore_errors=True)


def _session_of(pid: int) -> list[psutil.Process]:
    """Give the processes of a session: Ray puts its workers into groups of their own."""
    found = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError):
            if os.getsid(process.pid) == pid:
                found.append(process)
    return found


def _main(folder: Path, cpus: int | None) -> None:
    import ray

    with (folder / "head").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.truncate(0)
        context: Any = ray.init(
            num_cpus=cpus,
            include_dashboard=True,
            log_to_driver=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=str(folder / "ray"),
        )
        found = {"pid": os.getpid(), "address": context.address_info["address"]}
        file.write(json.dumps(found | {"dashboard": context.dashboard_url}))
        file.flush()
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        stop.wait()
        ray.shutdown()


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None)
