"""Ray nodes that can be killed as a machine is, and a trial whose workers Ray keeps."""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import psutil

os.environ |= {  # Ray reads them when it is imported
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_prestart_worker_first_driver": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",  # 60: a test must not wait so long
}

import ray
from ray.cluster_utils import Cluster as RayCluster

from pipeline.errors import DependencyError
from pipeline.settings import load_settings
from tests.fault.rig import Nursery
from tests.fault.trial import SETTINGS, Trial
from workers.fleet.client import Fleet
from workers.fleet.spec import Role

READY_S = 150.0


class NoNursery(Nursery):
    """Of a trial whose workers somebody else keeps."""

    def __post_init__(self) -> None:
        """Start nothing."""

    def poll(self) -> dict[int, int]:
        """Nobody has ended, as nobody was started."""
        return {}


NODE = {"num_cpus": 2, "object_store_memory": 80 * 2**20}
STARTS = 4
"""Ray gives a node 30 s to start; a loaded machine may need another try."""


class Nodes:
    """A head and other nodes, all on this machine."""

    def __init__(self) -> None:
        self.cluster: Any = None

    def start(self, count: int) -> None:
        """Start a head and so many nodes beside it."""
        head = {**NODE, "include_dashboard": False}
        self.cluster = _started(
            lambda: RayCluster(initialize_head=True, head_node_args=head, shutdown_at_exit=True)
        )
        for _ in range(count):
            self.add()

    def add(self) -> Any:
        """Start one more node."""
        return _started(lambda: self.cluster.add_node(**NODE))

    @property
    def address(self) -> str:
        """Of the cluster."""
        return str(self.cluster.address)

    def node_of(self, node_id: str) -> Any:
        """Give the node with this id."""
        return next(n for n in self.cluster.list_all_nodes() if n.node_id == node_id)

    def kill(self, node: Any) -> None:
        """End a node as a power cut does: its daemons, its actors and their workers, at once."""
        _kill_all(_family(node))
        self.cluster.remove_node(node, allow_graceful=False)

    def kill_head(self) -> None:
        """End the head; the other nodes are still there."""
        _kill_all(_family(self.cluster.head_node))

    def stop(self) -> None:
        """End all nodes."""
        nodes = self.cluster.list_all_nodes()
        family = [process for node in nodes for process in _family(node)]
        with suppress(AssertionError, ProcessLookupError):
            self.cluster.shutdown()
        _kill_all(family)


def _started(start: Callable[[], Any]) -> Any:
    for left in reversed(range(STARTS)):
        try:
            return start()
        except Exception as error:  # that is what Ray raises here
            if not left or ("timed out" not in str(error) and "Failed to" not in str(error)):
                raise
            print(f"once more: {error}")
    raise AssertionError


def _family(node: Any) -> list[psutil.Process]:
    found = []
    for infos in node.all_processes.values():
        for info in infos:
            with suppress(psutil.NoSuchProcess):
                parent = psutil.Process(info.process.pid)
                found += [parent, *parent.children(recursive=True)]
    return found


def _kill_all(family: list[psutil.Process]) -> None:
    for stop in (psutil.Process.suspend, psutil.Process.kill):  # nobody acts on another's death
        for process in family:
            with suppress(psutil.NoSuchProcess):
                stop(process)
    psutil.wait_procs(family, 10)


@dataclass
class RayTrial(Trial):
    """A trial whose workers run on Ray nodes."""

    nodes: Nodes = field(init=False)
    fleet_environ: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def connected(self) -> Iterator[Fleet]:
        """Connect to Ray, as the command does."""
        environ = SETTINGS | {
            "PERCIPIO_REDIS_URL": self.url,
            "PERCIPIO_KEY_PREFIX": self.keys.prefix,
        }
        self.fleet_environ = environ
        with Fleet.connect(load_settings(environ), self.nodes.address) as fleet:
            yield fleet

    def up(
        self, fleet: Fleet, score: int, detect: int = 1, most: int = 0, **environ: str
    ) -> dict[str, Any]:
        """Start workers; detection is the stub of the fault tests, all else is real.

        Args:
            fleet: to start.
            score: workers.
            detect: workers, at least.
            most: detect workers.
            environ: of the workers.
        """
        roles = {
            "detect": Role("tests.fault.fake_detect", detect, max(most, detect), cpus=0.25),
            "score": Role("workers.score", score, score, cpus=0.25),
        }
        fleet.up(roles, self.fleet_environ | environ)
        status = fleet.wait_until_ready(READY_S)
        self.wait_until(lambda: self.is_owned_by(score))
        return status

    def is_owned_by(self, workers: int) -> bool:
        """Whether every partition has an owner, and so many workers have some."""
        owners = self.owners()
        return all(owners) and len(set(owners)) == workers

    def wait_until_taken_over(self, before: set[str | None]) -> float:
        """Wait until a worker of `before` has lost all it owned, and somebody has it."""
        return self.wait_until(
            lambda: (found := self.owners()) and all(found) and not before <= set(found)
        )

    def end(self) -> None:
        """Stop publishing; the nodes take the workers along."""
        if self.publisher is not None:
            self.publisher.stop.set()
            self.publisher.join(20)


def my_node() -> str:
    """Give the node that this process hangs on: it would die with it."""
    return str(ray.get_runtime_context().get_node_id())


def rows_of(status: dict[str, Any], role: str) -> list[dict[str, Any]]:
    """Give the workers of one role."""
    return [row for row in status["workers"] if row["role"] == role]


def pause(pid: int) -> None:
    """Stop a process as a debugger does."""
    os.kill(pid, signal.SIGSTOP)


def wait_for(check: Any, timeout_s: float = 120.0) -> float:
    """Wait until `check` gives something; gives the seconds it took.

    The keeper may be among those that are killed: until Ray has it again, nobody answers.
    """
    began_s = time.monotonic()
    while True:
        with suppress(DependencyError):
            if check():
                return time.monotonic() - began_s
        assert time.monotonic() - began_s < timeout_s, f"waited {timeout_s:g} s"
        time.sleep(0.1)
