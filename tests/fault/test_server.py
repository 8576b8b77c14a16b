"""A Redis that dies, fills up, forgets, or is emptied by others."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import OutOfMemoryError

from tests.fault.publish import Load
from tests.fault.rig import Server
from tests.fault.trial import PARTITIONS, Trial, client_of

Table = Callable[[str, dict[str, Any]], None]


def _finish(trial: Trial, table: Table, row: str, **facts: object) -> None:
    recovery_s = trial.wait_until_quiet(90)
    verdict = trial.judge()
    table(row, verdict.as_row() | facts | {"recovery_s": round(recovery_s, 1)})
    assert verdict.is_clean, verdict


def test_redis_is_killed(trial: Trial, server: Server, table: Table, is_long: bool) -> None:
    """Kill -9 of Redis with AOF, workers dying too."""
    kills = 12 if is_long else 4
    trial.fleet.start_many(2, 2)
    per_s = 150.0
    trial.publish(Load(streams={"events": int(kills * 22), "recordings": kills * 5}, per_s=per_s))
    for number in range(kills):
        time.sleep(trial.dice.uniform(0.5, 1.5))
        server.kill()
        if number % 2:
            trial.fleet.kill(trial.dice.choice(list(trial.fleet.alive)))
        time.sleep(trial.dice.uniform(0.0, 0.5))
        server.start()
        trial.fleet.revive()
    _finish(trial, table, "Redis kill -9, AOF", redis_kills=kills, kills=trial.fleet.kills)


def _fill(client: Redis, key: str) -> int:
    """Add junk until Redis refuses it; gives how many entries it took."""
    for count in range(10_000):
        try:
            client.xadd(key, {"source": "x", "junk": b"x" * 20_000})
        except OutOfMemoryError:
            return count
    raise AssertionError("never full")


def test_memory_runs_out(trial: Trial, server: Server, table: Table) -> None:
    """Producers are refused, workers that start then drain, and producers go on."""
    trial.fleet.start_many(1, 1)
    trial.wait_until_owned()
    assert trial.fleet.stop() == [0, 0]
    trial.publish(Load(streams={"events": 20, "recordings": 10}, per_s=0)).join()
    with client_of(server.port) as client:
        used = int(client.info("memory")["used_memory"])
        client.config_set("maxmemory", used + 3_000_000)
        filler = _fill(client, trial.keys.of(0).events)
        client.config_set("maxmemory", used)
        trial.fleet.start_many(1, 1)
        trial.wait_until(lambda: trial.owners() and trial.is_quiet(), 60)
        assert client.info("stats")["total_error_replies"] > 0
        client.config_set("maxmemory", 0)
    trial.wait_until_quiet()
    verdict = trial.judge_with_junk(filler)
    table("out of memory", verdict.as_row() | {"junk": filler})
    assert verdict.is_clean, verdict


def test_functions_are_flushed(trial: Trial, server: Server, table: Table) -> None:
    """FUNCTION FLUSH, again and again: loaded anew, nothing lost."""
    trial.fleet.start_many(1, 2)
    trial.wait_until_owned()
    trial.publish(Load(streams={"events": 80, "recordings": 30}, per_s=200))
    with client_of(server.port) as client:
        for _ in range(5):
            time.sleep(0.4)
            client.function_flush("SYNC")
    _finish(trial, table, "FUNCTION FLUSH, 5 times")


@pytest.mark.parametrize("stream", ["events", "recordings", "detections"])
def test_a_stream_is_deleted(trial: Trial, server: Server, table: Table, stream: str) -> None:
    """What was in it is counted as lost, the ledger balances, and what comes after is done."""
    trial.fleet.start_many(1, 1, FAKE_INFER_S="0.1")
    trial.wait_until_owned()
    load = Load(streams={"events": 60, "recordings": 30}, per_s=0)
    publisher = trial.publish(load)
    time.sleep(0.5)
    with client_of(server.port) as client:
        for number in range(PARTITIONS):
            client.delete(getattr(trial.keys.of(number), stream))
    publisher.join()
    recovery_s = trial.wait_until_quiet(60)
    ledger = trial.status()["ledger"]
    facts = {name: n for name, n in ledger.items() if "lost" in name}
    status = trial.status()
    row = {"inputs": load.total, "recovery_s": round(recovery_s, 1)}
    table(f"stream deleted: {stream}", row | facts | {"epochs": status["epochs"]})
    assert status["balanced"], status["difference"]
    assert not status["in_flight"]
    assert status["epochs"] > 0
    before = sum(ledger[name] for name in ("events_scored", "frames_scored"))
    again = Load(streams={"events": 20, "recordings": 10}, per_s=0)
    trial.seed += 1
    trial.publish(again)
    trial.wait_until_quiet()
    ledger = trial.status()["ledger"]
    after = sum(ledger[name] for name in ("events_scored", "frames_scored"))
    assert after - before == again.total


def test_everything_is_flushed(trial: Trial, server: Server, table: Table) -> None:
    """FLUSHALL: said loudly, the deployment made anew, and what comes after is done."""
    trial.fleet.start_many(2, 2)
    trial.wait_until_owned()
    trial.publish(Load(streams={"events": 60, "recordings": 30}, per_s=0)).join()
    with client_of(server.port) as client:
        client.flushall()
    flushed_s = time.monotonic()
    trial.wait_until(lambda: len(trial.owners()) == PARTITIONS and all(trial.owners()))
    trial.seed += 1
    trial.publish(Load(streams={"events": 30, "recordings": 10}, per_s=0)).join()
    facts = {"deployment_anew_s": round(time.monotonic() - flushed_s, 1)}
    _finish(trial, table, "FLUSHALL", **facts)
    words = "".join(log.read_text() for log in trial.nursery.folder.glob("*.log"))
    assert "deployment_gone" in words
    assert sum(words.count(w) for w in ("dependency_down", "commit_delayed")) < 200


def test_the_aof_is_cut_inside_a_commit(
    trial: Trial, server: Server, table: Table, is_long: bool
) -> None:
    """Whatever is left of the file, a partition's streams, state and ledger agree."""
    trial.fleet.start_many(1, 1)
    trial.publish(Load(sources=4, streams={"events": 40, "recordings": 20}, per_s=0))
    trial.wait_until_quiet()
    trial.fleet.stop()
    server.kill()
    path = sorted(server.folder.glob("appendonlydir/*.incr.aof"))[-1]
    whole = path.read_bytes()
    commits = [match.start() for match in re.finditer(b"MULTI", whole)]
    cuts = 40 if is_long else 8
    for _ in range(cuts):
        path.write_bytes(whole[: trial.dice.choice(commits) + trial.dice.randrange(20, 4000)])
        server.start()
        trial.fleet.start_many(1, 1)
        trial.wait_until(trial.is_quiet, 60)
        verdict = trial.judge()
        verdict.lost = 0  # what the file lost had been acknowledged
        verdict.problems = [text for text in verdict.problems if "no detections of" not in text]
        assert verdict.is_clean, verdict
        trial.fleet.stop()
        server.kill()
    table("AOF cut inside a commit", {"cuts": cuts, "consistent": cuts})
