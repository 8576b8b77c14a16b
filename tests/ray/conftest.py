"""Several Ray nodes on this machine, a Redis Cluster below them, and a deployment for each test."""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

ray = pytest.importorskip("ray", reason="needs percipio[ray]")

from pipeline.partition import Keys  # noqa: E402
from tests.fault.cluster import Cluster  # noqa: E402
from tests.fault.rig import executable  # noqa: E402
from tests.fault.trial import PARTITIONS, note  # noqa: E402
from tests.ray.rig import Nodes, NoNursery, RayTrial  # noqa: E402

ROOT = Path(__file__).parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.ray)
            item.add_marker(pytest.mark.filterwarnings("default"))  # Ray's own
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(400))


@pytest.fixture(scope="session", autouse=True)
def _environment() -> Iterator[None]:
    """A token of our own, not the user's; nodes find our code."""
    before = dict(os.environ)
    os.environ |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_gcs_rpc_server_reconnect_timeout_s": "10",  # 60: a test must not wait so long
        "PYTHONPATH": str(ROOT),
    }
    yield
    os.environ.clear()
    os.environ |= before


@pytest.fixture(scope="session")
def redis_cluster(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Cluster]:
    """Three primaries and their replicas."""
    program = executable(request.config.getoption("--redis-server"))
    cluster = Cluster(tmp_path_factory.mktemp("redis"), program)
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    """A head that runs no workers, and three nodes that do."""
    nodes = Nodes()
    nodes.start(3)
    yield nodes
    nodes.stop()


@pytest.fixture
def ray_trial(
    redis_cluster: Cluster, nodes: Nodes, request: pytest.FixtureRequest
) -> Iterator[RayTrial]:
    """A deployment of its own, under a load that the test chooses."""
    given = request.config.getoption("--fault-seed")
    seed: int = random.SystemRandom().randrange(10**6) if given is None else given
    print(f"--fault-seed {seed}")
    keys = replace(Keys(partitions=PARTITIONS), prefix=f"ray{seed}")
    trial = RayTrial(redis_cluster.url, NoNursery(Path()), seed, redis_cluster.connect, keys=keys)
    trial.nodes = nodes
    yield trial
    trial.end()


@pytest.fixture
def table(request: pytest.FixtureRequest) -> Callable[[str, dict[str, Any]], None]:
    """Notes a row of the table."""
    given = request.config.getoption("--fault-table")
    path = Path(given) if given else None
    return lambda row, verdict: note(path, row, verdict)
