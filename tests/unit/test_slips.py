"""What redis-py raises when a connection goes while it is used is an outage."""

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator

import pytest
import uvloop
from redis.asyncio import Redis
from redis.asyncio.connection import Connection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from pipeline.errors import DependencyError, SettingsError
from pipeline.partition import Keys
from pipeline.stream import Store, make_client, refusal

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@pytest.fixture
def resetting_port() -> Iterator[int]:
    """Of a server that resets every connection as soon as it is made."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)

    def serve() -> None:
        while True:
            try:
                accepted, _ = listener.accept()
            except OSError:
                return
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            accepted.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def test_connections_reset_as_they_are_made_are_an_outage(resetting_port: int) -> None:
    """On uvloop some of them are found closed only when redis-py writes its greeting."""
    client = make_client(f"redis://127.0.0.1:{resetting_port}/0")
    assert isinstance(client, Redis)
    client.connection_pool.connection_kwargs["retry"] = Retry(NoBackoff(), 0)
    store = Store(client, Keys())

    async def ping() -> list[Exception]:
        seen: list[Exception] = []
        for _ in range(20):
            try:
                await store.run("PING")
            except Exception as error:
                seen.append(error)
        return seen

    async def ping_in_parallel() -> list[list[Exception]]:
        return await asyncio.gather(*(ping() for _ in range(20)))

    seen = sum(uvloop.run(ping_in_parallel()), list[Exception]())

    assert len(seen) == 400
    assert {type(error) for error in seen} == {DependencyError}


async def test_a_connection_that_went_while_it_was_used_is_an_outage() -> None:
    store = Store(make_client("redis://localhost"), Keys())

    with pytest.raises(DependencyError, match="connection lost"):
        async with store.translating("a test"):
            await Connection()._send_packed_command([b"x"])


async def test_a_mistake_of_ours_stays_one() -> None:
    store = Store(make_client("redis://localhost"), Keys())

    with pytest.raises(TypeError):
        async with store.translating("a test"):
            len(3)  # type: ignore[arg-type]


async def test_it_is_known_among_the_answers_of_many() -> None:
    with pytest.raises(AttributeError) as caught:
        await Connection()._send_packed_command([b"x"])

    assert isinstance(refusal(caught.value, "a test"), DependencyError)
    assert isinstance(refusal(AttributeError("ours"), "a test"), SettingsError)
