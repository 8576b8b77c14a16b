from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from pipeline.api import feed as feed_module
from pipeline.api import replay as replay_module
from pipeline.results import KINDS
from tests.api.conftest import Api, Serve
from tests.conftest import eventually

Event = dict[str, str]


@asynccontextmanager
async def events(
    api: Api, path: str = "/v1/live", headers: dict[str, str] | None = None
) -> AsyncIterator[AsyncIterator[Event]]:
    """Follow Server-Sent Events."""
    async with api.http.stream("GET", path, headers=headers or {}, timeout=None) as response:
        assert response.status_code == 200, await response.aread()
        yield _parse(response.aiter_lines())


async def _parse(lines: AsyncIterator[str]) -> AsyncIterator[Event]:
    event: Event = {}
    async for line in lines:
        if line:
            name, _, value = line.partition(":")
            event[name] = value.strip()
            continue
        if event:
            yield event
        event = {}


async def take(found: AsyncIterator[Event], count: int) -> list[Event]:
    """Give the next events that have data."""
    taken: list[Event] = []
    async with asyncio.timeout(10):
        async for event in found:
            if "data" in event:
                taken.append(event)
            if len(taken) == count:
                break
    return taken


def ids(found: Sequence[Event]) -> list[str]:
    return [json.loads(event["data"])["id"] for event in found]


async def start(found: AsyncIterator[Event]) -> str:
    """Wait for the opening; gives the cursor of now."""
    async for event in found:
        if "id" in event:
            return event["id"]
    raise AssertionError("no opening")


async def test_results_come_as_events_filtered_by_source_and_kind(api: Api) -> None:
    async with (
        events(api) as everything,
        events(api, "/v1/live?source=cam-1") as one,
        events(api, "/v1/live?kind=detections") as detections,
    ):
        for each in (everything, one, detections):
            await start(each)
        first = await api.score("cam-1")
        second = await api.score("cam-2")
        third = await api.detection("cam-1", "1-0", [])

        found = await take(everything, 3)
        mine, kinds = await take(one, 2), await take(detections, 1)

    assert sorted(ids(found)) == sorted([first, second, third])
    assert sorted(ids(mine)) == sorted([first, third])
    assert (ids(kinds), kinds[0]["event"]) == ([third], "detections")


async def test_reconnecting_with_the_last_id_misses_and_doubles_nothing(api: Api) -> None:
    async with events(api) as found:
        await start(found)
        sent = [await api.score(f"s-{n % 5}", n) for n in range(10)]
        got = await take(found, 4)
    sent += [await api.score(f"s-{n % 5}", n) for n in range(10, 20)]

    async with events(api, headers={"Last-Event-ID": got[-1]["id"]}) as found:
        sent += [await api.score(f"s-{n % 5}", n) for n in range(20, 25)]
        rest = await take(found, 21)

    assert sorted(ids(got + rest)) == sorted(sent)


async def test_another_process_goes_on_from_the_same_id(serve: Serve, api: Api) -> None:
    async with events(api) as found:
        await start(found)
        sent = [await api.score(f"s-{n}", n) for n in range(6)]
        got = await take(found, 3)

    async with serve() as other:
        sent += [await other.score(f"s-{n}", n) for n in range(6, 9)]
        async with events(other, headers={"Last-Event-ID": got[-1]["id"]}) as found:
            sent.append(await other.score("late"))
            rest = await take(found, 7)

    assert sorted(ids(got + rest)) == sorted(sent)


async def test_every_id_of_a_replay_is_a_place_to_go_on_from(serve: Serve, api: Api) -> None:
    async with events(api) as found:
        opening = await start(found)
    sent = [await api.score(f"s-{n}", n) for n in range(6)]

    async with serve() as other:
        got: list[Event] = []
        cursor = opening
        for _ in range(6):
            async with events(other, headers={"Last-Event-ID": cursor}) as found:
                got += await take(found, 1)
            cursor = got[-1]["id"]

    assert sorted(ids(got)) == sorted(sent)


async def test_a_reader_that_came_too_late_is_told_what_was_removed(serve: Serve, api: Api) -> None:
    async with events(api) as found:
        cursor = await start(found)
    kept = [await api.score("cam-1", n) for n in range(5)][3:]
    key = api.store.keys.of_source("cam-1").scores
    await api.store.run("XTRIM", key, "MAXLEN", 2)

    async with serve() as other, events(other, headers={"Last-Event-ID": cursor}) as found:
        got = await take(found, 3)

    assert got[0]["event"] == "gap"
    assert json.loads(got[0]["data"]) == {"missed": 3, "why": "removed", "scores": 3}
    assert ids(got[1:]) == kept


async def test_a_slow_listener_loses_its_oldest_and_is_told(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "QUEUE", 4)
    feed = api.service.feed
    with feed.listening(None, KINDS, lambda _: True) as slow:
        sent = [await api.score("cam-1", n) for n in range(10)]
        await api.has_scores("cam-1", 10)

        taken = await slow.take(1.0)

    assert taken is not None
    gap, *rest = taken
    assert isinstance(gap, feed_module.Gap)
    missed = gap.as_json()
    assert missed["missed"] == 10 - len(rest)
    assert (missed["first"], missed["last"]) == (sent[0], sent[missed["missed"] - 1])
    assert [each.id for each in rest if not isinstance(each, feed_module.Gap)] == sent[-len(rest) :]


