"""Six redis-servers as a Cluster of three primaries, on loopback."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import RedisError

from tests.fault.rig import Server, free_port

NODE_TIMEOUT_MS = 1500
FORMED_S = 60.0


@dataclass
class Cluster:
    """Nodes by port; primaries and replicas change places when primaries die."""

    folder: Path
    program: str
    nodes: list[Server] = field(default_factory=list)

    def start(self) -> None:
        """Start the nodes and make them a cluster."""
        for number in range(6):
            port = free_port()
            while port > 55_000:  # the bus is 10,000 above
                port = free_port()
            options = ["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"]
            options += ["--cluster-node-timeout", str(NODE_TIMEOUT_MS)]
            options += ["--repl-diskless-sync-delay", "0"]
            self.nodes.append(Server(self.folder / str(number), self.program, options, port))
            self.nodes[-1].start(wait=False)
        for node in self.nodes:
            node.wait()
        places = [f"127.0.0.1:{node.port}" for node in self.nodes]
        self.admin("create", *places, "--cluster-replicas", "1")
        self.wait_until_whole()

    def admin(self, *words: str) -> str:
        """Run redis-cli --cluster."""
        command = ["redis-cli", "--cluster", *words, "--cluster-yes"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def stop(self) -> None:
        """End all nodes."""
        for node in self.nodes:
            node.kill()

    @property
    def url(self) -> str:
        """For PERCIPIO_REDIS_URL."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def connect(self) -> RedisCluster:
        """A publisher's client."""
        return RedisCluster(
            startup_nodes=[ClusterNode("127.0.0.1", node.port) for node in self.nodes],
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

    def wait_until_whole(self, nodes: Sequence[Server] | None = None) -> None:
        """Wait until every living node sees all slots served and its replica in step."""
        deadline_s = time.monotonic() + FORMED_S
        while not all(self._is_whole(node) for node in nodes or self.nodes if node.process):
            assert time.monotonic() < deadline_s, "the cluster is not whole"
            time.sleep(0.05)

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
