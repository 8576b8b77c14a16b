"""Several Ray nodes on this machine, a Redis Cluster below them, and a deployment for each test.

Ray is imported only where these tests run: `pytest -m ray tests/ray`.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.partition import Keys
from tests.fault.cluster import Cluster
from tests.fault.rig import executable
from tests.fault.trial import PARTITIONS, note

if TYPE_CHECKING:
    from tests.ray.rig import Nodes, RayTrial

ROOT = Path(__file__).parents[2]


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Leave everything out of a run without the marker."""
    return "not ray" in config.getoption("markexpr") or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.ray)
            item.add_marker(pytest.mark.filterwarnings("default"))  # Ray's own
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(400))


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
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    """A head and a node beside it; they find our code."""
    from tests.ray.rig import Nodes

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    nodes = Nodes()
    nodes.start(1)
    yield nodes
    nodes.stop()


@pytest.fixture
def ray_trial(
    redis_cluster: Cluster, nodes: Nodes, request: pytest.FixtureRequest
) -> Iterator[RayTrial]:
    """A deployment of its own, under a load that the test chooses."""
    from tests.ray.rig import NoNursery, RayTrial

    given = request.config.getoption("--fault-seed")
    seed: int = random.SystemRandom().randrange(10**6) if given is None else given
    print(f"--fault-seed {seed}")
    keys = Keys(f"ray-{secrets.token_hex(4)}", PARTITIONS)
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
