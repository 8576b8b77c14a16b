from __future__ import annotations

from typing import Any

from pipeline.api.history import COLUMNS, ROWS, SOURCES, History
from pipeline.ledger import read_status
from pipeline.stream import INPUT_GROUP
from tests.api.conftest import KEYS, Api
from tests.conftest import eventually


async def nothing(_source: str) -> list[Any]:
    return []


def score(level: float, **more: Any) -> dict[str, Any]:
    return {"level": level, "phase": "active", "kind": "event", "inputs": 1} | more


def column(past: dict[str, Any], name: str) -> list[float | None]:
    return [row[COLUMNS.index(name)] for row in past["rows"]]


async def test_a_second_is_one_row_with_its_newest_level_and_all_its_inputs() -> None:
    history = History(nothing, quiet_ms=3_600_000)

    history.note("cam-1", 5_000, score(0.1, kind="frame", tracks=[{}, {}], latency_ms=90))
    history.note("cam-1", 5_400, score(0.2, inputs=3, latency_ms=40))
    history.note("cam-1", 7_100, score(0.3, transition="dormant>active"))
    past = await history.get("cam-1")

    assert column(past, "at_s") == [5, 7]
    assert column(past, "level") == [0.2, 0.3]
    assert column(past, "frames") == [1, 0]
    assert column(past, "events") == [3, 1]
    assert column(past, "latency_ms")[0] == 90
    assert column(past, "tracks") == [2, 2]
    assert past["transitions"] == [{"ts": 7_100, "transition": "dormant>active"}]


async def test_it_keeps_so_many_seconds_of_so_many_sources() -> None:
    history = History(nothing, quiet_ms=3_600_000)

    for second in range(ROWS + 5):
        history.note("cam-1", second * 1000, score(0.5))
    for number in range(SOURCES):
        history.note(f"other-{number}", 1000, score(0.5))
    history.note("cam-2", 1000, score(0.5))

    assert len((await history.get("cam-2"))["rows"]) == 1
    assert (await history.get("cam-1"))["rows"] == []


async def test_a_source_that_has_long_been_quiet_is_forgotten() -> None:
    history = History(nothing, quiet_ms=60_000)

    history.note("gone", 1_000, score(0.5))
    history.note("here", 2_000, score(0.5))
    history.note("here", 61_500, score(0.5))

    assert list(history._pasts) == ["here"]


async def test_what_was_before_the_api_is_looked_up_once(api: Api) -> None:
    await api.state("cam-1", level="0.1000")
    await api.score("cam-1", n=1, level=0.1)
    await api.score("cam-1", n=2, level=0.2)
    await api.has_scores("cam-1", 2)
    api.service.history._pasts.clear()  # as if the API had just been started

    first = (await api.http.get("/v1/sources/cam-1/history")).json()
    await api.score("cam-1", n=3, level=0.3)
    await api.has_scores("cam-1", 3)
    second = (await api.http.get("/v1/sources/cam-1/history")).json()

    assert sum(filter(None, column(first, "events"))) == 2
    assert sum(filter(None, column(second, "events"))) == 3
    assert column(second, "level")[-1] == 0.3


async def test_a_source_never_seen_has_no_history(api: Api) -> None:
    answer = await api.http.get("/v1/sources/nobody/history")

    assert answer.status_code == 404


async def test_the_status_names_who_works(api: Api) -> None:
    status = await read_status(api.store)
    group = ("XGROUP", "CREATECONSUMER", KEYS.of(0).frames, INPUT_GROUP, "detect-a")
    await api.store.run(*group)
    await api.store.run("ZADD", KEYS.workers, status.now_ms, "score-a")

    async def are_named() -> bool:
        workers = (await api.http.get("/v1/status")).json()["workers"]
        detect = [(each["name"], each["pending"]) for each in workers["detect"]]
        score = [(each["name"], each["partitions"]) for each in workers["score"]]
        return (detect, score) == ([("detect-a", 0)], [("score-a", 0)])

    await eventually(are_named)
