"""What can go wrong, by consequence: the entry is bad, something is away, or we are misconfigured.

Raised at the edges, chained to their cause; the loop asks the class what to do, never the text.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why an entry is a dead letter (CONTRACT 4)."""

    UNDECODABLE = "undecodable"
    TOO_LARGE = "too_large"
    BAD_FIELD = "bad_field"
    WRONG_PARTITION = "wrong_partition"
    BAD_VERSION = "bad_version"
    POISON = "poison"


class PercipioError(Exception):
    """Base of everything this package raises on purpose; `exit_code` is the process's."""

    exit_code = 1


class EntryError(PercipioError):
    """This entry can never succeed, however often it is delivered: dead letter."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class SettingsError(PercipioError):
    """A setting or an argument is wrong; the message names it and the range."""

    exit_code = 2


class DependencyError(PercipioError):
    """Something outside is away (Redis, a weight file, a camera); trying again may help."""

    exit_code = 3


class FullError(DependencyError):
    """There is no room: Redis is at maxmemory, or a stream at its bound; workers make some."""


class FencedError(PercipioError):
    """Another owner has taken the partition: forget what was computed for it."""
