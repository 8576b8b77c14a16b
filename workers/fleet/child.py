"""One worker process as the actor that holds it sees it: its leash, its port, its health."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException

import psutil

START_S = 180.0
"""The first start on a machine compiles kernels and loads a network, and may be deaf meanwhile."""
SILENT_S = 30.0
"""A busy machine may take long to answer; the partitions have others after their lease."""
ANSWER_S = 2.0
STOP_S = 5.0


class Child:
    """`python -m workers.detect` or another, on a leash, watched over its health port.

    It ends when this process ends, however that ends. Its words go where ours go.

    Args:
        module: to run.
        environ: added to this process's own.
        host: address that its metrics are served at.
    """

    def __init__(self, module: str, environ: Mapping[str, str], host: str) -> None:
        self._host = host
        self._port: int | None = None
        self._began_s = self._answered_s = time.monotonic()
        self._was_ready = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", "workers.leash", module],
            env={**os.environ, **_port_of(environ, host), **environ},
            stdin=subprocess.PIPE,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def metrics_url(self) -> str | None:
        """Where its metrics are, once they are served."""
        return f"http://{self._host}:{self._port}/metrics" if self._port else None

    @property
    def lived_s(self) -> float:
        """How long ago it was started."""
        return time.monotonic() - self._began_s

    def wait(self, timeout_s: float) -> int | None:
        """Give its exit code as soon as it ends; None when it has not."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def probe(self) -> str | None:
        """Say why it takes no work now; None when it does."""
        self._port = self._port or self._find_port()
        if self._port is None:
            return "starting"
        alive = self._ask("/healthz")
        if alive is None:
            return f"no answer for {time.monotonic() - self._answered_s:.0f} s"
        if alive == (200, "ok"):
            self._answered_s = time.monotonic()
            ready = self._ask("/readyz")
            self._was_ready = self._was_ready or ready == (200, "ok")
            return None if ready == (200, "ok") else ready[1] if ready else "no answer"
        return alive[1]

    @property
    def is_hung(self) -> bool:
        """Whether it has not said for too long that it should be left running."""
        allowed_s = SILENT_S if self._was_ready else START_S
        return time.monotonic() - self._answered_s > allowed_s

    def stop(self, grace_s: float) -> int:
        """Let it finish what it has begun, for so long at most; gives its exit code."""
        self._let_go()
        code = self.wait(grace_s)
        return self.kill() if code is None else code

    def kill(self) -> int:
        """End it at once, also when it is stopped; gives its exit code."""
        self._process.kill()
        self._let_go()
        return self._process.wait()

    def _let_go(self) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()

    def _find_port(self) -> int | None:
        """Look which port it listens on: the one asked for may have been taken meanwhile."""
        with suppress(psutil.Error):
            for connection in psutil.Process(self.pid).net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    return int(connection.laddr.port)
        return None

    def _ask(self, path: str) -> tuple[int, str] | None:
        assert self._port is not None
        connection = HTTPConnection(self._host, self._port, timeout=ANSWER_S)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace").strip()
        except (OSError, HTTPException):
            return None
        finally:
            connection.close()


def _port_of(environ: Mapping[str, str], host: str) -> dict[str, str]:
    """Give a free port, unless one was asked for: many workers share a node."""
    found = {"PERCIPIO_METRICS_HOST": host}
    if "PERCIPIO_METRICS_PORT" not in {*environ, *os.environ}:
        with socket.create_server((host, 0)) as probe:
            found["PERCIPIO_METRICS_PORT"] = str(probe.getsockname()[1])
    return found