async def test_one_who_does_not_read_does_not_slow_the_others(api: Api) -> None:
    host, port = api.url.removeprefix("http://").split(":")
    _, stuck = await asyncio.open_connection(host, int(port), limit=1024)
    stuck.write(b"GET /v1/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await eventually(lambda: api.service.live == 1)
    padding = {"padding": "x" * 20_000}

    async with events(api) as found:
        await start(found)
        sent = [await api.score("cam-1", n, data=padding) for n in range(300)]
        got = await take(found, 300)

    assert ids(got) == sent
    stuck.close()


async def test_a_websocket_gives_the_same(api: Api) -> None:
    url = api.url.replace("http", "ws") + "/v1/ws?source=cam-1"
    async with connect(url) as socket:
        await eventually(lambda: api.service.live == 1)
        await api.score("cam-2")
        first = await api.score("cam-1", 1)
        got = json.loads(await asyncio.wait_for(socket.recv(), 5))
        second = await api.score("cam-1", 2)

    async with connect(f"{url}&after={got['cursor']}") as socket:
        rest = json.loads(await asyncio.wait_for(socket.recv(), 5))

    assert (got["event"], got["data"]["id"]) == ("scores", first)
    assert rest["data"]["id"] == second


@pytest.mark.parametrize("query", ["source=a%20b", "kind=frames", "after=x"])
async def test_a_wrong_wish_is_refused_either_way(api: Api, query: str) -> None:
    answer = await api.http.get(f"/v1/live?{query}")
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"{api.url.replace('http', 'ws')}/v1/ws?{query}")

    assert answer.status_code == 422
    assert refused.value.response.status_code == 422


async def test_listeners_leave_nothing_behind(api: Api) -> None:
    async with events(api, "/v1/live?source=cam-1") as found:
        await start(found)
        assert api.service.feed.listeners

    await eventually(lambda: not api.service.feed.listeners and not api.service.live)
    assert not api.service.feed._of_source


async def test_redis_is_not_asked_for_what_is_recent(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with events(api) as found:
        cursor = await start(found)
        sent = [await api.score("cam-1", n) for n in range(3)]
        await take(found, 3)

    def refuse(*_: Any) -> None:
        raise AssertionError("Redis was asked")

    monkeypatch.setattr(replay_module.Replay, "_read", refuse)
    async with events(api, headers={"Last-Event-ID": cursor}) as found:
        assert ids(await take(found, 3)) == sent


async def test_a_reader_is_told_even_if_nothing_is_left(
    serve: Serve, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "_NO_PROGRESS_S", 0.3)
    async with events(api) as found:
        cursor = await start(found)
    for n in range(3):
        await api.score("cam-1", n)
    await api.store.run("XTRIM", api.store.keys.of_source("cam-1").scores, "MAXLEN", 0)

    async with serve() as other, events(other, headers={"Last-Event-ID": cursor}) as found:
        (gap,) = await take(found, 1)
        sent = await other.score("cam-1", 3)
        (after,) = await take(found, 1)

    assert json.loads(gap["data"]) == {"missed": 3, "why": "removed", "scores": 3}
    assert ids([after]) == [sent]


async def test_a_pause_of_redis_is_no_gap(
    serve: Serve, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replay that makes no progress for a while goes on where it was."""
    monkeypatch.setattr(replay_module, "_NO_PROGRESS_S", 0.2)
    async with events(api) as found:
        cursor = await start(found)
    sent = [await api.score(f"s-{n}", n) for n in range(5)]

    async with serve() as other:
        await other.store.run("CLIENT", "PAUSE", 1000, "ALL")
        async with events(other, headers={"Last-Event-ID": cursor}) as found:
            got = await take(found, 5)

    assert [event["event"] for event in got] == ["scores"] * 5
    assert sorted(ids(got)) == sorted(sent)


async def test_a_slow_replay_holds_up_no_other(
    serve: Serve, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One who reads nothing of what he missed keeps no turn."""
    monkeypatch.setattr(replay_module, "A_TURN", 20)
    async with events(api) as found:
        cursor = await start(found)
    sent = [await api.score("cam-1", n, data={"padding": "x" * 40_000}) for n in range(200)]

    async with serve() as other:
        other.service.replay._turns = asyncio.Semaphore(1)
        host, port = other.url.removeprefix("http://").split(":")
        _, stuck = await asyncio.open_connection(host, int(port), limit=1024)
        head = f"GET /v1/live HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: {cursor}\r\n\r\n"
        stuck.write(head.encode())
        try:
            await eventually(lambda: other.service.live == 1)
            async with events(other, headers={"Last-Event-ID": cursor}) as found:
                got = await take(found, 200)
                is_stuck = other.service.live == 2
        finally:
            stuck.close()

    assert is_stuck
    assert ids(got) == sent
