"""Keys of the API: a file of their hashes with roles, and who may do what to which source."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache
from typing import Literal

from pipeline.errors import SettingsError

Role = Literal["publish", "read", "admin"]
ROLES: tuple[Role, ...] = ("publish", "read", "admin")
PREFIX = "pk_"
_HASH = re.compile(r"[0-9a-f]{64}\Z")
_PATTERN = re.compile(r"[A-Za-z0-9._:*?-]{1,128}\Z")


@dataclass(frozen=True, slots=True)
class Grant:
    """One line of the file: what a key may do.

    Attributes:
        key_hash: SHA-256 of the key, hexadecimal.
        role: `admin` may do everything, the others what they are called.
        pattern: of source names; `*` and `?` as in file names.
    """

    key_hash: str
    role: Role
    pattern: str = "*"

    def covers(self, role: Role, source: str | None) -> bool:
        """Tell whether it allows something of `role` with a source, or with none."""
        if self.role not in (role, "admin"):
            return False
        return source is None or self.pattern == "*" or _matches(self.pattern, source)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the grants of one key; without keys, anybody on this machine.

    Attributes:
        name: stands for the key in logs and limits, tells nothing about it.
    """

    name: str
    grants: tuple[Grant, ...]

    def may(self, role: Role, source: str | None = None) -> bool:
        """Tell whether something of `role` is allowed with a source, or at all."""
        return any(grant.covers(role, source) for grant in self.grants)

    def sees_all(self, role: Role) -> bool:
        """Tell whether `role` is allowed with every source."""
        return any(grant.covers(role, None) and grant.pattern == "*" for grant in self.grants)


ANYBODY = Caller("anybody", (Grant("", "admin"),))


def make_key() -> str:
    """Make a new key; only its hash is ever stored."""
    return PREFIX + secrets.token_urlsafe(32)


def hash_key(key: str) -> str:
    """Give what the file keeps of a key. Keys are random, so a plain digest cannot be guessed."""
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()


def read_grants(text: str, where: str) -> tuple[Grant, ...]:
    """Read the lines of a keys file; `#` starts a comment.

    Raises:
        SettingsError: names the line that is wrong, never its content.
    """
    grants = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        grant = _grant(words)
        if grant is None:
            raise SettingsError(
                f"{where}, line {number}: expected `key-hash role [source-pattern]`: "
                f"64 hexadecimal digits, one of {', '.join(ROLES)}, letters with * and ?"
            )
        grants.append(grant)
    return tuple(grants)


def find_caller(grants: Iterable[Grant], key_hash: str) -> Caller | None:
    """Give who has the key with a hash, looking at every line in the same time."""
    wanted = key_hash.encode()
    found = [grant for grant in grants if hmac.compare_digest(grant.key_hash.encode(), wanted)]
    return Caller(key_hash[:12], tuple(found)) if found else None


def _grant(words: list[str]) -> Grant | None:
    if not 2 <= len(words) <= 3 or not _HASH.match(words[0].lower()):
        return None
    role = next((role for role in ROLES if role == words[1]), None)
    pattern = words[2] if len(words) == 3 else "*"
    if role is None or not _PATTERN.match(pattern):
        return None
    return Grant(words[0].lower(), role, pattern)


def _matches(pattern: str, source: str) -> bool:
    return _compiled(pattern).match(source) is not None


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(translate(pattern))
