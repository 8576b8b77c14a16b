"""The users of deploy/users.acl do their job and no more; and a Redis behind TLS."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from redis import Redis
from redis.exceptions import NoPermissionError

from pipeline import Client
from pipeline.dead import list_dead, replay_dead
from pipeline.deployment import find_deployment
from pipeline.image import encode_jpeg
from pipeline.ledger import read_status
from pipeline.partition import Keys
from pipeline.stream import Store
from tests.conftest import Worker, eventually
from tests.fault.rig import Server, executable, free_port

USERS = Path(__file__).parents[2] / "deploy" / "users.acl"
KEYS = Keys(partitions=1)
NAMES = KEYS.of(0)
EVENT = {"source": "a", "channel": "motion", "value": "0.5"}
DENIED: dict[str, list[tuple[str | int, ...]]] = {
    "publisher": [
        ("XRANGE", NAMES.events, "-", "+"),
        ("XTRIM", NAMES.events, "MAXLEN", 0),
        ("XDEL", NAMES.frames, "1-1"),
        ("DEL", NAMES.events),
        ("XADD", NAMES.scores, "*", "a", "b"),
        ("HSET", NAMES.state("a"), "level", "1"),
        ("HGETALL", NAMES.state("a")),
        ("HSET", KEYS.config, "partitions", "3"),
        ("XADD", "other", "*", "a", "b"),
    ],
    "reader": [
        ("XADD", NAMES.events, "*", "a", "b"),
        ("XRANGE", NAMES.frames, "-", "+"),
        ("GET", NAMES.memory("a")),
        ("XREADGROUP", "GROUP", "detect", "x", "STREAMS", NAMES.frames, ">"),
        ("DEL", NAMES.scores),
        ("HSET", NAMES.state("a"), "level", "1"),
    ],
    "worker": [
        ("FLUSHALL",),
        ("FUNCTION", "FLUSH"),
        ("CONFIG", "SET", "maxmemory", "1"),
        ("KEYS", "*"),
        ("EVAL", "return 1", 0),
        ("SET", "other", "1"),
        ("SHUTDOWN",),
    ],
    "operator": [
        ("FLUSHALL",),
        ("FUNCTION", "FLUSH"),
        ("CONFIG", "SET", "maxmemory", "1"),
        ("KEYS", "*"),
        ("XTRIM", NAMES.scores, "MAXLEN", 0),
        ("XGROUP", "DESTROY", NAMES.events, "score"),
        ("GET", "other"),
    ],
}


@pytest.fixture
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    server = Server(tmp_path, executable(request.config.getoption("--redis-server")))
    server.start()
    with server.client as client:
        for line in USERS.read_text().splitlines():
            _, name, *rules = line.split()
            if name != "default":
                client.execute_command("ACL SETUSER", name, *rules)
    yield server
    server.kill()


def _url(server: Server, user: str) -> str:
    return f"redis://{user}:change-{user}@127.0.0.1:{server.port}/0"


@pytest.mark.parametrize("user", list(DENIED))
async def test_a_user_may_do_no_more(server: Server, user: str) -> None:
    async with Store.open(_url(server, "worker"), KEYS):
        pass
    with Redis.from_url(_url(server, user)) as client:
        for command in DENIED[user]:
            with pytest.raises(NoPermissionError):
                client.execute_command(*command)


async def test_each_user_does_its_job(server: Server, worker: Worker) -> None:
    """An event goes all the way; a bad one is replayed by the operator."""
    environ = {"PERCIPIO_REDIS_URL": _url(server, "worker"), "PERCIPIO_PARTITIONS": "1"}
    worker("tests.fault.fake_detect", environ)
    worker("score", environ)
    with Redis.from_url(_url(server, "reader")) as reader:
        await eventually(lambda: reader.hgetall(KEYS.config), 50)
        with Redis.from_url(_url(server, "publisher")) as publisher:
            publisher.xadd(NAMES.events, EVENT)
            publisher.xadd(NAMES.recordings, {"source": "a", "image": b"F|1|"})
            publisher.xadd(NAMES.events, EVENT | {"source": "?"})
        await eventually(lambda: reader.hget(NAMES.state("a"), "seq") == b"2", 30)
        assert reader.xread({NAMES.detections: "0"})
    async with find_deployment(_url(server, "operator"), KEYS.prefix) as store:
        assert [await replay_dead(store, one.name) async for one in list_dead(store)]
        status = await read_status(store)
    assert status.terms["events_in"] == 3


async def test_the_sdk_publishes_and_reads_as_these_users(server: Server) -> None:
    async with Store.open(_url(server, "worker"), KEYS) as store:
        async with Client(_url(server, "publisher"), keep_bytes=1 << 20) as publisher:
            await publisher.publish_event("a", {"motion": 0.5})
            await publisher.publish_frame("a", encode_jpeg(np.zeros((8, 8, 3), np.uint8)))
            await asyncio.sleep(0.6)  # it has looked after what it keeps
            assert (publisher.kept, publisher.sent, publisher.problem) == (2, 2, None)
        async with Client(_url(server, "reader")) as reader:
            found = asyncio.create_task(anext(reader.follow(after="0")))
            await store.run(
                "XADD", NAMES.scores, "*", "v", 1, "source", "a", "ts", 5, "data", b"\x80"
            )
            assert (await asyncio.wait_for(found, 10)).source == "a"
            assert (await reader.sources(), await reader.state("a")) == ([], None)


def _knows_tls(program: str) -> bool:
    return b"SSL_CTX_new" in Path(program).read_bytes()


def _certify(folder: Path, name: str) -> None:
    """Make a key and a certificate for the loopback address."""
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")]
    subprocess.run(command, check=True, capture_output=True)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of asyncio's TLS
async def test_a_redis_behind_tls(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """rediss:// with a certificate of one's own, checked; another one is refused."""
    _certify(tmp_path, "right")
    _certify(tmp_path, "wrong")
    port, pem, key = free_port(), tmp_path / "right.pem", tmp_path / "right.key"
    options = ["--tls-port", str(port), "--tls-cert-file", str(pem), "--tls-key-file", str(key)]
    options += ["--tls-ca-cert-file", str(pem), "--tls-auth-clients", "no"]
    program = executable(request.config.getoption("--redis-server"))
    if not _knows_tls(program):
        pytest.skip("this server is built without TLS")
    server = Server(tmp_path / "redis", program, options)
    server.start()
    try:
        url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={tmp_path}"
        async with Store.open(f"{url}/right.pem", KEYS) as store:
            assert await store.now_ms() > 0
        with pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED"):
            async with Store.open(f"{url}/wrong.pem", KEYS):
                pass
    finally:
        server.kill()
