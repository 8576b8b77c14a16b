"""One worker's actor as the keeper knows it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from workers.fleet.actor import Report


@dataclass(slots=True)
class Member:
    """One worker's actor, as the keeper knows it."""

    name: str
    role: str
    generation: int
    number: int
    handle: Any
    since_s: float
    asked: Any = None
    asked_s: float = 0.0
    report: Report | None = None
    problem: str = ""
    has_answered: bool = False
    retiring: asyncio.Task[None] | None = None

    @property
    def is_ready(self) -> bool:
        """Whether its worker takes work."""
        return self.report is not None and self.report.state == "ready"

    def as_json(self) -> dict[str, Any]:
        """Give it as `percipio ray status --json` prints it."""
        report = self.report
        state = "retiring" if self.retiring else report.state if report else "pending"
        row: dict[str, Any] = {"name": self.name, "role": self.role, "state": state}
        row |= {
            "generation": self.generation,
            "why": self.problem or (report.why if report else ""),
        }
        if report:
            row |= {"pid": report.pid, "node": report.node, "host": report.host}
            row |= {"metrics": report.metrics_url, "actor": report.actor, "logs": report.logs}
            row |= {"lived_s": report.lived_s}
        return row


def member_of(name: str, handle: Any) -> Member:
    """Make a member from its actor's name: role, generation, number."""
    role, generation, number = name.split("-")
    return Member(name, role, int(generation), int(number), handle, time.monotonic())
