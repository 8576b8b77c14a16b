"""What redis-py raises when a connection goes while it is used is an outage."""

import pytest
from redis.asyncio.connection import Connection

from pipeline.errors import DependencyError, SettingsError
from pipeline.partition import Keys
from pipeline.stream import Store, make_client, refusal


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
