"""The actor that keeps a fleet as it should be: starts, retires, replaces and counts workers.

What is wanted is read from Redis, what there is from Ray; nothing else is remembered, so that a
keeper that was restarted goes on where the last one stopped.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import ray
from ray.exceptions import RayActorError

from pipeline.consumer import sleep_unless
from pipeline.demand import ROLES, Scaler, limits_of
from pipeline.errors import DependencyError, PercipioError
from pipeline.ledger import Status, read_status
from pipeline.log import configure, get_logger
from pipeline.partition import Keys
from pipeline.stream import Store
from workers.fleet.actor import Order, WorkerActor
from workers.fleet.member import Member, member_of
from workers.fleet.pins import pins_here
from workers.fleet.spec import Role, Spec, read_spec, record_decision, write_count
from workers.fleet.steps import next_step

TICK_S = 0.5
LOOK_S = 1.0
"""From one look at the ledger to the next, where the number of workers is not fixed."""
HUNG_S = 30.0
"""An actor that has answered before and does not for so long is started anew."""
KEEPER = "keeper"

log = get_logger()


@dataclass(frozen=True, slots=True)
class Place:
    """What a keeper is for.

    Attributes:
        redis_url: of the deployment; workers get it too.
        keys: of the deployment.
        namespace: of Ray, for the names of the actors.
        grace_s: how long a worker that is retired may take.
    """

    redis_url: str
    keys: Keys
    namespace: str
    grace_s: float


class Keeper:
    """Keeps the fleet of a deployment until it is killed."""

    def __init__(self, place: Place) -> None:
        configure("json", "info", worker=KEEPER)
        self._place = place
        self._members: dict[str, Member] = {}
        self._spec: Spec | None = None
        self._problem = ""
        self._snapshot: dict[str, Any] = {}
        self._ticks = 0
        self._scalers = {role: Scaler(role) for role in ROLES}
        self._decisions: dict[str, dict[str, Any]] = {}
        self._looked_s = 0.0
        threading.Thread(target=self._run, daemon=True, name=KEEPER).start()

    def report(self) -> dict[str, Any]:
        """Say what is wanted and what there is."""
        return self._snapshot

    def mark(self) -> dict[str, Any]:
        """Say what it is for and which code it runs."""
        return {"place": self._place, "pins": pins_here()}

    def _run(self) -> None:
        try:
            asyncio.run(self._keep())
        except BaseException as error:
            log.exception("keeper_failed", exc_info=error)
            os._exit(1)  # Ray starts it anew

    async def _keep(self) -> None:
        never, place = asyncio.Event(), self._place
        async with Store.open(place.redis_url, place.keys, wait_s=3600.0) as store:
            while True:
                await self._look_up(store)
                self._muster()
                for member in list(self._members.values()):
                    self._ask(member)
                if self._spec is not None:
                    await self._scale(store, self._spec)
                    for name, role in self._spec.roles.items():
                        self._converge(name, role, self._spec)
                self._snapshot = self._describe()
                await sleep_unless(never, TICK_S)

    async def _look_up(self, store: Store) -> None:
        """Read what is wanted; while Redis is away the last answer holds."""
        try:
            self._spec, self._problem = await read_spec(store), ""
        except PercipioError as error:
            if not self._problem:
                log.warning("spec_unknown", error=str(error))
            self._problem = str(error)

    def _muster(self) -> None:
        """Bring the list of members up to what Ray knows."""
        found = {
            row["name"]
            for row in ray.util.list_named_actors(all_namespaces=True)
            if row["namespace"] == self._place.namespace and row["name"] != KEEPER
        }
        for name in self._members.keys() - found:
            del self._members[name]
        for name in found - self._members.keys():
            try:
                handle = ray.get_actor(name, self._place.namespace)
            except ValueError:  # it has just gone
                continue
            self._members[name] = member_of(name, handle)

    def _ask(self, member: Member) -> None:
        """Collect an answer if there is one, ask again, and start anew who does not answer."""
        if member.asked is None:
            member.asked, member.asked_s = member.handle.report.remote(), time.monotonic()
            return
        if ray.wait([member.asked], timeout=0)[0]:
            asked, member.asked = member.asked, None
            try:
                member.report, member.problem, member.has_answered = ray.get(asked), "", True
            except RayActorError as error:
                member.report, member.has_answered = None, False
                member.problem = f"started anew: {str(error).splitlines()[0]}"
        elif member.has_answered and time.monotonic() - member.asked_s > HUNG_S:
            log.error("actor_hung", actor=member.name)
            ray.kill(member.handle, no_restart=False)
            member.asked, member.report, member.has_answered = None, None, False

    async def _scale(self, store: Store, spec: Spec) -> None:
        """Decide how many workers there should be, where that is not fixed; say why in Redis."""
        free = {name for name, role in spec.roles.items() if role.least < role.most}
        if spec.stopped or not free or time.monotonic() - self._looked_s < LOOK_S:
            return
        self._looked_s = time.monotonic()
        try:
            status = await read_status(store)
            for name in free & self._scalers.keys():
                await self._scale_role(store, status, name, spec)
        except DependencyError as error:
            log.warning("dependency_down", error=str(error))

    async def _scale_role(self, store: Store, status: Status, name: str, spec: Spec) -> None:
        role, wanted, scaler = spec.roles[name], spec.wanted(name), self._scalers[name]
        ready = sum(m.role == name and m.is_ready for m in self._members.values())
        partitions = self._place.keys.partitions
        limits = limits_of(name, role.least, role.most, role.target_s, partitions)
        decision = scaler.look(status, wanted, ready, limits)
        self._decisions[name] = {"reason": decision.reason, "load": asdict(scaler.load)}
        if decision.workers != wanted:
            after, why = decision.workers, decision.reason
            log.info("scaled", role=name, before=wanted, after=after, reason=why)
            await record_decision(
                store, name, before=wanted, after=after, reason=why, load=scaler.load
            )
            await write_count(store, name, after)
            self._spec = replace(spec, counts={**spec.counts, name: after})

    def _converge(self, name: str, role: Role, spec: Spec) -> None:
        """Take one role a step nearer to what is wanted."""
        members = [m for m in self._members.values() if m.role == name]
        step = next_step(members, spec.wanted(name), spec.generation, time.monotonic())
        for _ in range(step.starts):
            self._start(name, role, spec)
        if step.retires is not None:
            self._retire(step.retires)

    def _start(self, name: str, role: Role, spec: Spec) -> None:
        """Ask Ray for one more worker."""
        taken = {m.number for m in self._members.values() if m.role == name}
        number = next(n for n in range(len(taken) + 1) if n not in taken)
        full = f"{name}-{spec.generation}-{number}"
        threads = {"PERCIPIO_THREADS": str(max(1, round(role.cpus)))}  # Ray counts, we keep to it
        environ = {**threads, **spec.environ, "PERCIPIO_REDIS_URL": self._place.redis_url}
        order = Order(full, role.module, environ, spec.pins, role.gpus)
        options: dict[str, Any] = {"memory": role.memory_bytes} if role.memory_bytes else {}
        handle: Any = (
            ray.remote(WorkerActor)
            .options(
                name=full,
                namespace=self._place.namespace,
                lifetime="detached",
                max_restarts=-1,
                max_concurrency=4,
                num_cpus=role.cpus,
                num_gpus=role.gpus,
                scheduling_strategy="SPREAD",
                runtime_env=dict(spec.runtime_env),
                **options,
            )
            .remote(order)
        )
        log.info("worker_asked_for", actor=full)
        self._members[full] = member_of(full, handle)

    def _retire(self, member: Member) -> None:
        log.info("worker_retires", actor=member.name)
        member.retiring = asyncio.create_task(self._drain(member), name=f"drain-{member.name}")

    async def _drain(self, member: Member) -> None:
        """Let a worker finish, then remove its actor; one that was never placed just goes."""
        grace_s = self._place.grace_s
        if member.has_answered:
            try:
                async with asyncio.timeout(grace_s + HUNG_S):
                    code = await member.handle.drain.remote(grace_s)
                log.info("worker_drained", actor=member.name, code=code)
            except (RayActorError, TimeoutError) as error:
                log.warning("worker_not_drained", actor=member.name, error=str(error))
        ray.kill(member.handle, no_restart=True)

    def _describe(self) -> dict[str, Any]:
        spec = self._spec
        roles = (
            {}
            if spec is None
            else {
                name: {
                    "wanted": spec.wanted(name),
                    "min": role.least,
                    "max": role.most,
                    **self._decisions.get(name, {}),
                    "ready": sum(m.role == name and m.is_ready for m in self._members.values()),
                }
                for name, role in spec.roles.items()
            }
        )
        self._ticks += 1
        return {
            "ticks": self._ticks,
            "generation": spec.generation if spec else 0,
            "problem": self._problem,
            "roles": roles,
            "workers": [
                member.as_json()
                for member in sorted(self._members.values(), key=lambda m: (m.role, m.number))
            ],
        }
