"""Forks workers from a process that has imported and compiled everything, so that a kill is cheap.

    python -m tests.fault.nursery

Lines of JSON in: {"spawn": "detect" | "score", "environ": {...}, "log": path} or {"poll": true};
one line out for each: the process id, or the wait status of all that have ended, by id.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import signal
import sys
from typing import Any

from pipeline.scoring.engine import warm_up
from tests.fault import fake_detect, hooks
from workers import score
from workers.runner import run_worker

PR_SET_PDEATHSIG = 1
MAINS = {"detect": fake_detect.main, "score": score.main}


def _spawn(order: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # workers end with a run cut short
    os.environ.update(order["environ"])
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    faulthandler.enable()
    hooks.install()
    name = order["spawn"]
    os._exit(run_worker(name, MAINS[name]))


def _poll() -> dict[int, int]:
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if not pid:
            return ended
        ended[pid] = os.waitstatus_to_exitcode(status)


def main() -> None:
    """Serve until standard input closes."""
    warm_up()
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(_spawn(order) if "spawn" in order else _poll()), flush=True)


if __name__ == "__main__":
    main()
