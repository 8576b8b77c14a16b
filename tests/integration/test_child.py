"""A worker process as the actor of a fleet sees it: started, asked, stopped, hung."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.conftest import eventually
from workers.fleet import child as module
from workers.fleet.child import Child

START_S = 40.0
SCRIPT = "tests.integration.scripted"


@pytest.fixture
def child(request: pytest.FixtureRequest) -> Iterator[Child]:
    child = Child(SCRIPT, {"SCRIPTED": request.param}, "127.0.0.1")
    yield child
    child.kill()


@pytest.mark.parametrize("child", ["drain"], indirect=True)
async def test_a_worker_is_found_ready_and_drains(child: Child) -> None:
    """Its port is looked up, not assumed; on the leash's end it finishes and exits 0."""
    await eventually(lambda: child.probe() is None, START_S)

    assert child.metrics_url is not None
    assert child.wait(0.01) is None
    assert child.stop(10) == 0


@pytest.mark.parametrize("child", ["wait"], indirect=True)
async def test_a_stopped_worker_is_hung_and_can_be_killed(
    child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot say that it hangs: nobody answers for it."""
    await eventually(lambda: child.probe() is None, START_S)
    monkeypatch.setattr(module, "SILENT_S", 0.2)
    monkeypatch.setattr(module, "ANSWER_S", 0.2)

    os.kill(child.pid, signal.SIGSTOP)

    await eventually(
        lambda: (child.probe() or "").startswith("no answer") and child.is_hung, START_S
    )
    assert child.kill() == -signal.SIGKILL


@pytest.mark.parametrize("child", ["away"], indirect=True)
async def test_the_exit_code_is_the_workers(child: Child) -> None:
    """3: something it needs is away."""
    await eventually(lambda: child.wait(0.01) == 3, START_S)
