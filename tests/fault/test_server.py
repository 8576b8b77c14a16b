"""A Redis that dies, fills up, forgets, or is emptied by others."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import OutOfMemoryError

from pipeline.partition import Keys
from tests.fault.checker import Verdict
from tests.fault.publish import Load, Publisher
from tests.fault.rig import Nursery, Server
from tests.fault.trial import PARTITIONS, Trial

Table = Callable[[str, dict[str, Any]], None]


def _finish(trial: Trial, table: Table, row: str, **facts: object) -> None:
    recovery_s = trial.wait_until_quiet()
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
    with server.connect() as client:
        used = int(client.info("memory")["used_memory"])
        client.config_set("maxmemory", used + 3_000_000)
        filler = _fill(client, trial.keys.of(0).events)
        client.config_set("maxmemory", used)
        trial.fleet.start_many(1, 1)
        trial.wait_until(lambda: trial.owners() and trial.is_quiet())
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
    with server.connect() as client:
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
    with server.connect() as client:
        for number in range(PARTITIONS):
            client.delete(getattr(trial.keys.of(number), stream))
    publisher.join()
    recovery_s = trial.wait_until_quiet()
    ledger = trial.status()["ledger"]
    facts = {name: n for name, n in ledger.items() if "lost" in name}
    status = trial.status()
    verdict = trial.judge()
    if stream == "detections":  # the numbers of frames that were scored are gone with them
        verdict.lost = ledger["detections_lost_trimmed"]
    row = verdict.as_row() | {"recovery_s": round(recovery_s, 1)}
    table(f"stream deleted, nothing kept: {stream}", row | facts | {"epochs": status["epochs"]})
    assert not verdict.doubled
    assert not verdict.reordered
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


@pytest.mark.parametrize("stream", ["events", "recordings"])
def test_a_deleted_stream_is_sent_again(
    trial: Trial, server: Server, table: Table, stream: str
) -> None:
    """What the publisher kept comes again, and what had been done before is a duplicate."""
    trial.fleet.start_many(1, 1, FAKE_INFER_S="0.05")
    trial.wait_until_owned()
    load = Load(streams={"events": 60, "recordings": 20}, per_s=400, apart=True)
    publisher = trial.publish_and_keep(load)
    trial.wait_until(lambda: sum(publisher.sent.values()) > load.total / 2)
    with server.connect() as client:
        for number in range(PARTITIONS):
            client.delete(getattr(trial.keys.of(number), stream))
    trial.wait_until(lambda: trial.status()["epochs"] == PARTITIONS)
    trial.wait_until(lambda: publisher.repeated)
    recovery_s = trial.wait_until_quiet()
    verdict = trial.judge()
    facts = trial.repair() | {"recovery_s": round(recovery_s, 1)}
    table(f"stream deleted, publisher keeps: {stream}", verdict.as_row() | facts)
    assert verdict.is_clean, verdict


def test_everything_is_flushed(trial: Trial, server: Server, table: Table) -> None:
    """FLUSHALL: said loudly, the deployment made anew, and what publishers kept is done again."""
    trial.fleet.start_many(2, 2)
    trial.wait_until_owned()
    load = Load(streams={"events": 60, "recordings": 20}, per_s=300, apart=True)
    publisher = trial.publish_and_keep(load)
    trial.wait_until(lambda: sum(publisher.sent.values()) > load.total / 2)
    with server.connect() as client:
        # one that starts only then makes a deployment where it finds none, and knew of no other
        trial.wait_until(lambda: len(_detect_workers(client)) == 2)
        trial.wait_until(lambda: client.zcard(trial.keys.workers) == 2)
        client.flushall()
    flushed_s = time.monotonic()
    trial.wait_until(lambda: len(trial.owners()) == PARTITIONS and all(trial.owners()))
    anew_s = round(time.monotonic() - flushed_s, 1)
    trial.wait_until(lambda: publisher.repeated)
    recovery_s = trial.wait_until_quiet()
    verdict = trial.judge()
    facts = trial.repair() | {"recovery_s": round(recovery_s, 1)}
    table("FLUSHALL", verdict.as_row() | facts | {"deployment_anew_s": anew_s})
    assert verdict.is_clean, verdict
    words = trial.words()
    assert "deployment_gone" in words
    assert words.count("deployment_made") == 2
    assert sum(words.count(w) for w in ("dependency_down", "commit_delayed")) < 50


def _detect_workers(client: Redis) -> set[bytes]:
    found: set[bytes] = set()
    for number in range(PARTITIONS):
        rows: Any = client.xinfo_consumers(
            Keys(partitions=PARTITIONS).of(number).recordings, "detect"
        )
        found |= {row["name"] for row in rows}
    return found


def _has_repeated(publisher: Publisher, inputs: int) -> bool:
    return publisher.repeated >= inputs


def _cut_places(whole: bytes, dice: random.Random) -> Iterator[int]:
    """Give places inside transactions of the file, commits most of them."""
    commits = [match.start() for match in re.finditer(b"MULTI", whole)]
    while True:
        yield dice.choice(commits) + dice.randrange(20, 4000)


def test_the_aof_is_cut_inside_a_commit(
    trial: Trial,
    server: Server,
    table: Table,
    is_long: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A partition's streams, state and ledger agree whatever is left; the publisher repairs."""
    monkeypatch.setattr("pipeline.kept.ALONE_S", 3600.0)
    trial.fleet.start_many(1, 1)
    load = Load(sources=4, streams={"events": 40, "recordings": 20}, per_s=0, apart=True)
    publisher = trial.publish_and_keep(load)
    trial.wait_until_quiet()
    trial.fleet.stop()
    server.kill()
    path = sorted(server.folder.glob("appendonlydir/*.incr.aof"))[-1]
    whole = path.read_bytes()
    cuts, verdict = 40 if is_long else 8, Verdict()
    for cut in islice(_cut_places(whole, trial.dice), cuts):
        before = publisher.repeated
        path.write_bytes(whole[:cut])
        server.start()
        trial.fleet.start_many(1, 1)
        wanted = before + load.total
        trial.wait_until(partial(_has_repeated, publisher, wanted))
        trial.wait_until_quiet()
        verdict = trial.judge()
        assert verdict.is_clean, (cut, verdict)
        trial.fleet.stop()
        server.kill()
    table("AOF cut inside a commit", verdict.as_row() | {"cuts": cuts})


