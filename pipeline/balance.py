"""Which score worker should own which partition: rendezvous hashing with bounded load."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from hashlib import blake2b
from math import ceil


def _weight(worker: str, partition: int) -> bytes:
    return blake2b(f"{worker}/{partition}".encode(), digest_size=8).digest()


def assign(partitions: int, workers: Collection[str]) -> dict[int, str]:
    """Give every partition a worker, the same answer wherever it is computed.

    A worker gets at most ceil(partitions / workers); when one comes or goes few others change.

    Args:
        partitions: P.
        workers: names of the live ones; none gives an empty answer.
    """
    if not workers:
        return {}
    most = ceil(partitions / len(workers))
    load: Counter[str] = Counter()
    owners: dict[int, str] = {}
    for partition in range(partitions):
        free = [worker for worker in workers if load[worker] < most]
        owner = max(free, key=lambda worker: _weight(worker, partition))
        owners[partition] = owner
        load[owner] += 1
    return owners
