"""What a fleet is asked for: numbers, bounds, versions, and when running workers may stay."""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from pipeline.errors import DependencyError, SettingsError
from pipeline.partition import Keys
from pipeline.stream import Store
from workers.fleet.local import folder_of
from workers.fleet.pins import differences, pins_here
from workers.fleet.spec import (
    Role,
    Spec,
    default_role,
    forget_spec,
    read_spec,
    write_count,
    write_spec,
)
from workers.ray import add_arguments, bounds, roles_of

SPEC = Spec(
    {name: default_role(name) for name in ("detect", "score")},
    {"detect": 1, "score": 1},
    environ={"PERCIPIO_PARTITIONS": "4"},
    pins={"code": "0123"},
)


@pytest.mark.parametrize(("text", "wanted"), [("4", (4, 4)), ("1..8", (1, 8)), ("0", (0, 0))])
def test_numbers_and_bounds_are_read(text: str, wanted: tuple[int, int]) -> None:
    assert bounds(text) == wanted


@pytest.mark.parametrize("text", ["", "-1", "4..1", "1..", "a", "1...2", "123456"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"takes|first"):
        bounds(text)


def test_what_is_not_said_stays_as_it_was() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args(["up", "--score", "1..4", "--detect-gpus", "0.5"])
    known = {"detect": Role("m", 2, 2, cpus=3), "score": Role("m", 2, 2, memory_bytes=5)}

    found = roles_of(args, known)

    assert found["detect"] == replace(known["detect"], gpus=0.5)
    assert found["score"] == replace(known["score"], least=1, most=4)


@pytest.mark.parametrize(
    "wrong", [{"least": 2, "most": 1}, {"least": -1}, {"cpus": -0.5}, {"target_s": 0}]
)
def test_a_role_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        replace(default_role("score"), **wrong)


def test_a_stopped_fleet_wants_nobody() -> None:
    assert SPEC.wanted("score") == 1
    assert replace(SPEC, stopped=True).wanted("score") == 0


def test_only_other_work_replaces_workers() -> None:
    """More of them, or another target, leaves those that run as they are."""
    more = {**SPEC.roles, "score": replace(SPEC.roles["score"], most=9, target_s=3)}
    bigger = {**SPEC.roles, "score": replace(SPEC.roles["score"], cpus=2)}

    assert SPEC.is_same_work(replace(SPEC, roles=more, counts={"score": 9}))
    assert not SPEC.is_same_work(replace(SPEC, roles=bigger))
    assert not SPEC.is_same_work(replace(SPEC, environ={}))
    assert not SPEC.is_same_work(replace(SPEC, pins={"code": "4567"}))


async def test_redis_keeps_what_is_wanted(redis: Redis, redis_url: str) -> None:
    """Without the URL, which may hold a password; a count changes by itself."""
    async with Store.open(redis_url, Keys()) as store:
        assert await read_spec(store) is None

        await write_spec(store, SPEC)
        await write_count(store, "score", 3)
        found = await read_spec(store)
        await forget_spec(store)

        assert found == replace(SPEC, counts={"detect": 1, "score": 3})
        assert await read_spec(store) is None


async def test_what_another_version_wrote_is_named(redis: Redis, redis_url: str) -> None:
    async with Store.open(redis_url, Keys()) as store:
        await redis.hset("percipio:fleet", "spec", '{"roles": {}, "novelty": 1}')

        with pytest.raises(SettingsError, match="percipio:fleet was written by another version"):
            await read_spec(store)


def test_versions_are_compared_by_name() -> None:
    here = pins_here()

    assert differences(here, here) is None
    assert differences({"numba": "0", "new": "1"}, {"numba": "1"}) == (
        "new missing, wanted 1; numba 1, wanted 0"
    )
    assert len(here["code"]) == 12


def test_the_folder_of_a_local_cluster_is_short_enough_for_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    long, other = folder_of("a-prefix-of-many-letters"), folder_of("a-prefix-of-many-others")

    assert folder_of("percipio").name == "percipio"
    assert long != other
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(DependencyError, match="TMPDIR"):
        folder_of("percipio")
