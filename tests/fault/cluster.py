"""Six redis-servers as a Cluster of three primaries, on loopback."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import RedisError

from tests.fault.proxy import Proxy
from tests.fault.rig import Server

NODE_TIMEOUT_MS = 1500
FORMED_S = 180.0
SLOTS = 16384
BUS = 10_000
"""A node's bus is at its port and so many."""


@dataclass
class Cluster:
    """Nodes by port; primaries and replicas change places when primaries die.

    Attributes:
        is_divisible: each node's bus is behind a proxy that knows the others by their address.
    """

    folder: Path
    program: str
    is_divisible: bool = False
    nodes: list[Server] = field(default_factory=list)
    buses: list[Proxy] = field(default_factory=list)

    def start(self) -> None:
        """Start the nodes and make them a cluster."""
        for number in range(6):
            options = ["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"]
            options += ["--cluster-node-timeout", str(NODE_TIMEOUT_MS)]
            options += ["--repl-diskless-sync-delay", "0"]
            node = Server(self.folder / str(number), self.program, options)
            self.nodes.append(node)
            self.buses.append(Proxy(node.port + BUS))
            if self.is_divisible:
                options += ["--bind-source-addr", self._address(node), "--protected-mode", "no"]
                options += ["--cluster-announce-ip", "127.0.0.1"]
                options += ["--cluster-announce-bus-port", str(self.buses[-1].port)]
            node.start(wait=False)
        for node in self.nodes:
            node.wait()
        self._form()
        self.wait_until_whole()

    def _form(self) -> None:
        """Three primaries share the slots; then each gets a replica."""
        primaries, replicas = self.nodes[:3], self.nodes[3:]
        bounds = [0, SLOTS // 3, 2 * SLOTS // 3, SLOTS]
        for number, node in enumerate(self.nodes):
            self._ask(node, "SET-CONFIG-EPOCH", number + 1)
        for node, low, high in zip(primaries, bounds, bounds[1:], strict=False):
            self._ask(node, "ADDSLOTSRANGE", low, high - 1)
        bus = self.buses[0].port if self.is_divisible else primaries[0].port + BUS
        for node in self.nodes[1:]:
            self._ask(node, "MEET", "127.0.0.1", primaries[0].port, bus)
        self._wait_for(lambda: all(self._knows_all(node) for node in self.nodes))
        for primary, replica in zip(primaries, replicas, strict=True):
            self._ask(replica, "REPLICATE", self._id(primary))

    def _ask(self, node: Server, *words: str | int) -> str:
        with node.client as client:
            answer = client.execute_command("CLUSTER", *words)
        return answer.decode() if isinstance(answer, bytes) else str(answer)

    def _knows_all(self, node: Server) -> bool:
        lines = self._ask(node, "NODES").splitlines()
        return len(lines) == len(self.nodes) and not any("handshake" in line for line in lines)

    def _wait_for(self, check: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + FORMED_S
        while not check():
            assert time.monotonic() < deadline_s, "the cluster is not whole"
            time.sleep(0.05)

    def stop(self) -> None:
        """End all nodes."""
        for node, bus in zip(self.nodes, self.buses, strict=True):
            node.kill()
            bus.close()

    @property
    def url(self) -> str:
        """For PERCIPIO_REDIS_URL."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def connect(self) -> RedisCluster:
        """A publisher's client."""
        return RedisCluster(
            startup_nodes=[
                ClusterNode("127.0.0.1", node.port)  # type: ignore[no-untyped-call]
                for node in self.nodes
            ],
            protocol=2,
            socket_timeout=3,
            socket_connect_timeout=3,
        )

    def primaries(self) -> list[Server]:
        """The nodes that are primaries and alive."""
        return [node for node in self.nodes if self._role(node) == "master"]

    def _role(self, node: Server) -> str:
        if node.process is None:
            return "dead"
        with node.client as client:
            try:
                return str(client.info("replication")["role"])
            except RedisError:
                return "dead"

    def replica_of(self, primary: Server) -> Server:
        """A replica of a primary."""
        for node in self.nodes:
            if node is not primary and node.process is not None:
                with node.client as client:
                    if client.info("replication").get("master_port") == primary.port:
                        return node
        raise AssertionError("no replica")

    def _address(self, node: Server) -> str:
        """Where a node's own connections come from."""
        return f"127.0.1.{self.nodes.index(node) + 1}"

    def isolate(self, node: Server) -> None:
        """Cut a primary off from all other nodes, its replica among them, not from its clients."""
        assert self.is_divisible
        self.break_link(node)
        for other, bus in zip(self.nodes, self.buses, strict=True):
            bus.barred = {self._address(node)}
            if other is node:
                bus.barred = {self._address(one) for one in self.nodes}
            bus.cut_all()

    def rejoin(self) -> None:
        """Undo `isolate`."""
        for bus in self.buses:
            bus.barred = set()
        self.mend_links()

    def break_link(self, primary: Server) -> None:
        """Let a primary's replica fall behind: what is acknowledged from now on, it has not."""
        replica = self.replica_of(primary)
        with replica.client as client:
            client.config_set("masterauth", "wrong")
        with primary.client as client:
            client.execute_command("CLIENT KILL", "TYPE", "replica")

    def mend_links(self) -> None:
        """Undo `break_link`."""
        for node in self.nodes:
            if node.process is not None:
                with node.client as client:
                    client.config_set("masterauth", "")

    def move_slot(self, slot: int) -> None:
        """Move a slot to another primary, key by key, as resharding does."""
        primaries = {self._id(node): node for node in self.primaries()}
        with self.connect() as client:
            owner = client.nodes_manager.get_node_from_slot(slot)
        source_id = next(i for i, node in primaries.items() if node.port == owner.port)
        target_id = next(i for i in primaries if i != source_id)
        source, target = primaries[source_id], primaries[target_id]
        with source.client as old, target.client as new:
            new.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", source_id)
            old.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", target_id)
            while keys := old.execute_command("CLUSTER GETKEYSINSLOT", slot, 2):
                place = ("127.0.0.1", target.port, "", 0, 5000, "REPLACE", "KEYS")
                old.execute_command("MIGRATE", *place, *keys)
                time.sleep(0.02)
            for node in (new, old):
                node.execute_command("CLUSTER SETSLOT", slot, "NODE", target_id)

    def _id(self, node: Server) -> str:
        return self._ask(node, "MYID")

    def wait_until_whole(self, nodes: Sequence[Server] | None = None) -> None:
        """Wait until every living node sees all slots served and its replica in step."""
        self._wait_for(
            lambda: all(self._is_whole(node) for node in nodes or self.nodes if node.process)
        )

    def _is_whole(self, node: Server) -> bool:
        with node.client as client:
            try:
                state = client.execute_command("CLUSTER INFO")
                replication = client.info("replication")
            except RedisError:
                return False
        text = state.decode() if isinstance(state, bytes) else str(state)
        link = replication.get("master_link_status", "up")
        is_ok = "cluster_state:ok" in text or "'cluster_state': 'ok'" in text
        return is_ok and link == "up" and bool(replication.get("connected_slaves", 1) or 1)
