"""A role's workers come, go and are replaced one after the other, whatever there was before."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.fleet.actor import Report
from workers.fleet.member import Member, member_of
from workers.fleet.steps import SURGE_S, next_step


def _member(name: str, state: str, node: str = "n") -> Member:
    member = member_of(name, None)
    member.since_s = 0.0
    member.report = Report(name, state, "", 1, node, "h", None, "a", "l", 1.0) if state else None
    return member


def _settle(members: list[Member], wanted: int, generation: int) -> list[int]:
    """Take steps until none is left, each worker ready at once; gives how many were ready."""
    ready: list[int] = []
    next_number = 100
    for _ in range(200):
        step = next_step(members, wanted, generation, 0.0)
        if not step.starts and step.retires is None:
            return ready
        for _ in range(step.starts):
            members.append(_member(f"score-{generation}-{next_number}", "ready"))
            next_number += 1
        if step.retires is not None:
            members.remove(step.retires)
        ready.append(sum(m.is_ready for m in members))
    raise AssertionError("no end")


@given(
    here=st.lists(st.tuples(st.integers(1, 3), st.sampled_from(["ready", "starting", ""]))),
    wanted=st.integers(0, 6),
)
def test_every_state_ends_in_what_is_wanted(here: list[tuple[int, str]], wanted: int) -> None:
    members = [
        _member(f"score-{generation}-{number}", state)
        for number, (generation, state) in enumerate(here)
        if (generation, state) == (3, "ready") or generation != 3
    ]

    _settle(members, wanted, 3)

    assert len(members) == wanted
    assert all(m.generation == 3 and m.is_ready for m in members)


@given(workers=st.integers(1, 6))
def test_a_restart_takes_no_worker_away_before_its_successor_is_ready(workers: int) -> None:
    members = [_member(f"score-1-{n}", "ready") for n in range(workers)]

    ready = _settle(members, workers, 2)

    assert set(ready) == {workers, workers + 1}
    assert len(ready) == 2 * workers


def test_the_next_is_replaced_when_the_last_has_gone() -> None:
    old, new = _member("score-1-0", "ready"), _member("score-2-1", "ready")
    leaving: Any = object()
    going = _member("score-1-2", "ready")
    going.retiring = leaving

    assert next_step([old, new, going], 2, 2, 0.0) == next_step([], 0, 2, 0.0)
    assert next_step([old, new], 2, 2, 0.0).starts == 1


@pytest.mark.parametrize(("state", "retires"), [("", True), ("starting", False)])
def test_a_successor_without_a_place_gets_that_of_the_old_one(state: str, retires: bool) -> None:
    old, new = _member("score-1-0", "ready"), _member("score-2-1", state)

    assert next_step([old, new], 1, 2, SURGE_S / 2).retires is None
    assert next_step([old, new], 1, 2, SURGE_S * 2).retires is (old if retires else None)


def test_the_fullest_node_gives_a_worker_up() -> None:
    members = [_member(f"score-1-{n}", "ready", node) for n, node in enumerate("aba")]

    assert next_step(members, 2, 1, 0.0).retires is members[2]
