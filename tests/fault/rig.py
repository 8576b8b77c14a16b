"""What a fault test stands on: a Redis that can be killed, workers that can be killed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from pipeline.embedded import find_server

START_S = 120.0


def free_port() -> int:
    """Give a loopback port that nobody has now, nor the one 10,000 above it.

    Both lie below those that the kernel hands out, so no connection takes them meanwhile.
    """
    dice = random.SystemRandom()
    while True:
        port = dice.randrange(10_000, 22_000)
        with suppress(OSError), socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", port))
            second.bind(("127.0.0.1", port + 10_000))
            return port


def executable(given: str | None) -> str:
    """Give the server to test with: the one on PATH, else the packaged one."""
    return given or shutil.which("redis-server") or find_server()


def memory_folder(otherwise: Path) -> Path:
    """Give a new folder in memory, where fsync takes no time; a kill of Redis does not empty it."""
    if not os.access("/dev/shm", os.W_OK):
        return otherwise
    return Path(tempfile.mkdtemp(prefix="percipio-fault-", dir="/dev/shm"))


def client_of(port: int) -> Redis:
    """Give a client that does not wait long."""
    return Redis(port=port, protocol=2, socket_timeout=3, socket_connect_timeout=3)


@dataclass
class Server:
    """One redis-server on a fixed port, with AOF, that outlives its own death.

    What it has acknowledged is in the file: `everysec` would hold writes back while a slow disk
    is busy, and whether they survive a kill would be chance.
    """

    folder: Path
    program: str
    options: Sequence[str] = ()
    port: int = field(default_factory=free_port)
    wrapper: Sequence[str] = ()
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """For PERCIPIO_REDIS_URL."""
        return f"redis://127.0.0.1:{self.port}/0"

    def connect(self) -> Redis:
        """A publisher's client, which does not wait long."""
        return client_of(self.port)

    @property
    def client(self) -> Redis:
        """A new client."""
        return Redis(port=self.port, protocol=2, socket_timeout=10)

    def start(self, *, wait: bool = True) -> None:
        """Start, or start again on the same data."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [*self.wrapper, self.program, "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--dir", str(self.folder), "--save", "", "--appendonly", "yes"]
        command += ["--appendfsync", "always", "--maxmemory-policy", "noeviction", *self.options]
        with open(self.folder / "redis.log", "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        if wait:
            self.wait()

    def wait(self) -> None:
        """Wait until it answers."""
        deadline_s = time.monotonic() + START_S
        with closing(self.client) as client:
            while True:
                try:
                    client.ping()
                except RedisError:
                    assert time.monotonic() < deadline_s, (self.folder / "redis.log").read_text()
                    time.sleep(0.02)
                else:
                    return

    def kill(self) -> None:
        """End it as kill -9 does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@dataclass
class Nursery:
    """Forks workers; see nursery.py."""

    folder: Path
    environ: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[str] = field(init=False)
    ended: dict[int, int] = field(default_factory=dict)
    count: int = 0

    def __post_init__(self) -> None:
        pipe = subprocess.PIPE
        command = [sys.executable, "-m", "tests.fault.nursery"]
        environ = os.environ | self.environ
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environ)
        assert self._read() == "ready"

    def _read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def _ask(self, order: dict[str, object]) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return self._read()

    def spawn(self, kind: str, environ: dict[str, str]) -> int:
        """Start a worker; gives its process id."""
        self.count += 1
        log = self.folder / f"{self.count:06d}-{kind}.log"
        return int(self._ask({"spawn": kind, "environ": environ, "log": str(log)}))

    def poll(self) -> dict[int, int]:
        """Give exit codes of all workers that have ended, negative for a signal."""
        found = json.loads(self._ask({"poll": True}))
        self.ended.update({int(pid): code for pid, code in found.items()})
        return self.ended

    def close(self) -> None:
        """End the nursery."""
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        self.process.wait(10)


@dataclass
class Fleet:
    """Workers of one deployment, kept at the numbers asked for as a supervisor does."""

    nursery: Nursery
    environ: dict[str, str]
    alive: dict[int, tuple[str, str]] = field(default_factory=dict)
    codes: list[int] = field(default_factory=list)
    kills: int = 0

    def start(self, kind: str, name: str, **extra: str) -> int:
        """Start one worker under a stable consumer name."""
        environ = self.environ | {"PERCIPIO_CONSUMER": name} | extra
        pid = self.nursery.spawn(kind, environ)
        self.alive[pid] = (kind, name)
        return pid

    def start_many(self, detect: int, score: int, **extra: str) -> None:
        """Start so many of each."""
        for kind, count in (("detect", detect), ("score", score)):
            for number in range(count):
                self.start(kind, f"{kind}-{number}", **extra)

    def reap(self) -> list[tuple[str, str, int]]:
        """Forget workers that have ended; gives kind, name and exit code of each."""
        ended = self.nursery.poll()
        gone = [pid for pid in self.alive if pid in ended]
        found = [(*self.alive.pop(pid), ended[pid]) for pid in gone]
        self.codes += [code for *_, code in found]
        return found

    def revive(self, **extra: str) -> int:
        """Start again whatever has ended; gives how many."""
        found = self.reap()
        for kind, name, _ in found:
            self.start(kind, name, **extra)
        return len(found)

    def pids(self, kind: str) -> list[int]:
        """Give the process ids of one kind."""
        return [pid for pid, (its, _) in self.alive.items() if its == kind]

    def kill(self, pid: int) -> None:
        """End a worker as kill -9 does."""
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self.kills += 1

    def stop(self, pids: Iterable[int] | None = None, timeout_s: float = 120.0) -> list[int]:
        """SIGTERM and wait; gives exit codes."""
        chosen = list(self.alive if pids is None else pids)
        for pid in chosen:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
                os.kill(pid, signal.SIGTERM)
        deadline_s = time.monotonic() + timeout_s
        while any(pid not in self.nursery.poll() for pid in chosen):
            if time.monotonic() > deadline_s:
                for pid in chosen:
                    self.kill(pid)
            time.sleep(0.02)
        for pid in chosen:
            self.alive.pop(pid, None)
        return [self.nursery.ended[pid] for pid in chosen]
