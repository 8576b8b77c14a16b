"""Worker processes: how they start, stop and fail, seen from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.test_metrics import a_free_port
from workers.slots import take_slot

SIGNALS = [signal.SIGTERM, signal.SIGINT]


@contextmanager
def running(word: str, environ: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.scripted", word],
        env=os.environ | {"PERCIPIO_LOG_FORMAT": "json"} | dict(environ or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def run(word: str, environ: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    with running(word, environ) as process:
        out, errors = process.communicate(timeout=20)
    return process.returncode, out, errors


def until_ready(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    word, consumer = process.stdout.readline().split()
    assert word == "ready"
    return consumer


def test_work_that_is_done_ends_with_0_on_a_fast_loop() -> None:
    code, out, errors = run("done")

    assert (code, out, errors) == (0, "uvloop\n", "")


def test_a_wrong_setting_ends_with_2_and_one_line() -> None:
    code, _, errors = run("done", {"PERCIPIO_PARTITIONS": "0"})

    assert code == 2
    assert errors == "percipio scripted: PERCIPIO_PARTITIONS='0': takes 1 to 1,000\n"


@pytest.mark.parametrize("word", ["away", "group"])
def test_something_that_is_away_ends_with_3_and_one_line_without_secrets(word: str) -> None:
    code, _, errors = run(word)

    assert code == 3
    line = json.loads(errors)
    assert (line["event"], line["worker"]) == ("worker_failed", "scripted")
    assert line["error"] == "no Redis at redis://***@host after 60 s"


def test_a_lost_partition_ends_with_1() -> None:
    code, _, errors = run("fenced")

    assert code == 1
    assert json.loads(errors)["error"] == "p001 has another owner"


def test_what_nobody_foresaw_ends_with_1_and_a_traceback() -> None:
    code, _, errors = run("crash")

    assert code == 1
    assert "ZeroDivisionError: nobody foresaw this" in json.loads(errors)["exception"]


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_drains_and_ends_with_0(number: signal.Signals) -> None:
    with running("drain") as process:
        until_ready(process)
        process.send_signal(number)
        out, errors = process.communicate(timeout=10)

    assert (process.returncode, out) == (0, "drained\n")
    assert json.loads(errors)["signal"] == number.name


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("word", ["stuck", "blocked"])
def test_a_second_signal_ends_it_at_once(word: str, number: signal.Signals) -> None:
    """A shell sees 128 + the signal's number: 143 or 130."""
    with running(word) as process:
        until_ready(process)
        process.send_signal(number)
        assert process.stderr is not None
        assert "stopping" in process.stderr.readline()
        process.send_signal(number)
        process.wait(5)

    assert process.returncode == -number


def test_what_does_not_drain_is_ended_after_the_grace_period() -> None:
    with running("stuck", {"PERCIPIO_GRACE_S": "0.2"}) as process:
        until_ready(process)
        start_s = time.monotonic()
        process.terminate()
        _, errors = process.communicate(timeout=15)

    assert process.returncode == 1
    assert json.loads(errors.splitlines()[-1])["event"] == "grace_exceeded"
    assert time.monotonic() - start_s < 10


def test_metrics_and_readiness_are_served_where_the_settings_say() -> None:
    port = a_free_port()
    with running("wait", {"PERCIPIO_METRICS_PORT": str(port)}) as process:
        until_ready(process)
        assert process.stderr is not None
        served = json.loads(process.stderr.readline())

    assert served["event"] == "metrics_served"
    assert port <= served["port"] < port + 20


def test_a_name_that_was_given_is_used() -> None:
    with running("wait", {"PERCIPIO_CONSUMER": "detect-east-1"}) as process:
        assert until_ready(process) == "detect-east-1"


def test_a_worker_that_was_killed_comes_back_under_its_name(tmp_path: Path) -> None:
    place = {"TMPDIR": str(tmp_path)}
    with running("wait", place) as first:
        name = until_ready(first)
        with running("wait", place) as second:
            other = until_ready(second)
            first.kill()
            first.wait()
            with running("wait", place) as third:
                again = until_ready(third)

    assert (name[-2:], other[-2:]) == ("-0", "-1")
    assert again == name


def test_names_count_from_zero_per_worker(tmp_path: Path) -> None:
    first, second = take_slot("detect", tmp_path), take_slot("detect", tmp_path)
    other = take_slot("score", tmp_path)
    first.lock.close()
    third = take_slot("detect", tmp_path)

    assert first.name.startswith("detect-")
    assert first.name.endswith("-0")
    assert second.name.endswith("-1")
    assert other.name.endswith("-0")
    assert third.name == first.name
    for slot in (second, other, third):
        slot.lock.close()
