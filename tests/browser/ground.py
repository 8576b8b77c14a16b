"""A small deployment for a browser to look at: Redis, workers, API, sources; also by hand.

`python -m tests.browser.ground --port 8090 --sources 12` runs it until Ctrl-C.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline import SyncClient
from pipeline.embedded import EmbeddedRedis
from pipeline.settings import load_settings
from tests.browser.squares import square_jpeg
from workers.group import choose_page

FPS = 5.0
READY_S = 90.0
SETTINGS = {"PERCIPIO_BIN_MS": "50", "PERCIPIO_PARTITIONS": "4", "PERCIPIO_LOG_LEVEL": "warning"}


@dataclass(slots=True)
class Ground:
    """What runs.

    Attributes:
        port: of the API, the same after it was stopped and started again.
        redis_url: of the server.
    """

    port: int
    redis_url: str
    folder: Path
    environ: Mapping[str, str]
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"http://127.0.0.1:{self.port}/"

    def start(self, name: str, module: str) -> None:
        """Start a process."""
        with open(self.folder / f"{name}.log", "ab") as out:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", module],
                env=os.environ | SETTINGS | dict(self.environ),
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def start_api(self) -> None:
        """Start the API and wait until it answers."""
        self.start("api", "workers.api")
        deadline_s = time.monotonic() + READY_S
        while not self._is_ready():
            if self._processes["api"].poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError((self.folder / "api.log").read_text())
            time.sleep(0.05)

    def stop(self, name: str) -> None:
        """End a process, at once."""
        process = self._processes.pop(name)
        process.send_signal(signal.SIGKILL if name == "api" else signal.SIGTERM)
        process.wait(30)

    def stop_all(self) -> None:
        """End all of them."""
        for name in list(self._processes):
            self.stop(name)

    def _is_ready(self) -> bool:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=1)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()


@contextmanager
def ground(cameras: int, keys_file: Path | None = None, port: int = 0) -> Iterator[Ground]:
    """Run everything with so many cameras, and one robot that sends events only."""
    given = {"PERCIPIO_API_PORT": str(port)}
    port = choose_page(load_settings(given)).port
    with EmbeddedRedis() as server, TemporaryDirectory(prefix="percipio-ground-") as folder:
        environ = {"PERCIPIO_REDIS_URL": server.url, "PERCIPIO_API_PORT": str(port)}
        if keys_file is not None:
            environ["PERCIPIO_API_KEYS_FILE"] = str(keys_file)
        made = Ground(port, server.url, Path(folder), environ)
        stop = threading.Event()
        publisher = threading.Thread(target=_publish, args=(server.url, cameras, stop))
        try:
            made.start("score", "workers.score")
            made.start("detect", "tests.browser.squares")
            made.start_api()
            publisher.start()
            yield made
        finally:
            stop.set()
            if publisher.ident is not None:
                publisher.join()
            made.stop_all()


def _publish(url: str, cameras: int, stop: threading.Event) -> None:
    with SyncClient(url) as client:
        number = 0
        while not stop.wait(1 / FPS):
            number += 1
            for camera in range(1, cameras + 1):
                name = f"cam-{camera}"
                client.publish_frame(name, square_jpeg(number, camera), live=True)
                client.publish_event(name, {"motion": _wave(number, 11), "sound": _wave(number, 7)})
            events = {name: _wave(number, 5 + 3 * index) for index, name in enumerate(ROBOT)}
            client.publish_event("robot-7", events)


ROBOT = ("battery", "grip", "motion", "temperature")


def _wave(number: int, period: int) -> float:
    return round(0.5 + 0.5 * math.sin(2 * math.pi * number / period), 4)


def main() -> None:
    """Run it by hand."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8090)
    parser.add_argument("--sources", type=int, default=8)
    parser.add_argument("--keys", type=Path)
    args = parser.parse_args()
    with ground(args.sources, args.keys, args.port) as made:
        print(made.url, made.redis_url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
