"""What stops a process before it starts, and what it says (contract, sections 2, 5 and 7)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.conftest import Ground
from tests.streams import Streams

WORKERS = ["workers.detect", "workers.score"]
USAGE, AWAY = 2, 3


def run(module: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=os.environ | environ,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize("command", [[worker] for worker in WORKERS] + [["workers.main", "status"]])
async def test_another_number_of_partitions_is_refused_with_both_numbers(
    score_only: Streams, ground: Ground, command: list[str]
) -> None:
    ended = run(*command, PERCIPIO_REDIS_URL=ground.url, PERCIPIO_PARTITIONS="7")

    said = ended.stdout + ended.stderr
    assert ended.returncode == USAGE, said
    assert "16" in said
    assert "7" in said
    config = await score_only.redis.hgetall("percipio:config")
    assert config[b"partitions"] == b"16"


@pytest.mark.parametrize("module", [*WORKERS, "workers.main"])
def test_a_setting_that_does_not_exist_is_named(module: str) -> None:
    command = ["status"] if module == "workers.main" else []

    ended = run(module, *command, PERCIPIO_PARTITION="16")

    assert ended.returncode == USAGE
    assert "PERCIPIO_PARTITION" in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PERCIPIO_PARTITIONS", "0"),
        ("PERCIPIO_PARTITIONS", "1001"),
        ("PERCIPIO_PARTITIONS", "many"),
        ("PERCIPIO_REDIS_URL", "http://127.0.0.1"),
        ("PERCIPIO_KEY_PREFIX", "a{b}"),
        ("PERCIPIO_IMAGE_SIZE", "100"),
        ("PERCIPIO_CONFIDENCE", "1.5"),
        ("PERCIPIO_IOU", "nan"),
        ("PERCIPIO_BATCH_SIZE", "0"),
        ("PERCIPIO_DEVICE", "tpu"),
        ("PERCIPIO_RUNTIME", "caffe"),
        ("PERCIPIO_FRAME_MAX_AGE_MS", "-1"),
        ("PERCIPIO_RESULTS_KEEP", "-1"),
        ("PERCIPIO_STATE_TTL_S", "never"),
        ("PERCIPIO_METRICS_PORT", "70000"),
    ],
)
def test_a_value_out_of_range_is_named(name: str, value: str) -> None:
    ended = run("workers.main", "status", **{name: value})

    said = ended.stdout + ended.stderr
    assert ended.returncode == USAGE, said
    assert name in said


@pytest.mark.parametrize("module", WORKERS)
def test_a_worker_waits_for_redis_and_then_says_that_it_is_away(
    module: str, tmp_path: Path
) -> None:
    url = f"unix://{tmp_path}/away.sock"

    ended = run(module, PERCIPIO_REDIS_URL=url, PERCIPIO_WAIT_FOR_REDIS_S="1")

    said = ended.stdout + ended.stderr
    assert ended.returncode == AWAY, said
    assert url in said


@pytest.mark.parametrize("arguments", [["status"], ["watch", "--count", "1"], ["dead", "list"]])
def test_a_command_says_that_redis_is_away(arguments: list[str], tmp_path: Path) -> None:
    ended = run(
        "workers.main",
        *arguments,
        PERCIPIO_REDIS_URL=f"unix://{tmp_path}/away.sock",
        PERCIPIO_WAIT_FOR_REDIS_S="1",
    )

    assert ended.returncode == AWAY, ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["watch", "--count", "some"],
        ["dead", "show"],
        ["dead", "show", "1234-0"],
        ["produce", "events", "--source", "no name", "--input", "-"],
        ["produce", "frames", "--input", "cars.mp4"],
    ],
    ids=" ".join,
)
async def test_wrong_usage_is_2(score_only: Streams, ground: Ground, arguments: list[str]) -> None:
    ended = run("workers.main", *arguments, PERCIPIO_REDIS_URL=ground.url)

    assert ended.returncode == USAGE, ended.stdout + ended.stderr
    assert ended.stderr
    assert "Traceback" not in ended.stderr
    assert await score_only.redis.ping()
