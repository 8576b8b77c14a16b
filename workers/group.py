"""One process group on one machine: a Redis, embedded unless one is set, workers and the API."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from pipeline.embedded import EmbeddedRedis
from pipeline.errors import DependencyError, SettingsError
from pipeline.settings import Settings

REDIS_VARIABLE = "PERCIPIO_REDIS_URL"
PORT_VARIABLE = "PERCIPIO_API_PORT"
PORTS_TRIED = 20
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
class Page:
    """Where the API of a group is."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """Its address for a browser on this machine."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}/"

    def is_ready(self) -> bool:
        """Ask it; blocks for a second at most."""
        connection = HTTPConnection(self.host, self.port, timeout=1)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()


@dataclass(frozen=True, slots=True)
class Group:
    """What runs: the URL of its Redis, the workers, and where the page is."""

    redis_url: str
    workers: Sequence[Worker]
    page: Page

    def check(self) -> None:
        """Raise DependencyError when a worker has ended."""
        for worker in self.workers:
            worker.check()


@contextmanager
def run_group(
    settings: Settings, names: Sequence[str], environ: Mapping[str, str], folder: Path
) -> Iterator[Group]:
    """Start Redis, unless `PERCIPIO_REDIS_URL` names one, workers and API; stop all at the end.

    The API's port is `PERCIPIO_API_PORT`; if that is not set, 8080 or the next free one.

    Args:
        settings: of this process.
        names: modules of `workers` to run, one process each.
        environ: added to the workers' environment.
        folder: where their logs go.

    Raises:
        DependencyError: there is no redis-server.
        SettingsError: the port asked for is taken.
    """
    with ExitStack() as stack:
        page = choose_page(settings)
        environ = {PORT_VARIABLE: str(page.port), **environ}
        url = settings.redis.url
        if REDIS_VARIABLE not in settings.given:
            url = stack.enter_context(EmbeddedRedis()).url
        workers: list[Worker] = []
        stack.callback(_stop_all, workers)
        for index, name in enumerate((*names, "api")):
            workers.append(
                _start(name, folder / f"{index}-{name}.log", {REDIS_VARIABLE: url} | dict(environ))
            )
        yield Group(url, workers, page)


def choose_page(settings: Settings) -> Page:
    """Find a port for the API.

    Raises:
        SettingsError: the one asked for, or all that were tried, are taken.
    """
    host, first = settings.api.host, settings.api.port
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    is_fixed = PORT_VARIABLE in settings.given
    ports = [first] if is_fixed else range(first, first + PORTS_TRIED)
    for port in ports:
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            with socket.create_server((host, port), family=family) as tried:
                return Page(shown, tried.getsockname()[1])
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise SettingsError(f"PERCIPIO_API_HOST={host}, port {port}: {error}") from error
    taken = f"{first} to {ports[-1]} are all" if len(ports) > 1 else f"{PORT_VARIABLE}={first} is"
    raise SettingsError(f"{taken} taken; set {PORT_VARIABLE} to a free one, or to 0 for any")


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
