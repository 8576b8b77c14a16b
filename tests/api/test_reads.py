from __future__ import annotations

import pytest

from pipeline.api import cache
from tests.api.conftest import KEYS, Api, Serve
from tests.conftest import eventually


async def test_a_state_is_read_once_and_then_served_from_memory(api: Api) -> None:
    await api.state("cam-1", level="0.2500", phase="active", frames=3, model="yolo@1")

    first = await api.http.get("/v1/sources/cam-1/state")
    await api.store.run("DEL", KEYS.of_source("cam-1").state("cam-1"))
    second = await api.http.get("/v1/sources/cam-1/state")

    expected = {"source": "cam-1", "v": 1, "level": 0.25, "phase": "active", "frames": 3}
    assert first.json() == expected | {"model": "yolo@1"}
    assert second.content == first.content


async def test_names_that_are_asked_for_once_push_out_no_source_in_use(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "MOST_STATES", 3)
    await api.state("cam-1", level="0.5000")

    for number in range(9):
        await api.http.get(f"/v1/sources/unknown-{number}/state")
        await api.http.get("/v1/sources/cam-1/state")

    assert len(api.service.states._states) == 3
    assert "cam-1" in api.service.states._states


async def test_a_new_score_refreshes_the_state(api: Api) -> None:
    await api.state("cam-1", level="0.1000")
    before = await api.http.get("/v1/sources/cam-1/state")

    await api.state("cam-1", level="0.9000")
    await api.score("cam-1")

    async def is_new() -> bool:
        answer = await api.http.get("/v1/sources/cam-1/state")
        return bool(answer.json()["level"] == 0.9)

    await eventually(is_new, 3.0)
    assert before.json()["level"] == 0.1


async def test_a_drop_without_a_result_shows_in_the_state_too(api: Api) -> None:
    await api.state("cam-1", frames_dropped=0)
    await api.http.get("/v1/sources/cam-1/state")

    await api.state("cam-1", frames_dropped=7)

    async def is_new() -> bool:
        answer = await api.http.get("/v1/sources/cam-1/state")
        return bool(answer.json()["frames_dropped"] == 7)

    await eventually(is_new, 5.0)


async def test_an_etag_spares_the_body(api: Api) -> None:
    await api.state("cam-1", level="0.1000")
    first = await api.http.get("/v1/sources/cam-1/state")

    again = await api.http.get(
        "/v1/sources/cam-1/state", headers={"If-None-Match": first.headers["etag"]}
    )

    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]


async def test_a_source_never_seen_is_a_problem(api: Api) -> None:
    answer = await api.http.get("/v1/sources/nobody/state")

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == 404


async def test_sources_come_in_pages_with_their_levels(api: Api) -> None:
    for number in range(3):
        await api.state(f"s-{number}", level=f"0.{number}000", phase="active")

    first = (await api.http.get("/v1/sources", params={"limit": 2})).json()
    rest = (await api.http.get("/v1/sources", params={"after": first["after"]})).json()

    assert [(row["source"], row["level"]) for row in first["sources"]] == [
        ("s-0", 0.0),
        ("s-1", 0.1),
    ]
    assert [row["source"] for row in rest["sources"]] == ["s-2"]
    assert rest["after"] is None


async def test_results_from_before_the_start_are_looked_up(serve: Serve, api: Api) -> None:
    ids = [await api.score("cam-1", n) for n in range(5)]
    await api.score("cam-2")

    async with serve() as other:
        found = (await other.http.get("/v1/sources/cam-1/scores")).json()

    assert [each["id"] for each in found["results"]] == ids
    assert found["results"][0]["level"] == 0.5
    assert found["results"][0]["result"] == "scores"


async def test_old_and_new_results_come_in_one_list_without_doubles(serve: Serve, api: Api) -> None:
    before = [await api.score("cam-1", n) for n in range(3)]

    async with serve() as other:
        after = [await other.score("cam-1", n) for n in range(3, 6)]
        await other.has_scores("cam-1", 3)
        lists = [(await other.http.get("/v1/sources/cam-1/scores")).json() for _ in range(2)]

    for found in lists:
        assert [each["id"] for each in found["results"]] == before + after


async def test_after_gives_only_what_came_since(api: Api) -> None:
    ids = [await api.score("cam-1", n) for n in range(4)]
    await api.has_scores("cam-1", 4)
    path = "/v1/sources/cam-1/scores"
    all_of_them = (await api.http.get(path)).json()

    ids += [await api.score("cam-1", n) for n in range(4, 7)]
    await api.has_scores("cam-1", 7)
    page = (await api.http.get(path, params={"after": all_of_them["after"], "limit": 2})).json()
    rest = (await api.http.get(path, params={"after": page["after"]})).json()

    assert [each["id"] for each in page["results"]] == ids[4:6]
    assert [each["id"] for each in rest["results"]] == ids[6:]


async def test_after_reaches_back_to_redis(serve: Serve, api: Api) -> None:
    path = "/v1/sources/cam-1/scores"
    start = (await api.http.get(path)).json()["after"]
    ids = [await api.score("cam-1", n) for n in range(4)]

    async with serve() as other:
        page = (await other.http.get(path, params={"after": start, "limit": 3})).json()
        rest = (await other.http.get(path, params={"after": page["after"]})).json()

    assert [each["id"] for each in page["results"] + rest["results"]] == ids


async def test_a_foreign_cursor_is_refused(api: Api) -> None:
    answer = await api.http.get("/v1/sources/cam-1/scores", params={"after": "abc"})

    assert answer.status_code == 422
    assert "cursor" in answer.json()["detail"]


async def test_status_is_as_the_command_says_and_more(api: Api) -> None:
    found = (await api.http.get("/v1/status")).json()

    assert found["balanced"] is True
    assert len(found["partitions"]) == KEYS.partitions
    assert found["api"]["live"] == 0


async def test_every_error_is_a_problem(api: Api) -> None:
    answers = [
        await api.http.get("/no/such/address"),
        await api.http.put("/v1/status"),
        await api.http.get("/v1/sources/cam-1/scores", params={"limit": "many"}),
        await api.http.get("/v1/sources/a%20b/state"),
    ]

    assert [each.status_code for each in answers] == [404, 405, 422, 422]
    for each in answers:
        assert each.headers["content-type"] == "application/problem+json"
        assert each.json()["status"] == each.status_code


async def test_documentation_needs_no_other_address(api: Api) -> None:
    page = await api.http.get("/docs")
    style = await api.http.get("/docs.css")

    assert "/v1/sources/{source}/state" in page.text
    assert "http" not in page.text.replace("https://openapi", "")
    assert style.headers["content-type"].startswith("text/css")
    assert "default-src 'none'" in page.headers["content-security-policy"]
