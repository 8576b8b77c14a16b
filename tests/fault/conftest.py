"""What the fault tests share: forked workers, a Redis of their own, a table of results."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fault.cluster import Cluster
from tests.fault.rig import Nursery, Server, executable, memory_folder
from tests.fault.trial import Trial, note

ON_BOTH = ("test_workers", "test_poison")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.fault)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def fault_seed(request: pytest.FixtureRequest) -> int:
    """The seed of this run; the report's head says it."""
    seed: int = request.config.option.fault_seed
    return seed


@pytest.fixture(scope="session")
def is_long(request: pytest.FixtureRequest) -> bool:
    """Whether the long form runs."""
    return bool(request.config.getoption("--fault-long"))


@pytest.fixture(scope="session")
def program(request: pytest.FixtureRequest) -> str:
    """The server under test."""
    return executable(request.config.getoption("--redis-server"))


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Where workers are forked."""
    nursery = Nursery(tmp_path_factory.mktemp("workers"))
    yield nursery
    nursery.close()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where servers keep their files."""
    folder = memory_folder(tmp_path)
    yield folder
    if folder != tmp_path:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def server(folder: Path, program: str) -> Iterator[Server]:
    """A Redis that may be killed."""
    server = Server(folder / "redis", program)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def cluster(folder: Path, program: str) -> Iterator[Cluster]:
    """A Redis Cluster whose nodes may be killed."""
    cluster = Cluster(folder / "cluster", program)
    cluster.start()
    yield cluster
    cluster.stop()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What a Redis need not do anything for is tried on a Cluster, too: in the long form."""
    name = metafunc.module.__name__.rpartition(".")[2]
    if "place" in metafunc.fixturenames and name in ON_BOTH:
        is_long = metafunc.config.getoption("--fault-long")
        places = ["server", "cluster"] if is_long else ["server"]
        metafunc.parametrize("place", places, indirect=True)


@pytest.fixture
def place(request: pytest.FixtureRequest) -> str:
    """Name of the fixture that a trial runs on."""
    return str(getattr(request, "param", "server"))


@pytest.fixture
def trial(
    request: pytest.FixtureRequest, place: str, nursery: Nursery, fault_seed: int
) -> Iterator[Trial]:
    """A deployment on a Redis, or on a Cluster."""
    where: Server | Cluster = request.getfixturevalue(place)
    trial = Trial(where.url, nursery, fault_seed, where.connect)
    yield trial
    trial.end()


@pytest.fixture
def table(request: pytest.FixtureRequest, place: str) -> Callable[[str, dict[str, Any]], None]:
    """Notes a row of the table."""
    given = request.config.getoption("--fault-table")
    path = Path(given) if given else None
    prefix = "Cluster: " if place == "cluster" else ""
    return lambda row, verdict: note(path, prefix + row, verdict)
