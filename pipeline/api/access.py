"""Who is asking: keys from a file that may change, sessions of the page, and how often one may."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from time import monotonic

from pipeline import metrics
from pipeline.api.keys import ANYBODY, Caller, Grant, find_caller, hash_key, read_grants
from pipeline.errors import DependencyError, SettingsError
from pipeline.log import get_logger
from pipeline.settings import ApiSettings
from pipeline.stream import Store

log = get_logger()

COOKIE = "percipio_session"
SESSION_S = 12 * 3600
_RELOAD_S = 1.0
_TRUSTED_S = 10.0
_SESSIONS = 10_000
_LOOPBACK_NAMES = ("localhost", "localhost.localdomain")
_LONGEST_KEY = 512


@lru_cache(maxsize=1024)
def is_loopback(host: str) -> bool:
    """Tell whether a host name or address is this machine's own."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() in _LOOPBACK_NAMES


class Keys:
    """The grants of the keys file; read again when it has changed.

    Args:
        path: None lets anybody in.

    Raises:
        SettingsError: the file cannot be read, or a line is wrong.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self.grants: tuple[Grant, ...] = ()
        if path is not None:
            self._stamp = _stamp(path)
            self.grants = _load(path)

    @property
    def are_set(self) -> bool:
        """Whether a key is needed."""
        return self._path is not None

    def find(self, key_hash: str) -> Caller | None:
        """Give who has a key with this hash."""
        return find_caller(self.grants, key_hash)

    async def run(self) -> None:
        """Watch the file. While it cannot be read, or is wrong, the last good one counts."""
        while True:
            await asyncio.sleep(_RELOAD_S)
            if self._path is not None:
                await asyncio.to_thread(self.reload, self._path)

    def reload(self, path: Path) -> None:
        """Read the file if it has changed."""
        stamp = _stamp(path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self.grants = _load(path)
        except SettingsError as error:
            log.warning("keys_not_reloaded", error=str(error))
        else:
            log.info("keys_reloaded", count=len(self.grants))


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _load(path: Path) -> tuple[Grant, ...]:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"PERCIPIO_API_KEYS_FILE={path}: {error}") from error
    return read_grants(text, str(path))


def check_exposure(settings: ApiSettings, keys: Keys) -> None:
    """Refuse to be reachable by others without keys.

    Raises:
        SettingsError: it would be.
    """
    if is_loopback(settings.host) or keys.grants:
        return
    raise SettingsError(
        f"PERCIPIO_API_HOST={settings.host} can be reached by others: set PERCIPIO_API_KEYS_FILE "
        "to a file with keys (`percipio keys new admin` makes one)"
    )


@dataclass(frozen=True, slots=True)
class Asking:
    """One request's caller, and by what it was known.

    Attributes:
        caller: None when it showed nothing, or nothing known.
        by: `nothing`, `key` or `session`.
    """

    caller: Caller | None
    by: str


NOBODY_ASKED = Asking(ANYBODY, "nothing")


class Access:
    """Tells who asks. Sessions are kept in Redis, so that any process knows them.

    A session is a random name; Redis has its hash, and the hash of the key that opened it. It ends
    with the key.
    """

    def __init__(self, store: Store, keys: Keys) -> None:
        self.keys = keys
        self._store = store
        self._known: OrderedDict[str, tuple[str, float]] = OrderedDict()

    async def identify(self, authorization: str | None, session: str | None) -> Asking:
        """Give who shows these.

        Raises:
            DependencyError: the session is not known here, and Redis is away.
        """
        if not self.keys.are_set:
            return NOBODY_ASKED
        if authorization is not None:
            scheme, _, key = authorization.partition(" ")
            known = scheme.lower() == "bearer" and len(key) <= _LONGEST_KEY
            return Asking(self.keys.find(hash_key(key.strip())) if known else None, "key")
        if session is not None and len(session) <= _LONGEST_KEY:
            key_hash = await self._opened_by(session)
            return Asking(self.keys.find(key_hash) if key_hash else None, "session")
        return Asking(None, "nothing")

    def is_still(self, caller: Caller) -> bool:
        """Tell whether what a caller was allowed still is."""
        return not self.keys.are_set or all(each in self.keys.grants for each in caller.grants)

    async def open_session(self, key: str) -> str | None:
        """Give a new session for a key; None for one that is not known."""
        key_hash = hash_key(key[: _LONGEST_KEY + 1])
        if self.keys.find(key_hash) is None:
            return None
        session = secrets.token_urlsafe(32)
        await self._store.run("SET", self._name(session), key_hash, "EX", SESSION_S)
        return session

    async def end_session(self, session: str) -> None:
        """End a session."""
        name = self._name(session)
        self._known.pop(name, None)
        await self._store.run("DEL", name)

    async def _opened_by(self, session: str) -> str | None:
        name = self._name(session)
        known = self._known.get(name)
        if known is not None and monotonic() - known[1] < _TRUSTED_S:
            metrics.API_LOOKUPS.labels("session", "hit").inc()
            return known[0]
        metrics.API_LOOKUPS.labels("session", "miss").inc()
        try:
            found = await self._store.run("GET", name)
        except DependencyError:
            if known is None:
                raise
            return known[0]
        if found is None:
            self._known.pop(name, None)
            return None
        self._known[name] = found.decode(), monotonic()
        if len(self._known) > _SESSIONS:
            self._known.popitem(last=False)
        return self._known[name][0]

    def _name(self, session: str) -> str:
        digest = hashlib.sha256(session.encode(errors="surrogateescape")).hexdigest()
        return f"{self._store.keys.prefix}:session:{digest}"


class Rates:
    """How often each caller may ask: so many a second, and as many saved up.

    Args:
        per_s: 0 for any number.
    """

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str) -> float:
        """Count a request; gives 0, or in how many seconds one may come again."""
        if not self._per_s:
            return 0.0
        now_s = monotonic()
        most = max(1.0, self._per_s)
        left, at_s = self._left.pop(name, (most, now_s))
        left = min(most, left + (now_s - at_s) * self._per_s)
        wait_s = 0.0 if left >= 1 else (1 - left) / self._per_s
        self._left[name] = left - 1 if left >= 1 else left, now_s
        if len(self._left) > _SESSIONS:
            self._left.popitem(last=False)
        return wait_s


def cookie(headers: Mapping[bytes, bytes], name: str) -> str | None:
    """Give a cookie of a request."""
    for part in headers.get(b"cookie", b"").decode("latin-1").split(";"):
        key, _, value = part.strip().partition("=")
        if key == name:
            return value
    return None
