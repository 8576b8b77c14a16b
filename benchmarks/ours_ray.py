"""The same score workers on a local Ray, by `percipio ray`, for the comparison."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import psutil

from benchmarks.ours import LONG_LEASE_MS

CPUS_EACH = "0.1"
"""So that eight fit on two cores: Ray's shares are for placing, they limit nothing."""


@contextmanager
def actors(url: str, workers: int, settings: Mapping[str, str]) -> Iterator[list[psutil.Process]]:
    """Run score workers on a Ray of our own until the block ends; gives their processes."""
    with tempfile.TemporaryDirectory(prefix="") as folder:
        environ = os.environ | {
            "PERCIPIO_REDIS_URL": url,
            "PERCIPIO_LOG_LEVEL": "warning",
            "PERCIPIO_LEASE_MS": LONG_LEASE_MS,
            "TMPDIR": folder,  # where a local Ray is remembered: not another's
            **settings,
        }
        try:
            wanted = ("--detect", "0", "--score", str(workers), "--score-cpus", CPUS_EACH)
            percipio_ray(environ, "up", *wanted)
            status = json.loads(percipio_ray(environ, "status", "--json"))
            yield [psutil.Process(row["pid"]) for row in status["workers"]]
        finally:
            percipio_ray(environ, "down")


def percipio_ray(environ: Mapping[str, str], *words: str) -> str:
    """Run `percipio ray`; gives what it prints."""
    command = [sys.executable, "-m", "workers.main", "ray", *words]
    done = subprocess.run(command, env=dict(environ), stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout
