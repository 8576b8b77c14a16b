"""A fleet from outside: connect to Ray, say what is wanted, see what there is, take it down."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import ray
from ray.exceptions import GetTimeoutError, RayActorError

from pipeline.errors import DependencyError, SettingsError
from pipeline.partition import Keys
from pipeline.settings import Settings
from pipeline.stream import Store
from workers.fleet.keeper import KEEPER, Keeper, Place
from workers.fleet.local import find_head, folder_of, start_head, stop_head
from workers.fleet.pins import pins_here
from workers.fleet.spec import (
    MODULES,
    Role,
    Spec,
    default_role,
    forget_spec,
    read_decisions,
    read_spec,
    record_decision,
    write_spec,
)

READY_S = 300.0
ANSWER_S = 15.0
KILL_S = 30.0
POLL_S = 0.25
KEPT_SHOWN = 10
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fleet:
    """The workers of one deployment on one Ray cluster.

    Attributes:
        redis_url: of the deployment.
        keys: of the deployment.
        grace_s: how long a worker that is retired may take.
        dashboard: of Ray, empty where it has none.
    """

    redis_url: str
    keys: Keys
    grace_s: float = 20.0
    dashboard: str = ""

    @classmethod
    @contextmanager
    def connect(
        cls, settings: Settings, address: str | None = None, *, start: bool = False
    ) -> Iterator[Fleet]:
        """Connect this process to Ray; the fleet goes on when it disconnects.

        Args:
            settings: say which deployment.
            address: `host:port` of the cluster, or `auto`; by default RAY_ADDRESS, else the local
                cluster in the background.
            start: start a local cluster where none runs.

        Raises:
            DependencyError: there is no Ray cluster there, or it does not let us in.
        """
        streams = settings.streams
        keys = Keys(streams.key_prefix, streams.partitions)
        where = address or os.environ.get("RAY_ADDRESS") or _local_address(keys, start=start)
        try:
            context: Any = ray.init(
                where,
                namespace=namespace_of(keys),
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise DependencyError(f"Ray at {where}: {error}") from error
        try:
            dashboard = context.address_info.get("webui_url") or ""
            yield cls(settings.redis.url, keys, settings.process.grace_s, dashboard)
        finally:
            ray.shutdown()

    def roles(self) -> dict[str, Role]:
        """Give the roles as they were asked for last, or as they are by default."""
        spec = self._with_store(read_spec)
        return dict(spec.roles) if spec else {name: default_role(name) for name in MODULES}

    def up(
        self,
        roles: Mapping[str, Role] | None = None,
        environ: Mapping[str, str] | None = None,
        runtime_env: Mapping[str, Any] | None = None,
    ) -> None:
        """Say what is wanted, and see to it that somebody keeps it so; safe to repeat.

        What is not said stays as it was, also after the cluster has lost everything. Workers that
        run with other settings or code are replaced one after the other.

        Args:
            roles: `detect` and `score`, or one of them.
            environ: PERCIPIO_* of the workers.
            runtime_env: of Ray.
        """
        old = self._with_store(read_spec)
        wanted = {**self.roles(), **(roles or {})}
        counts = old.counts if old else {}
        spec = Spec(
            wanted,
            {name: role.clamp(counts.get(name, role.least)) for name, role in wanted.items()},
            old.generation if old else 1,
            _without_url(environ) if environ is not None else old.environ if old else {},
            pins_here(),
            runtime_env if runtime_env is not None else old.runtime_env if old else {},
        )
        if old and not spec.is_same_work(old):
            spec = replace(spec, generation=old.generation + 1)
        self._with_store(lambda store: write_spec(store, spec))
        self._ensure_keeper()

    def scale(self, role: str, least: int, most: int | None = None) -> None:
        """Want another number of workers of a role, or other bounds of automatic scaling.

        Raises:
            SettingsError: there is no such role, or no fleet.
        """
        spec = self._spec()
        if role not in spec.roles:
            raise SettingsError(f"{role}: no role of this fleet; {', '.join(spec.roles)} are")
        changed = replace(spec.roles[role], least=least, most=least if most is None else most)
        before = spec.wanted(role)
        count = changed.clamp(spec.counts.get(role, least))
        roles, counts = {**spec.roles, role: changed}, {**spec.counts, role: count}

        async def write(store: Store) -> None:
            await write_spec(store, replace(spec, roles=roles, counts=counts))
            if count != before:
                await record_decision(store, role, before=before, after=count, reason="asked for")

        self._with_store(write)

    def restart(self) -> None:
        """Replace every worker, one of a role after the other."""
        spec = replace(self._spec(), generation=self._spec().generation + 1)
        self._with_store(lambda store: write_spec(store, spec))

    def status(self) -> dict[str, Any]:
        """Give what is wanted and what there is, as `percipio ray status --json` prints it.

        Raises:
            DependencyError: no fleet runs on this cluster.
        """
        try:
            keeper: Any = ray.get_actor(KEEPER, namespace_of(self.keys))
            answer: Any = ray.get(keeper.report.remote(), timeout=ANSWER_S)
        except ValueError as error:
            raise DependencyError("no fleet here; `percipio ray up` starts one") from error
        except (RayActorError, GetTimeoutError) as error:
            raise DependencyError(f"the fleet's keeper does not answer: {error}") from error
        found: dict[str, Any] = dict(answer)
        context = ray.get_runtime_context()
        found["decisions"] = self._with_store(lambda store: read_decisions(store, KEPT_SHOWN))
        found["address"] = context.gcs_address
        found["dashboard"] = f"http://{self.dashboard}" if self.dashboard else ""
        found["log_folder"] = f"{context.get_temp_dir()}/session_latest/logs on each node"
        return found

    def wait_until_ready(
        self, timeout_s: float = READY_S, told: Callable[[dict[str, Any]], None] | None = None
    ) -> dict[str, Any]:
        """Wait until every wanted worker takes work and none is to be replaced; gives the status.

        Args:
            timeout_s: the longest wait.
            told: called with every status on the way.

        Raises:
            SettingsError: a worker refuses its settings, or a node has other versions.
            DependencyError: it took too long.
        """
        deadline_s, spec = time.monotonic() + timeout_s, self._spec()
        while True:
            status = self._status_or_none()
            if told is not None and status:
                told(status)
            if status.get("generation") == spec.generation:
                rows = status["workers"]
                for row in rows:
                    if row["state"] == "failed":
                        raise SettingsError(f"{row['name']} on {row.get('host')}: {row['why']}")
                settled = all(
                    role["ready"] == role["wanted"] == sum(r["role"] == name for r in rows)
                    for name, role in status["roles"].items()
                )
                if settled and all(row["generation"] == spec.generation for row in rows):
                    return status
            if time.monotonic() > deadline_s:
                raise DependencyError(f"not ready after {timeout_s:.0f} s: {_unready(status)}")
            time.sleep(POLL_S)

    def down(self, timeout_s: float = 120.0) -> None:
        """Let all workers finish and remove everything this fleet has on the cluster."""
        spec = self._with_store(read_spec)
        if spec is not None:
            self._with_store(lambda store: write_spec(store, replace(spec, stopped=True)))
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s and self._is_kept() and self._names() - {KEEPER}:
            time.sleep(POLL_S)
        names = sorted(self._names(), key=lambda name: name != KEEPER)  # it would start them anew
        for name in names:
            self._kill(name)
        while self._names() and time.monotonic() < deadline_s + KILL_S:
            time.sleep(POLL_S)
        self._with_store(forget_spec)

    def _ensure_keeper(self) -> None:
        """Start the keeper where there is none; one of other code or place is replaced."""
        place = Place(self.redis_url, self.keys, namespace_of(self.keys), self.grace_s)
        mark = {"place": place, "pins": pins_here()}
        try:
            keeper: Any = ray.get_actor(KEEPER, place.namespace)
            answer: Any = ray.get(keeper.mark.remote(), timeout=ANSWER_S)
            if answer == mark:
                return
            self._kill(KEEPER)
        except (ValueError, RayActorError, GetTimeoutError):
            pass  # there is none, or it is about to come back with the same name
        deadline_s = time.monotonic() + KILL_S
        while KEEPER in self._names() and time.monotonic() < deadline_s:
            time.sleep(POLL_S)
        ray.remote(Keeper).options(
            name=KEEPER,
            namespace=place.namespace,
            lifetime="detached",
            max_restarts=-1,
            max_concurrency=4,
            num_cpus=0,
            get_if_exists=True,
        ).remote(place)

    def _is_kept(self) -> bool:
        return bool(self._status_or_none())

    def _status_or_none(self) -> dict[str, Any]:
        try:
            return self.status()
        except DependencyError:
            return {}

    def _names(self) -> set[str]:
        rows = ray.util.list_named_actors(all_namespaces=True)
        return {row["name"] for row in rows if row["namespace"] == namespace_of(self.keys)}

    def _kill(self, name: str) -> None:
        try:
            ray.kill(ray.get_actor(name, namespace_of(self.keys)), no_restart=True)
        except ValueError:
            return  # it has gone by itself

    def _spec(self) -> Spec:
        spec = self._with_store(read_spec)
        if spec is None:
            raise SettingsError("no fleet was asked for yet; `percipio ray up` does")
        return spec

    def _with_store(self, action: Callable[[Store], Coroutine[Any, Any, T]]) -> T:
        async def run() -> T:
            async with Store.open(self.redis_url, self.keys, wait_s=5.0) as store:
                return await action(store)

        return asyncio.run(run())


def namespace_of(keys: Keys) -> str:
    """Give the Ray namespace of a deployment."""
    return f"percipio-{keys.prefix}"


def stop_local(prefix: str) -> bool:
    """End this machine's own cluster of a deployment; False where none runs."""
    folder = folder_of(prefix)
    head = find_head(folder)
    if head is not None:
        stop_head(folder, head)
    return head is not None


def _local_address(keys: Keys, *, start: bool) -> str:
    folder = folder_of(keys.prefix)
    head = find_head(folder) or (start_head(folder, None) if start else None)
    if head is None:
        raise DependencyError(
            "no Ray cluster: none runs here, and neither --address nor RAY_ADDRESS names one"
        )
    return head.address


def _without_url(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in environ.items() if name != "PERCIPIO_REDIS_URL"}


def _unready(status: Mapping[str, Any]) -> str:
    rows = [row for row in status.get("workers", ()) if row["state"] != "ready"]
    found = [f"{row['name']} {row['state']} {row['why']}".strip() for row in rows]
    return "; ".join(found) or "the keeper does not answer"
