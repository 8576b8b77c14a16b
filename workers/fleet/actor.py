"""The actor that holds one worker: they live and die together, and Ray restarts them.

The worker is a process of its own, because it needs what an actor's process cannot give: the main
thread for its signals, an event loop and an interpreter lock of its own, an exit code, and somebody
outside who sees that it hangs.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

import ray

from pipeline.errors import SettingsError
from pipeline.log import configure, get_logger
from workers.fleet.child import Child
from workers.fleet.pins import differences, pins_here

PROBE_S = 1.0
SHORTEST_LIFE_S = 3.0
"""A worker that ends at once is started this seldom."""


@dataclass(frozen=True, slots=True)
class Order:
    """What an actor is to run.

    Attributes:
        name: of the actor, `score-2-0`: role, generation, number.
        module: of the worker.
        environ: PERCIPIO_* of the worker.
        pins: versions that this node must have.
        gpus: that Ray gave; 0 hides them all from the worker.
    """

    name: str
    module: str
    environ: Mapping[str, str]
    pins: Mapping[str, str]
    gpus: float = 0.0


@dataclass(frozen=True, slots=True)
class Report:
    """What an actor says of its worker.

    Attributes:
        state: starting, ready, unready, draining, failed.
        why: what keeps it from being ready.
        logs: names of the files, in the node's log folder, that its words go to.
    """

    name: str
    state: str
    why: str
    pid: int
    node: str
    host: str
    metrics_url: str | None
    actor: str
    logs: str
    lived_s: float


class WorkerActor:
    """Runs a worker until it ends, then ends too, so that Ray starts both anew.

    Only a worker that refuses its settings is left as it is, to be seen in the status: starting it
    again would not help.
    """

    def __init__(self, order: Order) -> None:
        configure("json", "info", worker="actor", actor=order.name)
        context = ray.get_runtime_context()
        self._order = order
        self._node, self._actor = context.get_node_id(), context.get_actor_id() or ""
        self._host = str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._state, self._why = "starting", ""
        if unlike := differences(order.pins, pins_here()):
            self._state, self._why = "failed", f"this node has {unlike}"
            return
        hidden = {} if order.gpus else {"CUDA_VISIBLE_DEVICES": ""}
        self._child = Child(order.module, dict(order.environ) | hidden, self._host)
        threading.Thread(target=self._watch, args=(self._child,), daemon=True).start()

    def report(self) -> Report:
        """Say how the worker is."""
        child = self._child
        return Report(
            self._order.name,
            self._state,
            self._why,
            child.pid if child else 0,
            self._node,
            self._host,
            child.metrics_url if child else None,
            self._actor,
            f"worker-*-{os.getpid()}.*",
            round(child.lived_s, 1) if child else 0.0,
        )

    def drain(self, grace_s: float) -> int | None:
        """Let the worker finish what it has begun; gives its exit code."""
        with self._lock:
            self._state, self._why = "draining", ""
        return self._child.stop(grace_s) if self._child else None

    def _watch(self, child: Child) -> None:
        while (code := child.wait(PROBE_S)) is None:
            why = child.probe()
            with self._lock:
                if self._state == "draining":
                    return
                self._why = why or ""
                if why is None:
                    self._state = "ready"
                elif self._state == "ready":
                    self._state = "unready"
            if child.is_hung:
                get_logger().error("worker_hung", pid=child.pid, why=why)
                code = child.kill()
                break
        self._end(child, code)

    def _end(self, child: Child, code: int) -> None:
        with self._lock:
            if self._state == "draining":
                return
            get_logger().error("worker_ended", code=code, lived_s=round(child.lived_s, 1))
            if code == SettingsError.exit_code:
                self._state, self._why = "failed", "it refused its settings; see its log"
                return
        time.sleep(max(0.0, SHORTEST_LIFE_S - child.lived_s))
        os._exit(1)  # not an end that Ray takes for intended
