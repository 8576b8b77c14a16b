"""`percipio ray` as users run it: a cluster of this machine's own, a job, and nothing left."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from redis.asyncio import Redis

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: Ray's sockets lie in it."""
    folder = Path("/tmp", f"p{secrets.token_hex(2)}")
    folder.mkdir(mode=0o700)
    yield folder
    for process in processes_of(folder):
        process.kill()
    shutil.rmtree(folder, ignore_errors=True)


def processes_of(folder: Path) -> list[psutil.Process]:
    """Give every process that was started with this folder as its home."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("HOME") == str(folder):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_up_job_status_down(redis: Redis, redis_url: str, folder: Path) -> None:
    """A job brings up a worker that outlives it; `down` leaves no process, no file, no key."""
    environ = {
        **{name: text for name, text in os.environ.items() if not name.startswith("RAY_")},
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "PYTHONPATH": str(ROOT),
        "PERCIPIO_REDIS_URL": redis_url,
        "PERCIPIO_PARTITIONS": "4",
        "RAY_AUTH_MODE": "token",
    }

    def run(*words: str) -> str:
        done = subprocess.run(
            words, env=environ, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    percipio = (sys.executable, "-m", "workers.main", "ray")
    run(*percipio, "up", "--detect", "0", "--score", "0")
    status: dict[str, Any] = json.loads(run(*percipio, "status", "--json"))
    assert status["workers"] == []

    ray = str(Path(sys.executable).with_name("ray"))
    entry = (*percipio, "up", "--address", "auto", "--score", "1", "--score-cpus", "0.25")
    run(ray, "job", "submit", "--address", status["dashboard"], "--", *entry)
    (worker,) = json.loads(run(*percipio, "status", "--json"))["workers"]
    assert (worker["role"], worker["state"]) == ("score", "ready")
    assert psutil.pid_exists(worker["pid"])
    logs = next(folder.glob("percipio-*/percipio")) / "ray/session_latest/logs"
    assert list(logs.glob(worker["logs"]))

    run(*percipio, "down")
    psutil.wait_procs(processes_of(folder), 30)
    assert processes_of(folder) == []
    assert not list(folder.glob("percipio-*/percipio"))
