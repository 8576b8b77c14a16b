"""The next step from the workers of a role that there are to those that are wanted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from workers.fleet.member import Member

SURGE_S = 20.0
"""A replacement that finds no place for so long gets that of the worker it replaces."""


@dataclass(frozen=True, slots=True)
class Step:
    """What to do now.

    Attributes:
        starts: so many workers.
        retires: this one.
    """

    starts: int = 0
    retires: Member | None = None


def next_step(members: Sequence[Member], wanted: int, generation: int, now_s: float) -> Step:
    """Say what to do next for one role.

    Workers of another generation are replaced one after the other, each by one that takes work
    already: until then there is one more than wanted.

    Args:
        members: of the role, those that are about to go too.
        wanted: how many there should be.
        generation: that they should have.
        now_s: monotonic.
    """
    here = [m for m in members if not m.retiring]
    old = [m for m in here if m.generation != generation]
    if len(here) < wanted:
        return Step(starts=wanted - len(here))
    if len(here) > wanted + bool(old and wanted):
        return Step(retires=_first_to_go(here, generation))
    if not old or len(here) < len(members):
        return Step()
    if len(here) == wanted:
        return Step(starts=1)
    unready = [m for m in here if m.generation == generation and not m.is_ready]
    waited_s = max((now_s - m.since_s for m in unready), default=0.0)
    is_without_place = waited_s > SURGE_S and all(m.report is None for m in unready)
    return Step(retires=old[0]) if not unready or is_without_place else Step()


def _first_to_go(here: Sequence[Member], generation: int) -> Member:
    crowd = Counter(m.report.node for m in here if m.report)

    def order(member: Member) -> tuple[bool, bool, int, int]:
        node = crowd[member.report.node] if member.report else 0
        return (member.generation != generation, not member.is_ready, node, member.number)

    return max(here, key=order)
