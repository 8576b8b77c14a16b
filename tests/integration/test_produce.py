"""The commands `produce` and `watch`, and `percipio` itself, as a user meets them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from redis import Redis as SyncRedis

from pipeline.embedded import EmbeddedRedis
from pipeline.partition import Keys
from tests.conftest import url_of
from workers.main import COMMANDS, main

KEYS = Keys().of(7)
SUMMARY = {"source", "stream", "published", "bytes", "invalid", "seconds", "held_back_s", "lost"}


@pytest.fixture
def redis(
    redis_server: EmbeddedRedis, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Any:
    monkeypatch.setenv("PERCIPIO_REDIS_URL", url_of(redis_server, request.config))
    monkeypatch.setenv("PERCIPIO_WAIT_FOR_REDIS_S", "0")
    with SyncRedis.from_url(redis_server.url) as redis:
        redis.flushall()
        redis.hset("percipio:config", mapping={"partitions": 16, "contract": 1})
        yield redis


@pytest.fixture
def video(tmp_path: Path) -> str:
    path = str(tmp_path / "ten.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"MJPG"), 20, (64, 48))
    for n in range(10):
        writer.write(np.full((48, 64, 3), 20 * n, np.uint8))
    writer.release()
    return path


def produce(what: str, *words: str) -> int:
    return main(["produce", what, "--source", "robot-7", *words])


def times_of(redis: Any, stream: str) -> list[int]:
    return [int(fields[b"ts"]) for _, fields in redis.xrange(stream)]


def test_a_video_goes_to_recordings_in_real_time(
    redis: Any, video: str, capsys: pytest.CaptureFixture[str]
) -> None:
    began_s = time.monotonic()
    code = produce("frames", "--input", video, "--json")

    summary = json.loads(capsys.readouterr().out)
    assert (code, set(summary)) == (0, SUMMARY)
    assert (summary["published"], summary["stream"], summary["lost"]) == (10, "recordings", 0)
    assert time.monotonic() - began_s > 0.45
    gaps = np.diff(times_of(redis, KEYS.recordings))
    assert gaps.tolist() == [50] * 9


def test_as_fast_as_possible_keeps_the_times_of_the_film(redis: Any, video: str) -> None:
    code = produce("frames", "--input", video, "--as-fast-as-possible")

    times = times_of(redis, KEYS.recordings)
    seconds, micros = redis.time()
    now_ms = seconds * 1000 + micros / 1000
    assert code == 0
    assert np.diff(times).tolist() == [50] * 9
    assert now_ms - 10_000 < times[0] < times[-1] < now_ms


def test_live_sends_a_file_as_a_camera_would_and_loops(redis: Any, video: str) -> None:
    code = produce("frames", "--input", video, "--live", "--loop", "--fps", "500", "--limit", "25")

    assert code == 0
    assert (redis.xlen(KEYS.frames), redis.xlen(KEYS.recordings)) == (25, 0)


def test_pictures_that_are_none_are_named_and_left_out(
    redis: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    for name, data in {"1.png": good, "2.png": good[:20], "3.png": good}.items():
        (tmp_path / name).write_bytes(data)

    code = produce("frames", "--input", str(tmp_path))
    captured = capsys.readouterr()

    assert (code, redis.xlen(KEYS.recordings)) == (0, 2)
    assert "picture 2: " in captured.err
    assert "1 not valid" in captured.out
    assert produce("frames", "--input", str(tmp_path), "--strict") == 1


def test_events_of_a_file_with_bad_lines(
    redis: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "e.jsonl"
    lines = ['{"ts": 5, "values": {"a": 1}}', "x", '{"values": {"a": NaN}}', '{"values": {"b": 2}}']
    file.write_text("\n".join(lines))

    code = produce("events", "--input", str(file), "--json")
    captured = capsys.readouterr()

    summary = json.loads(captured.out)
    assert (code, summary["published"], summary["invalid"]) == (0, 2, 2)
    assert "line 2: not JSON" in captured.err
    assert "line 3: values: a is nan" in captured.err
    assert produce("events", "--input", str(file), "--strict") == 1
    file.write_text('{"values": {"a": null}}\n')
    assert produce("events", "--input", str(file)) == 1


def test_many_events_of_csv(redis: Any, tmp_path: Path) -> None:
    file = tmp_path / "e.csv"
    rows = [f"{n},m,{n / 2}" for n in range(5000)]
    file.write_text("ts,channel,value\n" + "\n".join(rows) + "\n")

    assert produce("events", "--input", str(file)) == 0
    assert times_of(redis, KEYS.events) == list(range(5000))


def test_events_in_real_time_keep_their_distance(redis: Any, tmp_path: Path) -> None:
    file = tmp_path / "e.csv"
    file.write_text("ts,channel,value\n1000,m,1\n1200,m,2\n1400,m,3\n")

    assert produce("events", "--input", str(file), "--real-time") == 0

    added_ms = [int(entry_id.split(b"-")[0]) for entry_id, _ in redis.xrange(KEYS.events)]
    assert added_ms[2] - added_ms[0] >= 350


def test_standard_input_is_published_as_it_comes(redis: Any) -> None:
    command = [sys.executable, "-m", "workers.main", "produce", "events"]
    with subprocess.Popen(
        [*command, "--source", "robot-7", "--input", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        for n in (1, 2):
            process.stdin.write(f'{{"values": {{"n": {n}}}}}\n')
            process.stdin.flush()
            wait_for_length(redis, n)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)

    assert process.returncode == 130
    assert "robot-7: 2 to events" in out


def wait_for_length(redis: Any, least: int) -> None:
    deadline_s = time.monotonic() + 20
    while redis.xlen(KEYS.events) < least:
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["produce", "frames", "--source", "a b", "--input", "x"], 2),
        (["produce", "frames", "--source", "s", "--input", "x", "--fps", "0"], 2),
        (["produce", "events", "--source", "s", "--input", "/does/not/exist"], 2),
        (["produce"], 2),
        (["nonsense"], 2),
        ([], 2),
        (["--help"], 0),
        (["--version"], 0),
        (["watch", "--help"], 0),
    ],
)
def test_usage(words: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        ended = main(words)
    except SystemExit as end:
        ended = int(end.code or 0)

    assert ended == code
    assert any(capsys.readouterr())


def test_redis_away_is_exit_3_and_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PERCIPIO_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("PERCIPIO_WAIT_FOR_REDIS_S", "0")

    assert main(["watch"]) == 3
    assert capsys.readouterr().err.startswith("percipio: Redis at redis://127.0.0.1:1/0 does not")


def test_a_setting_that_does_not_exist_is_exit_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PERCIPIO_REDIS_ULR", "x")

    assert main(["watch"]) == 2
    assert "PERCIPIO_REDIS_ULR is not a setting" in capsys.readouterr().err


def test_help_lists_every_command_and_loads_nothing_heavy() -> None:
    code = "import sys; from workers.main import main\ntry: main(['--help'])\nexcept SystemExit: "
    code += "print(sorted({'numpy', 'redis', 'rich', 'cv2', 'torch'} & sys.modules.keys()))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert out.stdout.splitlines()[-1] == "[]"
    assert all(f"    {name} " in out.stdout for name in COMMANDS)


def test_watch_prints_lines_and_json(redis: Any, capsys: pytest.CaptureFixture[str]) -> None:
    score = {"v": 1, "source": "robot-7", "kind": "event", "n": 3, "inputs": 1, "ts": 1000}
    score |= {"level": "0.2500", "phase": "awakening", "transition": "dormant>awakening"}
    redis.xadd(KEYS.scores, score)
    redis.xadd(KEYS.detections, {"v": 1, "source": "robot-7", "ts": 1000, "labels": "car:3,bus:1"})

    assert main(["watch", "--all", "--count", "1", "--kind", "scores"]) == 0
    assert main(["watch", "--all", "--count", "1", "--kind", "detections"]) == 0
    assert main(["watch", "--all", "--count", "2", "--json", "--source", "robot-7"]) == 0
    score_line, detection_line, *rows = capsys.readouterr().out.splitlines()

    assert score_line.endswith("score 0.2500 awakening (dormant>awakening), event, n=3")
    assert "found car:3 bus:1" in detection_line
    assert {json.loads(row)["result"] for row in rows} == {"scores", "detections"}


def test_a_reader_that_goes_away_ends_watch_quietly(redis: Any) -> None:
    for n in range(3000):
        redis.xadd(KEYS.scores, {"v": 1, "source": "robot-7", "ts": n, "level": "0.1", "n": n})
    command = f"{sys.executable} -m workers.main watch --all | head -1"

    done = subprocess.run(command, shell=True, capture_output=True, timeout=30, check=False)

    assert done.stdout.count(b"\n") == 1
    assert done.stderr == b""
