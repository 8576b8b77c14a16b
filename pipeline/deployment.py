"""A deployment that others have made: finding it, and what it says of its sources."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from pipeline.errors import DependencyError, SettingsError
from pipeline.log import get_logger
from pipeline.partition import Keys
from pipeline.results import read_state
from pipeline.stream import CONTRACT, Argument, Store, hide_password, make_client, refusal

log = get_logger()

_MENTION_S = 2.0


@asynccontextmanager
async def find_deployment(url: str, prefix: str, wait_s: float = 0.0) -> AsyncIterator[Store]:
    """Connect to a deployment and look up its number of partitions; writes nothing.

    Args:
        url: of CONTRACT 7.
        prefix: what every key starts with.
        wait_s: how long Redis, and a first worker, may take to be there.

    Raises:
        DependencyError: Redis is away, or has no such deployment.
        SettingsError: the deployment follows another contract.
    """
    client = make_client(url)
    try:
        store = Store(client, Keys(prefix))
        keys = await _wait_for_keys(store, hide_password(url), wait_s)
        yield Store(client, keys)
    finally:
        await client.aclose()


async def _wait_for_keys(store: Store, where: str, wait_s: float) -> Keys:
    began_s, is_mentioned = time.monotonic(), False
    while True:
        try:
            return await _read_keys(store, where)
        except DependencyError as error:
            waited_s = time.monotonic() - began_s
            if waited_s >= wait_s:
                raise
            if waited_s > _MENTION_S and not is_mentioned:
                log.warning("waiting_for_deployment", error=str(error), longest_s=wait_s)
                is_mentioned = True
        await asyncio.sleep(random.uniform(0.1, 0.5))


async def _read_keys(store: Store, where: str) -> Keys:
    try:
        found = await store.run("HGETALL", store.keys.config)
    except DependencyError as error:
        raise DependencyError(
            f"Redis at {where} does not answer ({error}); start it, or set PERCIPIO_REDIS_URL"
        ) from error
    config = store.keys.config
    if not found:
        raise DependencyError(
            f"no deployment at {where}: {config} is not there; start one with `percipio up`, "
            "or its workers with `percipio detect` and `percipio score`"
        )
    try:
        contract, partitions = int(found[b"contract"]), int(found[b"partitions"])
    except (KeyError, ValueError) as error:
        raise SettingsError(f"{config} does not say contract and partitions") from error
    if contract != CONTRACT:
        raise SettingsError(f"{config} follows contract {contract}, this is {CONTRACT}")
    return Keys(store.keys.prefix, partitions)


async def list_sources(store: Store) -> list[str]:
    """List the sources of all partitions, by name."""
    keys = [store.keys.of(part).sources for part in range(store.keys.partitions)]
    found = await _run_many(store, [("ZRANGE", key, 0, -1) for key in keys])
    return sorted(name.decode() for names in found for name in names)


async def read_states(store: Store, sources: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read the cached states of those of `sources` that have one."""
    keys = [store.keys.of_source(name).state(name) for name in sources]
    found = await _run_many(store, [("HGETALL", key) for key in keys])
    return {name: read_state(row) for name, row in zip(sources, found, strict=True) if row}


async def _run_many(store: Store, commands: Sequence[Sequence[Argument]]) -> list[Any]:
    answers = await store.run_many(commands)
    for answer, command in zip(answers, commands, strict=True):
        if isinstance(answer, Exception):
            raise refusal(answer, str(command[1])) from answer
    return answers