CLOCK = r"""
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec *at) {
  int failed = syscall(SYS_clock_gettime, id, at);
  const char *ahead = getenv("CLOCK_AHEAD_S");
  if (!failed && id == CLOCK_REALTIME && ahead) at->tv_sec += atol(ahead);
  return failed;
}
int gettimeofday(struct timeval *at, void *zone) {
  struct timespec now;
  int failed = clock_gettime(CLOCK_REALTIME, &now);
  at->tv_sec = now.tv_sec;
  at->tv_usec = now.tv_nsec / 1000;
  return failed;
}
time_t time(time_t *at) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (at) *at = now.tv_sec;
  return now.tv_sec;
}
"""


@pytest.fixture
def clock(tmp_path: Path) -> Path:
    """A library that puts a program's clock ahead."""
    source, library = tmp_path / "clock.c", tmp_path / "clock.so"
    source.write_text(CLOCK)
    if (compiler := shutil.which("cc")) is None:
        pytest.skip("no C compiler")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    return library


def test_the_clock_jumps(trial: Trial, server: Server, table: Table, clock: Path) -> None:
    """Redis comes back with its clock an hour ahead, then an hour behind, workers dying too."""
    trial.fleet.start_many(1, 2)
    trial.wait_until_owned()
    trial.publish(Load(streams={"events": 120, "recordings": 30}, per_s=150))
    for ahead_s in (3600, -3600, 0):
        time.sleep(1.5)
        server.kill()
        server.wrapper = ["env", f"LD_PRELOAD={clock}", f"CLOCK_AHEAD_S={ahead_s}"]
        trial.fleet.kill(trial.fleet.pids("score")[0])
        server.start()
        trial.fleet.revive()
    _finish(trial, table, "clock skew: Redis 1 h ahead, 1 h behind, right again")


@pytest.fixture
def skewed(server: Server, clock: Path, tmp_path: Path, fault_seed: int) -> Iterator[Trial]:
    """A deployment whose workers' clocks may be set."""
    nursery = Nursery(tmp_path, {"LD_PRELOAD": str(clock)})
    trial = Trial(server.url, nursery, fault_seed, server.connect)
    yield trial
    trial.end()
    nursery.close()


def test_the_clocks_of_workers_are_wrong(skewed: Trial, table: Table, tmp_path: Path) -> None:
    """An hour ahead and an hour behind they take over from each other; no frame looks old."""
    trial = skewed
    ahead, behind = ({"CLOCK_AHEAD_S": str(s), **STRICT} for s in (3600, -3600))
    trial.fleet.start_many(1, 1, **ahead)
    for kind in ("detect", "score"):
        trial.fleet.start(kind, f"{kind}-behind", **behind)
    trial.wait_until_owned()
    trial.publish(Load(streams={"events": 120, "recordings": 30, "frames": 30}, per_s=200))
    for clock in (behind, ahead, behind):
        time.sleep(1.0)
        victims = [trial.fleet.pids(kind)[0] for kind in ("detect", "score")]
        for pid in victims:
            trial.fleet.kill(pid)
        trial.wait_until(lambda pids=victims, clock=clock: is_replaced(trial, pids, clock))  # type: ignore[misc]
    hours = {line[11:13] for log in tmp_path.glob("*.log") for line in log.read_text().splitlines()}
    assert len(hours) >= 2, "no clock was wrong"
    _finish(trial, table, "clock skew: workers 1 h ahead and 1 h behind", kills=trial.fleet.kills)


STRICT = {"PERCIPIO_FRAME_MAX_AGE_MS": "60000"}


def is_replaced(trial: Trial, pids: list[int], clock: dict[str, str]) -> bool:
    """Start what has ended with another clock; whether all of these have."""
    trial.fleet.revive(**clock)
    return not set(pids) & set(trial.fleet.alive)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_the_disk_is_full(
    small_disk: Path, program: str, nursery: Nursery, fault_seed: int, table: Table
) -> None:
    """Redis refuses writes while it cannot append; then all goes on."""
    options = ["--appendfsync", "everysec"]  # with `always` Redis ends itself
    server = Server(small_disk / "redis", program, options)
    server.start()
    trial = Trial(server.url, nursery, fault_seed, server.connect)
    try:
        trial.fleet.start_many(1, 1)
        trial.wait_until_owned()
        trial.publish(Load(streams={"events": 100, "recordings": 30}, per_s=150))
        time.sleep(1.0)
        filler = small_disk / "filler"
        with suppress(OSError), open(filler, "wb") as out:
            while True:
                out.write(b"x" * 65536)
                out.flush()
        time.sleep(4.0)
        assert trial.publisher is not None
        with server.client as client:
            is_refusing = client.info("persistence")["aof_last_write_status"] == "err"
        filler.unlink()
        _finish(trial, table, "disk full for 4 s", refused=is_refusing)
        assert is_refusing
    finally:
        trial.end()
        server.kill()
