"""Health: alive while the loop turns, ready while work gets on."""

from __future__ import annotations

import pytest

from pipeline.health import Health


class Clock:
    """A clock that stands until it is set."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_worker_is_alive_and_not_ready_while_it_starts(clock: Clock) -> None:
    health = Health(clock=clock)

    assert (health.why_not_alive(), health.why_not_ready()) == (None, "starting")


def test_a_worker_is_ready_until_it_says_otherwise(clock: Clock) -> None:
    health = Health(clock=clock)

    health.ready()
    assert health.why_not_ready() is None

    health.unready("stopping")
    assert health.why_not_ready() == "stopping"


def test_without_progress_a_ready_worker_is_not_ready(clock: Clock) -> None:
    health = Health(stalled_s=10, clock=clock)
    health.ready()

    clock.now_s += 11
    assert health.why_not_ready() == "no progress for 11 s"

    health.progress()
    assert health.why_not_ready() is None


def test_a_loop_that_does_not_turn_is_not_alive(clock: Clock) -> None:
    health = Health(clock=clock)
    health.ready()

    clock.now_s += 31
    health.progress()
    assert health.why_not_alive() == health.why_not_ready() == "event loop stuck for 31 s"

    health.beat()
    assert health.why_not_alive() is None
