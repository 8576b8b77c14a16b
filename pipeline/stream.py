"""Redis and Redis Cluster: connecting, calling our functions, preparing a deployment.

The only module that imports redis; everything above sees `Store` and our own errors.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from itertools import chain
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit, urlunsplit

import msgpack
from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.connection import HiredisRespSerializer
from redis.exceptions import (
    AskError,
    ClusterError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)

from pipeline.errors import DependencyError, FullError, PercipioError, SettingsError
from pipeline.log import get_logger
from pipeline.partition import Keys

CONTRACT = 1
INPUT_GROUP = "detect"
SCORE_GROUP = "score"
OLDEST_SERVER = (7, 0)
SOCKET_TIMEOUT_S = 5.0
BLOCK_MS = 1000
MANY = 16
LARGE = 1 << 18

Argument = bytes | str | int | float
Raw = tuple[bytes, dict[bytes, bytes]]
"""An entry as Redis gives it: id and fields."""

_TEXT = files("pipeline").joinpath("functions.lua").read_text()
_LIBRARY = f"percipio_{CONTRACT}_{hashlib.sha256(_TEXT.encode()).hexdigest()[:8]}"
_CODE = f"#!lua name={_LIBRARY}\n{_TEXT.replace('__LIB__', _LIBRARY)}"

T = TypeVar("T")


_PACKER = msgpack.Packer(use_bin_type=False)
_SERIALIZER = HiredisRespSerializer()


def pack_arguments(value: object) -> bytes:
    """Encode an argument of a function; Redis's cmsgpack knows no bin type."""
    packed: bytes = _PACKER.pack(value)
    return packed


def unpack_answer(answer: bytes) -> Any:
    """Decode what a function packed with cmsgpack; its text comes as text."""
    return msgpack.unpackb(answer, raw=False, strict_map_key=False)


_PASSING = (
    RedisConnectionError,  # LOADING too
    RedisTimeoutError,
    RedisClusterException,
    ClusterError,  # CLUSTERDOWN, MASTERDOWN
    AskError,  # MOVED too
    ReadOnlyError,
    TryAgainError,
    OSError,
)
_PASSING_WORDS = ("MISCONF", "NOREPLICAS", "BUSY")
_SLIPS = (AttributeError, TypeError, RuntimeError)


def _is_slip(error: Exception) -> bool:
    """Tell whether redis-py stumbled over a connection that went while it used it.

    It, or asyncio below it, then finds None where a stream was (redis-py 3546 and 4287); uvloop
    refuses to write to a transport that has just closed.
    """
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    name = "" if place is None else str(place.tb_frame.f_globals.get("__name__"))
    where = name.partition(".")[0]
    if isinstance(error, RuntimeError):
        return where == "uvloop"
    return isinstance(error, _SLIPS) and where in ("redis", "asyncio")


def refusal(answer: Exception, what: str) -> PercipioError:
    """Give our own error for one answer of `run_many`.

    Returns:
        FullError at maxmemory; DependencyError for what may pass; SettingsError for what will be
        refused however often it is sent.
    """
    text = f"Redis: {what}: {answer}"
    if isinstance(answer, OutOfMemoryError):
        return FullError(f"Redis is full (maxmemory): {what} refused")
    is_passing = isinstance(answer, _PASSING) or _is_slip(answer)
    if is_passing or str(answer).startswith(_PASSING_WORDS):
        return DependencyError(text)
    return SettingsError(text)


