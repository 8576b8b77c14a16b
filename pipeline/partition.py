"""Where things live: source names, partitions and every key of a deployment (CONTRACT 2)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from zlib import crc32

MAX_PARTITIONS = 1000
_SOURCE = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")
_CHANNEL = re.compile(r"[A-Za-z0-9._:-]{1,64}\Z")
_PREFIX = re.compile(r"[^{}\s]{1,64}\Z")


def is_source(name: str) -> bool:
    """Tell whether `name` may name a source: 1 to 128 characters of A-Z a-z 0-9 . _ : -."""
    return _SOURCE.match(name) is not None


def is_channel(name: str) -> bool:
    """Tell whether `name` may name a channel: 1 to 64 characters of the source alphabet."""
    return _CHANNEL.match(name) is not None


def partition_of(source: str, partitions: int) -> int:
    """Give the partition of a source: IEEE crc32 of its UTF-8 bytes modulo `partitions`."""
    return crc32(source.encode()) % partitions


def tag_of(partition: int) -> str:
    """Give the hash tag of a partition without braces, `p007`."""
    return f"p{partition:03d}"


@dataclass(frozen=True, slots=True)
class PartitionKeys:
    """The keys of one partition; all of them hash to one Redis Cluster slot."""

    base: str
    frames: str
    recordings: str
    events: str
    detections: str
    scores: str
    dead: str
    sources: str
    ledger: str
    owner: str
    held: str

    def state(self, source: str) -> str:
        """Key of the cached state of a source (hash)."""
        return f"{self.base}:state:{source}"

    def last(self, source: str) -> str:
        """Key of the newest detected frame of a source (JPEG string)."""
        return f"{self.base}:last:{source}"

    def memory(self, source: str) -> str:
        """Key of what the score stage remembers of a source (private string)."""
        return f"{self.base}:memory:{source}"

    @property
    def answers(self) -> str:
        """Key of what the network found, by picture (private hash)."""
        return f"{self.base}:answers"

    @property
    def old_answers(self) -> str:
        """Key of the generation of answers before that (private hash)."""
        return f"{self.base}:answers:old"

    def seen(self, source: str, producer: str) -> str:
        """Key of the frame numbers seen of a producer (private string, a bitmap)."""
        return f"{self.base}:seen:{source}:{producer}"


@dataclass(frozen=True, slots=True)
class Keys:
    """All keys of a deployment.

    Attributes:
        prefix: `PERCIPIO_KEY_PREFIX`, no braces.
        partitions: P, 1 to 1000, fixed for the life of the deployment.
    """

    prefix: str = "percipio"
    partitions: int = 16

    def __post_init__(self) -> None:
        if not _PREFIX.match(self.prefix):
            raise ValueError(f"key prefix {self.prefix!r}: 1 to 64 characters, no braces or spaces")
        if not 1 <= self.partitions <= MAX_PARTITIONS:
            raise ValueError(f"partitions {self.partitions}: 1 to {MAX_PARTITIONS}")

    @property
    def config(self) -> str:
        """Key of the deployment's record (hash: `partitions`, `contract`)."""
        return f"{self.prefix}:config"

    @property
    def workers(self) -> str:
        """Key of the score workers' heartbeats (private sorted set, advisory)."""
        return f"{self.prefix}:workers"

    @property
    def fleet(self) -> str:
        """Key of what `percipio ray` was asked for (private hash)."""
        return f"{self.prefix}:fleet"

    @property
    def decisions(self) -> str:
        """Key of the newest decisions about how many workers there should be (private stream)."""
        return f"{self.prefix}:decisions"

    def of(self, partition: int) -> PartitionKeys:
        """Give the keys of a partition."""
        base = f"{self.prefix}:{{{tag_of(partition)}}}"
        names = (
            "frames",
            "recordings",
            "events",
            "detections",
            "scores",
            "dead",
            "sources",
            "ledger",
            "owner",
            "held",
        )
        return PartitionKeys(base, *(f"{base}:{name}" for name in names))

    def tag_of_source(self, source: str) -> str:
        """Give the tag of the partition that a source belongs to, `p007`."""
        return tag_of(partition_of(source, self.partitions))

    def of_source(self, source: str) -> PartitionKeys:
        """Give the keys of the partition that a source belongs to."""
        return self.of(partition_of(source, self.partitions))
