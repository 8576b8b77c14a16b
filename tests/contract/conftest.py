"""One deployment for all contract tests: they use new sources each instead of an empty Redis."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from redis.asyncio import Redis

from pipeline.embedded import EmbeddedRedis
from tests.conftest import eventually
from tests.streams import GROUPS, PARTITIONS, Streams, a_source

CHECKOUT = Path(__file__).parents[2]
DATA = Path(os.environ.get("PIPELINE_TEST_DATA") or CHECKOUT.parent / "shared" / "data")
MODELS = (CHECKOUT / "pipeline" / "data" / "demo.pt", DATA / "weights" / "yolov9t.pt")
MAX_AGE_MS = 20_000
START_S = 240.0

# What is found does not matter here, that something is found and soon does. Tests share pictures,
# so that a cache would make what they count depend on their order.
SETTINGS = {
    "PERCIPIO_CACHE_BYTES": "0",
    "PERCIPIO_CACHE_REDIS_BYTES": "0",
    "PERCIPIO_DEVICE": "cpu",
    "PERCIPIO_RUNTIME": "torch",
    "PERCIPIO_IMAGE_SIZE": "160",
    "PERCIPIO_CONFIDENCE": "0.01",
    "PERCIPIO_FRAME_MAX_AGE_MS": str(MAX_AGE_MS),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the first of these tests time to start workers, which may compile and load a model."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(START_S + 60))


@dataclass
class Ground:
    """A Redis and the workers on it; a worker that died is started anew for the next test."""

    url: str
    logs: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    ready: set[str] = field(default_factory=set)
    foreign: Counter[int] = field(default_factory=Counter)

    def ensure(self, *names: str) -> None:
        """Start those that are not there."""
        missing = [name for name in names if name not in self.processes or name in self.died()]
        self.ready -= set(missing)
        self.processes |= {name: self._start(name) for name in missing}

    def died(self) -> dict[str, int]:
        codes = {name: process.poll() for name, process in self.processes.items()}
        return {name: code for name, code in codes.items() if code is not None}

    def stop(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        own = {name for name in os.environ if name.startswith("PERCIPIO_")}
        environ = {name: value for name, value in os.environ.items() if name not in own}
        with open(self.log(name), "ab") as out:
            return subprocess.Popen(
                [sys.executable, "-m", f"workers.{name}"],
                env=environ | SETTINGS | _model() | {"PERCIPIO_REDIS_URL": self.url},
                stdout=out,
                stderr=subprocess.STDOUT,
            )


def _model() -> dict[str, str]:
    found = [path for path in MODELS if path.is_file()]
    return {"PERCIPIO_MODEL": str(found[0])} if found else {}


@pytest.fixture(scope="session")
def ground(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ground]:
    with EmbeddedRedis(executable=request.config.getoption("--redis-server")) as server:
        ground = Ground(server.url, tmp_path_factory.mktemp("workers"))
        yield ground
        ground.stop()


@pytest.fixture
async def score_only(ground: Ground) -> AsyncIterator[Streams]:
    """A deployment that scores, at rest again when the test ends."""
    async for streams in _deployment(ground, "score"):
        yield streams


@pytest.fixture
async def deployment(ground: Ground) -> AsyncIterator[Streams]:
    """A deployment that detects and scores, at rest again when the test ends."""
    if not any(path.is_file() for path in MODELS):
        pytest.skip(f"no model: neither of {', '.join(map(str, MODELS))} is there")
    async for streams in _deployment(ground, "detect", "score"):
        yield streams


async def _deployment(ground: Ground, *names: str) -> AsyncIterator[Streams]:
    ground.ensure(*names)
    async with Redis.from_url(ground.url) as redis:
        streams = Streams(redis, ground.foreign, list(ground.processes.values()))
        if not ground.ready.issuperset(names):
            await eventually(lambda: _is_up(ground, streams), START_S, "a worker's groups")
            warm = a_source("warm")
            await (streams.frame(warm) if "detect" in names else streams.event(warm))
            await streams.settled(warm, timeout_s=START_S)
            ground.ready |= set(names)

        yield streams

        try:
            await streams.settled_in(range(PARTITIONS))
        finally:
            dead = {name: ground.log(name).read_text()[-4000:] for name in ground.died()}
            assert not dead, dead


async def _is_up(ground: Ground, streams: Streams) -> bool:
    assert not ground.died(), {name: ground.log(name).read_text() for name in ground.died()}
    kinds = list(GROUPS) if "detect" in ground.processes else ["events", "detections"]
    found = [await streams.group(part, kind) for part in range(PARTITIONS) for kind in kinds]
    return all(found)