def hide_password(url: str) -> str:
    """Give a Redis URL as it may be logged."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username or ''}:***@{host}"))


def _cluster_nodes(url: str) -> tuple[list[ClusterNode], str | None, str | None]:
    credentials, _, hosts = url.removeprefix("redis+cluster://").rstrip("/").rpartition("@")
    user, _, password = credentials.partition(":")
    nodes = []
    for host in hosts.split(","):
        name, _, port = host.rpartition(":")
        nodes.append(ClusterNode(name.strip("[]"), int(port)))
    return nodes, user or None, password or None


class _Packing(AbstractConnection):
    """Packs commands of many small arguments, as our functions are, several times as fast."""

    def pack_command(self, *args: Any) -> list[bytes]:
        if len(args) < MANY or any(type(each) is bytes and len(each) > LARGE for each in args):
            return super().pack_command(*args)  # does not copy what is large
        packed: list[bytes] = _SERIALIZER.pack(*args)
        return packed


def make_client(url: str) -> Redis | RedisCluster:
    """Make a client for a URL of CONTRACT 7; it connects when it is first used.

    Retries are safe: every write of this package goes through a function that recognises its own
    repetition.
    """
    retry = Retry(ExponentialWithJitterBackoff(base=0.05, cap=1.0), 3)
    if url.startswith("redis+cluster://"):
        nodes, user, password = _cluster_nodes(url)
        return RedisCluster(
            startup_nodes=nodes,
            username=user,
            password=password,
            retry=retry,
            socket_timeout=SOCKET_TIMEOUT_S,
            socket_connect_timeout=SOCKET_TIMEOUT_S,
            protocol=2,
        )
    client = Redis.from_url(
        url,
        retry=retry,
        retry_on_error=[RedisConnectionError, RedisTimeoutError],
        socket_timeout=SOCKET_TIMEOUT_S,
        socket_connect_timeout=SOCKET_TIMEOUT_S,
        health_check_interval=15,
        protocol=2,
    )
    pool = client.connection_pool
    pool.connection_class = type("Connection", (_Packing, pool.connection_class), {})
    return client


def pairs(flat: Sequence[Any]) -> dict[str, Any]:
    """Give a flat name, value list of Redis as a map."""
    if isinstance(flat, dict):
        return {_as_text(name): value for name, value in flat.items()}
    return {_as_text(name): value for name, value in zip(flat[::2], flat[1::2], strict=True)}


def _as_text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name


class Store:
    """One deployment's Redis: its keys, its functions, its groups."""

    def __init__(self, client: Redis | RedisCluster, keys: Keys) -> None:
        self.keys = keys
        self._client = client

    @classmethod
    @asynccontextmanager
    async def open(
        cls, url: str, keys: Keys, *, wait_s: float = 0.0, create: bool = True
    ) -> AsyncIterator[Store]:
        """Connect, wait up to `wait_s` for Redis, check it and the deployment.

        Args:
            url: as in CONTRACT 7.
            keys: the deployment's.
            wait_s: how long Redis may take to answer.
            create: make the deployment where there is none yet, as workers do.

        Raises:
            DependencyError: Redis is away or too old, or there is no deployment.
            SettingsError: the deployment was made with another number of partitions.
        """
        client = make_client(url)
        store = cls(client, keys)
        try:
            await store._wait(url, wait_s)
            await store.prepare(create=create)
            yield store
        finally:
            await client.aclose()

    async def _wait(self, url: str, wait_s: float) -> None:
        deadline_s = asyncio.get_running_loop().time() + wait_s
        while True:
            try:
                info: Any = await self._client.execute_command("INFO", "server", **self._anywhere)
                break
            except (RedisError, OSError) as error:
                if asyncio.get_running_loop().time() >= deadline_s:
                    raise DependencyError(
                        f"Redis at {hide_password(url)} does not answer ({error}); "
                        "start it, or set PERCIPIO_REDIS_URL"
                    ) from error
                await asyncio.sleep(random.uniform(0.1, 0.5))
        version = str(_first(info).get("redis_version", "0.0"))
        if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_SERVER:
            raise DependencyError(f"Redis {version} at {hide_password(url)}: 7.0 or newer needed")

    @property
    def _anywhere(self) -> dict[str, Any]:
        return {"target_nodes": RedisCluster.RANDOM} if self.is_cluster else {}

    @property
    def is_cluster(self) -> bool:
        """Whether this is a Redis Cluster."""
        return isinstance(self._client, RedisCluster)

    async def prepare(self, *, create: bool = True) -> None:
        """Record or check the partitions; with `create` make groups at `0`, load functions."""
        await self._check_config(create=create)
        if create:
            await self.make_groups(range(self.keys.partitions))
            await self._check_eviction()

    async def repair(self) -> None:
        """Make what a deletion, a flush or a new primary took along; says so, loudly."""
        async with self.translating("read the deployment's record"):
            is_there = await self._client.exists(self.keys.config)
        if not is_there:
            get_logger().error("deployment_gone", record=self.keys.config, done="made anew")
            await self._check_config(create=True)
        await self.make_groups(range(self.keys.partitions))

    async def _check_config(self, *, create: bool) -> None:
        key, wanted = self.keys.config, self.keys.partitions
        record = {"partitions": str(wanted), "contract": str(CONTRACT)}
        recorded = await self._record()
        if create and len(recorded) < len(record):  # a full Redis refuses a write in vain
            if await self.call("make_record", [key], *chain(*record.items())):
                get_logger().info("deployment_made", record=key, **record)
            recorded = await self._record()
        if not recorded:
            raise DependencyError(f"{key} is not there: no worker has started with this prefix yet")
        if int(recorded[b"partitions"]) != wanted:
            raise SettingsError(
                f"PERCIPIO_PARTITIONS is {wanted}, but {key} was made with "
                f"{recorded[b'partitions'].decode()}; P is fixed for the life of a deployment"
            )
        if int(recorded[b"contract"]) != CONTRACT:
            raise SettingsError(
                f"{key} follows contract {recorded[b'contract'].decode()}, this is {CONTRACT}"
            )

    async def _record(self) -> dict[bytes, bytes]:
        async with self.translating("read the deployment's record"):
            recorded: Any = await self._client.hgetall(self.keys.config)
        found: dict[bytes, bytes] = recorded
        return found

    async def _check_eviction(self) -> None:
        """Warn where Redis may throw away what nobody has read; not every user may ask."""
        try:
            info: Any = await self._client.execute_command("INFO", "memory", **self._anywhere)
        except RedisError as error:
            get_logger().warning("eviction_unknown", error=str(error))
            return
        if (policy := _first(info).get("maxmemory_policy")) != "noeviction":
            get_logger().warning("eviction_on", maxmemory_policy=policy, wanted="noeviction")

    async def load_functions(self) -> None:
        """Load our library on every primary; its name holds a digest of its text."""
        where = {"target_nodes": RedisCluster.PRIMARIES} if self.is_cluster else {}
        async with self.translating("load the functions"):
            await self._client.execute_command("FUNCTION LOAD", "REPLACE", _CODE, **where)

    async def make_groups(self, partitions: Iterable[int]) -> None:
        """Make the groups of CONTRACT 2 where they are not there; counts what went with them."""
        commands = []
        for keys in map(self.keys.of, partitions):
            names = [keys.frames, keys.recordings, keys.events, keys.detections]
            names += [keys.ledger, keys.owner, keys.held]
            commands.append(self.command("make_groups", names))
        for answer in await self._call_many(commands):
            for stream, what, lost in answer:
                if what != b"made":
                    _report(stream.decode(), what.decode(), lost)

    async def _call_many(self, commands: list[tuple[Argument, ...]]) -> list[Any]:
        answers = await self.run_many(commands)
        if any("Function not found" in str(a) for a in answers if isinstance(a, Exception)):
            await self.load_functions()
            answers = await self.run_many(commands)
        for answer in answers:
            if isinstance(answer, Exception):
                raise refusal(answer, "a function")
        return answers

    def command(self, name: str, keys: Sequence[str], *args: Argument) -> tuple[Argument, ...]:
        """Give the command that calls one of our functions, for `run_many`."""
        return ("FCALL", f"{_LIBRARY}_{name}", len(keys), *keys, *args)

    async def call(self, name: str, keys: Sequence[str], *args: Argument) -> Any:
        """Call one of our functions; loads the library anew where it has gone."""
        command = self.command(name, keys, *args)
        async with self.translating(name):
            try:
                return await self._client.execute_command(*command)
            except ResponseError as error:
                if "Function not found" not in str(error):
                    raise
            await self.load_functions()
            return await self._client.execute_command(*command)

    async def run(self, *command: Argument) -> Any:
        """Run one command and give its reply as redis-py shapes it."""
        async with self.translating(str(command[0])):
            return await self._client.execute_command(*command)

    async def run_many(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """Run commands in one round trip a node; an error of one is its answer."""
        if not commands:
            return []
        async with self.translating(str(commands[0][0])):
            pipe = self._client.pipeline(transaction=False)
            for command in commands:
                pipe.execute_command(*command)
            answers: list[Any] = await pipe.execute(raise_on_error=False)
        return answers

    async def exchange(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """Run commands in one round trip; replies as Redis gives them, errors among them.

        For where it counts, and one Redis: what redis-py's pipelines do around this costs half as
        much again.
        """
        assert isinstance(self._client, Redis)
        pool = self._client.connection_pool
        async with self.translating(str(commands[0][0])):
            connection = await pool.get_connection()  # type: ignore[no-untyped-call]
            try:
                answers: list[Any] = await connection.retry.call_with_retry(
                    lambda: _exchange(connection, commands), lambda _: connection.disconnect()
                )
            finally:
                await pool.release(connection)
        return answers

    async def run_whole(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """Run commands on keys of one slot as a transaction: all of them take effect, or none.

        Raises:
            FullError: Redis is at maxmemory; none took effect.
            DependencyError: Redis is away; whether they took effect is not known.
        """
        async with self.translating(str(commands[0][0])):
            pipe = self._client.pipeline(transaction=True)
            for command in commands:
                pipe.execute_command(*command)
            answers: list[Any] = await pipe.execute()
        return answers

    async def wait_for(self, last_seen: dict[str, bytes], block_ms: int = BLOCK_MS) -> bool:
        """Wait until a stream has an entry after the id given, at most a second.

        Args:
            last_seen: id by key; all keys of one slot.
            block_ms: 1 to 1000.
        """
        async with self.translating("wait"):
            found = await self._client.execute_command(
                "XREAD", "COUNT", 1, "BLOCK", block_ms, "STREAMS", *last_seen, *last_seen.values()
            )
        return bool(found)

    async def replication_of(self, keys: Sequence[str]) -> list[dict[str, Any]]:
        """Give `INFO replication` of the node that serves each key."""
        told: dict[str, dict[str, Any]] = {}
        nodes = [self._node_of(key) for key in keys]
        for node in nodes:
            name = node.name if node else ""
            if name not in told:
                where = {"target_nodes": node} if node else {}
                async with self.translating("INFO replication"):
                    answer = await self._client.execute_command("INFO", "replication", **where)
                told[name] = answer
        return [told[node.name if node else ""] for node in nodes]

    def _node_of(self, key: str) -> ClusterNode | None:
        """Give the node of a cluster that serves a key; None where there is one Redis."""
        if not isinstance(self._client, RedisCluster):
            return None
        node = self._client.get_node_from_key(key)
        if node is None:
            raise DependencyError(f"Redis: nobody serves {key}")
        return node

    async def now_ms(self) -> int:
        """Give Redis's clock, Unix ms."""
        async with self.translating("TIME"):
            answer = await self._client.execute_command("TIME", **self._anywhere)
        seconds, micros = _first(answer) if isinstance(answer, dict) else answer
        return int(seconds) * 1000 + int(micros) // 1000

    @asynccontextmanager
    async def translating(self, what: str) -> AsyncIterator[None]:
        """Turn what redis-py raises into our own errors."""
        try:
            yield
        except NoPermissionError as error:
            raise SettingsError(f"Redis refuses {what}: {error}") from error
        except OutOfMemoryError as error:
            raise FullError(f"Redis is full (maxmemory): {what} refused") from error
        except (RedisError, RedisClusterException, OSError) as error:
            raise DependencyError(f"Redis: {what}: {error}") from error
        except _SLIPS as error:
            if not _is_slip(error):
                raise
            raise DependencyError(f"Redis: {what}: connection lost ({error})") from error


async def _exchange(
    connection: AbstractConnection, commands: Sequence[Sequence[Argument]]
) -> list[Any]:
    await connection.send_packed_command(connection.pack_commands(commands))
    answers: list[Any] = []
    for _ in commands:
        try:
            answers.append(await connection.read_response())
        except ResponseError as error:
            answers.append(error)
    return answers


def as_entries(reply: Iterable[Any]) -> list[Raw]:
    """Give the entries of a range as `exchange` gives it."""
    return [(entry_id, dict(zip(flat[::2], flat[1::2], strict=True))) for entry_id, flat in reply]


def _report(stream: str, what: str, lost: int) -> None:
    get_logger().error("deleted_by_others", what=what, stream=stream, counted_lost=lost)


def _first(answer: Any) -> Any:
    """A cluster answers by node; one node is as good as another here."""
    if isinstance(answer, dict) and answer and all(isinstance(v, dict) for v in answer.values()):
        return next(iter(answer.values()))
    return answer


async def retry_while_away(
    action: Callable[[], Awaitable[T]], wait_s: Callable[[float], Awaitable[object]]
) -> T | Literal[False]:
    """Repeat an action while what it needs is away; waits in between with jitter, up to 2 s.

    Args:
        action: may raise DependencyError.
        wait_s: waits the seconds given; returns True to give up.
    """
    pause_s = 0.05
    while True:
        try:
            return await action()
        except DependencyError:
            if await wait_s(random.uniform(pause_s / 2, pause_s)):
                return False
            pause_s = min(2.0, pause_s * 2)
