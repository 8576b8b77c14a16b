"""One process group on one machine: a Redis, embedded unless one is set, and the workers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.embedded import EmbeddedRedis
from pipeline.errors import DependencyError
from pipeline.settings import Settings

REDIS_VARIABLE = "PERCIPIO_REDIS_URL"
STOP_S = 25.0


@dataclass(slots=True)
class Worker:
    """One process; what it says goes to `words`."""

    name: str
    process: subprocess.Popen[bytes]
    words: Path

    def check(self) -> None:
        """Raise when it has ended.

        Raises:
            DependencyError: with the last thing it said.
        """
        code = self.process.poll()
        if code is not None:
            lines = self.words.read_text(errors="replace").strip().splitlines()
            last = lines[-1] if lines else "it said nothing"
            raise DependencyError(f"worker {self.name} ended with {code}: {last}")

    def stop(self) -> None:
        """End it: let it finish what it has begun, but not for ever."""
        if self.process.stdin is not None:
            with suppress(BrokenPipeError):
                self.process.stdin.close()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass(frozen=True, slots=True)
class Group:
    """What runs: the URL of its Redis, and the workers."""

    redis_url: str
    workers: Sequence[Worker]

    def check(self) -> None:
        """Raise DependencyError when a worker has ended."""
        for worker in self.workers:
            worker.check()


@contextmanager
def run_group(
    settings: Settings, names: Sequence[str], environ: Mapping[str, str], folder: Path
) -> Iterator[Group]:
    """Start Redis, unless `PERCIPIO_REDIS_URL` names one, and workers; stop all of it at the end.

    Args:
        settings: of this process.
        names: modules of `workers` to run, one process each.
        environ: added to the workers' environment.
        folder: where their logs go.

    Raises:
        DependencyError: there is no redis-server.
    """
    with ExitStack() as stack:
        url = settings.redis.url
        if REDIS_VARIABLE not in settings.given:
            url = stack.enter_context(EmbeddedRedis()).url
        workers: list[Worker] = []
        stack.callback(_stop_all, workers)
        for index, name in enumerate(names):
            workers.append(
                _start(name, folder / f"{index}-{name}.log", {REDIS_VARIABLE: url} | dict(environ))
            )
        yield Group(url, workers)


def _start(name: str, words: Path, environ: Mapping[str, str]) -> Worker:
    with words.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "workers.leash", f"workers.{name}"],
            env=os.environ | environ,
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches us alone; the workers are stopped in order
        )
    return Worker(name, process, words)


def _stop_all(workers: list[Worker]) -> None:
    for worker in reversed(workers):
        if worker.process.stdin is not None:
            with suppress(BrokenPipeError):
                worker.process.stdin.close()
    for worker in workers:
        worker.stop()
