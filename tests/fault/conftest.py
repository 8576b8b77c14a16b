"""What the fault tests share: forked workers, a Redis of their own, a table of results."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fault.rig import Nursery, Server, executable
from tests.fault.trial import Trial, client_of, note


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.fault)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="session")
def fault_seed(request: pytest.FixtureRequest) -> int:
    """The seed of this run; printed, so that it can be given again."""
    given = request.config.getoption("--fault-seed")
    seed: int = random.SystemRandom().randrange(10**6) if given is None else given
    print(f"--fault-seed {seed}")
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
def server(tmp_path: Path, program: str) -> Iterator[Server]:
    """A Redis that may be killed."""
    server = Server(tmp_path / "redis", program)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def trial(server: Server, nursery: Nursery, fault_seed: int) -> Iterator[Trial]:
    """A deployment on that Redis."""
    trial = Trial(server.url, nursery, fault_seed, lambda: client_of(server.port))
    yield trial
    trial.end()


@pytest.fixture
def table(request: pytest.FixtureRequest) -> Callable[[str, dict[str, Any]], None]:
    """Notes a row of the table."""
    given = request.config.getoption("--fault-table")
    path = Path(given) if given else None
    return lambda row, verdict: note(path, row, verdict)
