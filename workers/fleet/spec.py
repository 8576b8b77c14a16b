"""What a fleet should be: how many workers of each role, with what, kept in Redis as its truth."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pipeline.demand import MOST_WORKERS, TARGETS_S
from pipeline.errors import SettingsError
from pipeline.scaling import Load
from pipeline.stream import Store

MODULES = {"detect": "workers.detect", "score": "workers.score"}
KEPT_DECISIONS = 1000
_CPUS = {"detect": 1.0, "score": 0.5}


@dataclass(frozen=True, slots=True)
class Role:
    """One kind of worker.

    Attributes:
        module: what `python -m` runs.
        least: workers, however little there is to do.
        most: workers, however much; the same as `least` turns automatic scaling off.
        cpus: shares of a CPU that Ray sets aside for a worker.
        gpus: the same of GPUs; a half lets two share one.
        memory_bytes: memory that Ray sets aside for a worker; 0 asks for none.
        target_s: how old the oldest waiting entry may grow before workers are added.
    """

    module: str
    least: int = 1
    most: int = 1
    cpus: float = 1.0
    gpus: float = 0.0
    memory_bytes: int = 0
    target_s: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most <= MOST_WORKERS:
            raise SettingsError(
                f"{self.least} to {self.most} workers: 0 to {MOST_WORKERS}, the smaller first"
            )
        if self.cpus < 0 or self.gpus < 0 or self.memory_bytes < 0 or self.target_s <= 0:
            raise SettingsError("CPUs, GPUs and memory are at least 0, a target is above 0")

    def clamp(self, count: int) -> int:
        """Give the nearest number of workers that is allowed."""
        return min(self.most, max(self.least, count))


def default_role(name: str) -> Role:
    """Give a role as it is when nothing is said about it.

    Raises:
        SettingsError: there is no such role.
    """
    if name not in MODULES:
        raise SettingsError(f"{name}: no role; {' and '.join(MODULES)} are")
    return Role(MODULES[name], cpus=_CPUS[name], target_s=TARGETS_S[name])


@dataclass(frozen=True, slots=True)
class Spec:
    """What is wanted.

    Attributes:
        roles: by name.
        counts: workers wanted now, by role; automatic scaling and `scale` change them.
        generation: rises whenever running workers have to be replaced.
        environ: PERCIPIO_* of every worker, but for the URL of Redis, which may hold a password.
        pins: versions that every node must have, see pins.py.
        runtime_env: of Ray, for what nodes do not have installed.
        stopped: no worker is wanted, whatever the counts.
    """

    roles: Mapping[str, Role]
    counts: Mapping[str, int]
    generation: int = 1
    environ: Mapping[str, str] = field(default_factory=dict)
    pins: Mapping[str, str] = field(default_factory=dict)
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    stopped: bool = False

    def wanted(self, role: str) -> int:
        """How many workers of a role there should be."""
        return 0 if self.stopped else self.roles[role].clamp(self.counts.get(role, 0))

    def is_same_work(self, other: Spec) -> bool:
        """Whether running workers of `other` may stay as they are."""

        def work(spec: Spec) -> tuple[object, ...]:
            roles = {
                name: replace(role, least=0, most=0, target_s=1.0)
                for name, role in spec.roles.items()
            }
            return roles, spec.environ, spec.pins, spec.runtime_env

        return work(self) == work(other)


async def read_spec(store: Store) -> Spec | None:
    """Read what is wanted; None where nothing was ever asked for.

    Raises:
        DependencyError: Redis is away.
        SettingsError: another version wrote it.
    """
    found = await store.run("HGETALL", store.keys.fleet)
    if not found:
        return None
    texts = {name.decode(): text.decode() for name, text in found.items()}
    try:
        row = json.loads(texts.pop("spec"))
        row["roles"] = {name: Role(**role) for name, role in row["roles"].items()}
        return Spec(counts={name: int(text) for name, text in texts.items()}, **row)
    except (KeyError, TypeError, ValueError) as error:
        raise SettingsError(
            f"{store.keys.fleet} was written by another version ({error}); "
            "run `percipio ray down` of that version, or delete the key"
        ) from error


async def write_spec(store: Store, spec: Spec) -> None:
    """Write what is wanted, counts included."""
    row = asdict(spec)
    counts = row.pop("counts")
    flat = [part for name, count in counts.items() for part in (name, str(count))]
    await store.run("HSET", store.keys.fleet, "spec", json.dumps(row), *flat)


async def write_count(store: Store, role: str, count: int) -> None:
    """Write how many workers of a role are wanted from now on."""
    await store.run("HSET", store.keys.fleet, role, str(count))


async def record_decision(
    store: Store, role: str, *, before: int, after: int, reason: str, load: Load | None = None
) -> None:
    """Keep why the number of workers changed; the newest thousand are kept."""
    row: dict[str, str | int | float] = {"role": role, "from": before, "to": after}
    row["reason"] = reason
    if load is not None:
        row |= {"waiting": load.waiting, "oldest_s": round(load.oldest_s, 3)}
        row |= {"arrived_per_s": round(load.arrived_per_s, 1)}
        row |= {"dropped_per_s": round(load.dropped_per_s, 1)}
    flat = [part for name, value in row.items() for part in (name, value)]
    await store.run("XADD", store.keys.decisions, "MAXLEN", "~", KEPT_DECISIONS, "*", *flat)


async def read_decisions(store: Store, count: int) -> list[dict[str, str]]:
    """Give the newest decisions, the newest first; `at_ms` says when."""
    found = await store.run("XREVRANGE", store.keys.decisions, "+", "-", "COUNT", count)
    return [
        {"at_ms": entry_id.decode().partition("-")[0]}
        | {name.decode(): text.decode() for name, text in fields.items()}
        for entry_id, fields in found
    ]


async def forget_spec(store: Store) -> None:
    """Remove what was wanted, and the record of decisions."""
    for key in (store.keys.fleet, store.keys.decisions):
        await store.run("DEL", key)
