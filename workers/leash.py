"""Runs a worker that ends when the process that started it ends, however that ends.

`python -m workers.leash workers.detect`: standard input is a pipe whose other end only the parent
holds; when it closes the worker gets the SIGTERM that anybody would send it.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading


def _wait_for_parent() -> None:
    while os.read(0, 1):  # not sys.stdin, whose lock a thread must not hold at the end
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_wait_for_parent, daemon=True, name="leash").start()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
