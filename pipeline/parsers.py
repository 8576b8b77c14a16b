"""How the text of a setting becomes a value: one parser per kind, each saying what it takes."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

T = TypeVar("T")

_REDIS_PORT = 6379
_SCHEMES = ("redis", "rediss", "unix", "redis+cluster")
_CREDENTIALS = re.compile(r"(?<=://).*@")
_SECRET_QUERY = re.compile(r"([?&](?:password|username)=)[^&\s]*", re.IGNORECASE)
_WORDS = {"1": True, "true": True, "yes": True, "on": True}
_WORDS |= {"0": False, "false": False, "no": False, "off": False}


@dataclass(frozen=True, slots=True)
class Parser(Generic[T]):
    """Turns text into a value.

    Attributes:
        parse: raises ValueError for what it does not take; surrounding blanks are gone already.
        takes: what it takes, in the words of a message and of README's table.
    """

    parse: Callable[[str], T]
    takes: str


@dataclass(frozen=True, slots=True)
class ClusterAddress:
    """Where a Redis Cluster is: the nodes to ask first, and who asks."""

    nodes: tuple[tuple[str, int], ...]
    username: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        return f"ClusterAddress(nodes={self.nodes})"


def redact(text: str) -> str:
    """Replace the credentials of a URL in `text` by `***`, line by line."""
    return _SECRET_QUERY.sub(r"\1***", _CREDENTIALS.sub("***@", text))


def integer(low: int, high: int, step: int = 1) -> Parser[int]:
    """Take a whole number from `low` to `high`, a multiple of `step`."""

    def parse(text: str) -> int:
        value = int(text)
        if not low <= value <= high or value % step:
            raise ValueError
        return value

    return Parser(parse, f"{low:,} to {high:,}" + (f", a multiple of {step}" if step > 1 else ""))


def one_of(*numbers: int) -> Parser[int]:
    """Take one of some whole numbers."""

    def parse(text: str) -> int:
        if int(text) not in numbers:
            raise ValueError
        return int(text)

    *first, last = map(str, numbers)
    return Parser(parse, f"{', '.join(first)} or {last}")


def number(low: float, high: float) -> Parser[float]:
    """Take a finite number from `low` to `high`."""

    def parse(text: str) -> float:
        value = float(text)
        if not math.isfinite(value) or not low <= value <= high:
            raise ValueError
        return value

    return Parser(parse, f"{low:,g} to {high:,g}")


def auto(inner: Parser[T]) -> Parser[T | None]:
    """Take what `inner` takes, or `auto`, which gives None: decided where it is used."""
    return Parser(
        lambda text: None if text == "auto" else inner.parse(text), f"auto or {inner.takes}"
    )


def switch() -> Parser[bool]:
    """Take 1, true, yes, on, or 0, false, no, off."""

    def parse(text: str) -> bool:
        if (value := _WORDS.get(text.lower())) is None:
            raise ValueError
        return value

    return Parser(parse, "1 or 0")


def choice(*words: str) -> Parser[str]:
    """Take one of `words`, in any case."""

    def parse(text: str) -> str:
        if text.lower() not in words:
            raise ValueError
        return text.lower()

    return Parser(parse, ", ".join(words[:-1]) + f" or {words[-1]}")


def matching(pattern: str, takes: str) -> Parser[str]:
    """Take text that `pattern` matches as a whole."""
    regex = re.compile(pattern)

    def parse(text: str) -> str:
        if regex.fullmatch(text) is None:
            raise ValueError
        return text

    return Parser(parse, takes)


def optional_matching(pattern: str, takes: str) -> Parser[str | None]:
    """Take text that `pattern` matches as a whole; nothing gives None."""
    inner = matching(pattern, takes)
    return Parser(lambda text: inner.parse(text) if text else None, takes)


def name_list() -> Parser[tuple[str, ...]]:
    """Take names between commas; no text, no names. An empty or repeated name is refused."""

    def parse(text: str) -> tuple[str, ...]:
        names = tuple(name.strip() for name in text.split(",")) if text else ()
        if not all(names) or len(set(names)) < len(names):
            raise ValueError
        return names

    return Parser(parse, "names between commas, each once")


def folder() -> Parser[Path]:
    """Take the path of a folder, which need not exist yet; `~` is the user's home."""
    return Parser(lambda text: Path(os.path.expanduser(text)), "a folder")


def optional_file() -> Parser[Path | None]:
    """Take the path of a file, read where it is used; nothing gives None."""
    return Parser(lambda text: Path(os.path.expanduser(text)) if text else None, "a file")


def redis_url() -> Parser[str]:
    """Take the address of a Redis: TCP, TLS, a Unix socket, or nodes of a Cluster."""

    def parse(text: str) -> str:
        scheme = text.partition("://")[0]
        if scheme not in _SCHEMES or re.search(r"\s", text):
            raise ValueError
        if scheme == "redis+cluster":
            cluster_address(text)
        elif scheme == "unix":
            _check_socket(text)
        else:
            _check_server(text)
        return text

    return Parser(
        parse,
        "redis://host:port/db, rediss://host:port/db, unix:///path or "
        "redis+cluster://host:port,host:port (special characters of a password as %XX)",
    )


def cluster_address(url: str) -> ClusterAddress:
    """Take `redis+cluster://[user:password@]host:port,host:port` apart.

    Raises:
        ValueError: it is not of that form; the message repeats nothing of it.
    """
    scheme, _, rest = url.partition("://")
    credentials, _, hosts = rest.rpartition("@")
    username, _, password = credentials.partition(":")
    if scheme != "redis+cluster":
        raise ValueError("not a redis+cluster:// URL")
    nodes = tuple(_host_port(node) for node in hosts.removesuffix("/").split(","))
    return ClusterAddress(nodes, unquote(username) or None, unquote(password) or None)


def _host_port(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname or parts.path or parts.query or parts.fragment or parts.username:
        raise ValueError("a node is host:port")
    return parts.hostname, parts.port or _REDIS_PORT


def _check_server(url: str) -> None:
    parts = urlsplit(url)
    if url.count("@") > parts.netloc.count("@") or url.count("@") > 1:
        raise ValueError  # a password holding @ unescaped: its rest would be taken for a host
    _ = parts.port  # raises when it is no port
    database = parts.path.removeprefix("/")
    if not parts.hostname or parts.fragment or (database and not database.isdecimal()):
        raise ValueError


def _check_socket(url: str) -> None:
    parts = urlsplit(url)
    database = parse_qs(parts.query).get("db", ["0"])[-1]
    if not parts.path.startswith("/") or parts.path == "/" or not database.isdecimal():
        raise ValueError
