"""Commands are packed quickly, and as redis-py packs them."""

from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection, Connection

from pipeline.stream import LARGE, MANY, make_client

NUMBER = st.integers() | st.floats(allow_nan=False)
ARGUMENT = st.text(max_size=20) | st.binary(max_size=200) | NUMBER


def _connection(url: str) -> AbstractConnection:
    client = make_client(url)
    assert isinstance(client, Redis)
    made = client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
    assert isinstance(made, AbstractConnection)
    return made


@given(st.lists(ARGUMENT, max_size=2 * MANY))
def test_packed_commands_are_those_of_redis_py(arguments: list[str | bytes | int | float]) -> None:
    ours = _connection("redis://localhost")
    assert b"".join(ours.pack_command("XINFO STREAM", *arguments)) == b"".join(
        Connection().pack_command("XINFO STREAM", *arguments)
    )


def test_what_is_large_is_not_copied() -> None:
    ours = _connection("unix:///redis.sock")
    large = bytes(LARGE + 1)
    assert any(each is large for each in ours.pack_command("SET", *["a"] * MANY, large))
