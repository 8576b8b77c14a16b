"""What every test may ask for: a Redis of its own, workers as processes, and patience."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TextIO

import pytest
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from pipeline.embedded import EmbeddedRedis

_STOP_S = 10.0


class Worker(Protocol):
    """Starts `python -m workers.<name>`, or another module, until the test ends."""

    def __call__(
        self, name: str, environ: Mapping[str, str] | None = None, *arguments: str
    ) -> subprocess.Popen[bytes]:
        """Start it with `PERCIPIO_REDIS_URL` set, `environ` added, and no other PERCIPIO_*."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--redis-server",
        metavar="PATH",
        help="redis-server (or valkey-server) to test with; else the packaged one, else on PATH",
    )
    parser.addoption(
        "--on-cluster", action="store_true", help="let workers and clients use a Redis Cluster"
    )
    parser.addoption("--fault-seed", type=int, help="repeat a run of the fault tests")
    parser.addoption("--fault-long", action="store_true", help="their long form: an hour or more")
    parser.addoption("--fault-table", metavar="PATH", help="append a line of JSON for each row")


def pytest_configure(config: pytest.Config) -> None:
    """Choose the seed of the fault tests once, for all processes of a run."""
    if config.option.fault_seed is None:
        given: dict[str, Any] = getattr(config, "workerinput", {})
        config.option.fault_seed = given.get("fault_seed", random.SystemRandom().randrange(10**6))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Hand the seed to a process of pytest-xdist."""
    node.workerinput["fault_seed"] = node.config.option.fault_seed


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say the seed, so that it can be given again."""
    is_fault = "fault" in config.option.markexpr.replace("not fault", "")
    return f"--fault-seed {config.option.fault_seed}" if is_fault else None


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings of whoever runs the tests out of them."""
    for name in [name for name in os.environ if name.startswith("PERCIPIO_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def redis_server(request: pytest.FixtureRequest) -> Iterator[EmbeddedRedis]:
    """One server for all tests; a test that harms its server starts its own.

    With --on-cluster it is a Cluster of one node, so that the tests' own client needs no Cluster's.
    """
    executable = request.config.getoption("--redis-server")
    is_cluster = request.config.getoption("--on-cluster")
    with socket.socket() as bus:
        bus.bind(("127.0.0.1", 0))
        options = ("cluster-enabled yes", f"cluster-port {bus.getsockname()[1]}")
    with EmbeddedRedis(
        executable=executable, tcp=is_cluster, options=options if is_cluster else ()
    ) as server:
        if is_cluster:
            _take_all_slots(server.url)
        yield server


def _take_all_slots(url: str) -> None:
    with SyncRedis.from_url(url) as client:
        client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
        while client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
            time.sleep(0.01)


@pytest.fixture
async def redis(redis_server: EmbeddedRedis) -> AsyncIterator[Redis]:
    """A client of an empty server; replies are bytes."""
    async with Redis.from_url(redis_server.url) as client:
        await client.flushall()
        await client.function_flush("SYNC")
        yield client


@pytest.fixture
def redis_url(redis: Redis, redis_server: EmbeddedRedis, request: pytest.FixtureRequest) -> str:
    """The URL of the empty server, for code that connects by itself."""
    return url_of(redis_server, request.config)


def url_of(server: EmbeddedRedis, config: pytest.Config) -> str:
    """Give the URL for PERCIPIO_REDIS_URL."""
    if not config.getoption("--on-cluster"):
        return server.url
    return server.url.replace("redis://", "redis+cluster://").removesuffix("/0")


@pytest.fixture
def one_server_url(redis_url: str, request: pytest.FixtureRequest) -> str:
    """The URL for what a Cluster's clients cannot stand in for."""
    if request.config.getoption("--on-cluster"):
        pytest.skip("stands on one server")
    return redis_url


async def eventually(
    check: Callable[[], object], timeout_s: float = 10.0, what: str = "the check"
) -> None:
    """Wait until `check` (a function, or one that gives an awaitable) gives something true.

    A check that raises AssertionError is not true yet; its last words are shown at the end.
    """
    deadline_s = time.monotonic() + timeout_s
    while True:
        last = f"{what} was not true"
        try:
            found = check()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return
        except AssertionError as error:
            last = str(error)
        if time.monotonic() > deadline_s:
            pytest.fail(f"waited {timeout_s:g} s: {last}")
        await asyncio.sleep(0.01)


@pytest.fixture
def worker(redis_url: str, tmp_path: Path) -> Iterator[Worker]:
    """Start workers as processes; they are stopped, and their words shown, when the test ends."""
    started: list[tuple[str, subprocess.Popen[bytes], Path]] = []

    def start(
        name: str, environ: Mapping[str, str] | None = None, *arguments: str
    ) -> subprocess.Popen[bytes]:
        module = name if "." in name else f"workers.{name}"
        words = tmp_path / f"{len(started)}-{name}.log"
        with open(words, "wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env=os.environ | {"PERCIPIO_REDIS_URL": redis_url} | dict(environ or {}),
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        started.append((name, process, words))
        return process

    yield start

    for _, process, _ in started:
        if process.poll() is None:
            process.terminate()
    for name, process, words in started:
        _end(name, process, words, sys.stderr)


def _end(name: str, process: subprocess.Popen[bytes], words: Path, out: TextIO) -> None:
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    text = words.read_text(errors="replace")
    print(f"--- {name} (pid {process.pid}, exit {process.returncode})\n{text}", file=out)
