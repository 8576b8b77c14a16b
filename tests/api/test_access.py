from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from pipeline.api.access import Keys as KeyFile
from pipeline.api.access import check_exposure
from pipeline.api.app import make_app
from pipeline.api.guard import GuardedRoute
from pipeline.api.keys import Role, find_caller, hash_key, read_grants
from pipeline.errors import SettingsError
from pipeline.settings import ApiSettings
from tests.api.conftest import Api, Serve, bearer
from tests.conftest import eventually

ROLES = ("publish", "read", "admin")
PATTERNS = ("*", "cam-*", "robot-?")
SOURCES = ("cam-1", "robot-7", "robot-77")
CALLS = [
    (method.upper(), path, call["x-role"])
    for path, methods in make_app().openapi()["paths"].items()
    for method, call in methods.items()
]
IMAGE = {"content-type": "image/jpeg"}


def allowed(role: str, key_role: str, pattern: str, source: str | None) -> bool:
    """What the contract says, written once more, and plainly."""
    if role in ("public", "any"):
        return True
    if key_role not in (role, "admin"):
        return False
    matches = {"*": r".*", "cam-*": r"cam-.*", "robot-?": r"robot-."}
    return source is None or re.fullmatch(matches[pattern], source) is not None


async def ask(api: Api, method: str, path: str, source: str, headers: dict[str, str]) -> int:
    address = path.format(source=source, partition="p000", entry="1-0")
    async with api.http.stream(method, address, headers=headers | IMAGE) as answer:
        return answer.status_code  # a live feed never ends


async def test_every_route_for_every_role_and_source(serve: Serve) -> None:
    keys = [f"{role}-{pattern}={role}:{pattern}" for role in ROLES for pattern in PATTERNS]
    async with serve(*keys) as api:
        for method, path, role in CALLS:
            sources = SOURCES if "{source}" in path else SOURCES[:1]
            for source in sources:
                anonymous = await ask(api, method, path, source, {})
                assert (anonymous == 401) == (role != "public"), (method, path, anonymous)
                for key_role in ROLES:
                    for pattern in PATTERNS:
                        headers = bearer(f"{key_role}-{pattern}")
                        status = await ask(api, method, path, source, headers)
                        named = source if "{source}" in path else None
                        expected = allowed(role, key_role, pattern, named)
                        told = (method, path, source, key_role, pattern, status)
                        assert (status not in (401, 403)) == expected or path == "/v1/session", told


def test_every_route_declares_its_role() -> None:
    roles = {"publish", "read", "admin", "any", "public"}

    assert {role for _, _, role in CALLS} <= roles
    with pytest.raises(TypeError, match="x-role"):
        GuardedRoute("/open", lambda: None)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    source=st.text("abcz019.-_:", min_size=1, max_size=8),
    pattern=st.text("abcz019.-_:*?", min_size=1, max_size=8),
)
def test_a_pattern_covers_what_it_says(source: str, pattern: str) -> None:
    (grant,) = read_grants(f"{'0' * 64} read {pattern}", "test")
    by_hand = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")

    assert grant.covers("read", source) == (re.fullmatch(by_hand, source) is not None)
    assert not grant.covers("publish", source)
    assert not grant.covers("admin", source)


GRANTS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(ROLES), st.sampled_from(PATTERNS)), max_size=8
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given_to=GRANTS, role=st.sampled_from(ROLES), source=st.sampled_from((None, *SOURCES)))
def test_a_key_may_what_one_of_its_lines_says(
    given_to: list[tuple[int, str, str]], role: Role, source: str | None
) -> None:
    """Lines of other keys, their order and their number change nothing."""
    text = "".join(f"{hash_key(str(key))} {r} {pattern}\n" for key, r, pattern in given_to)
    grants = read_grants(text, "test")

    for key in range(3):
        mine = [(r, pattern) for owner, r, pattern in given_to if owner == key]
        caller = find_caller(grants, hash_key(str(key)))
        if not mine:
            assert caller is None
            continue
        assert caller is not None
        assert caller.may(role, source) == any(allowed(role, *line, source) for line in mine)
        sees_all = any(r in (role, "admin") and pattern == "*" for r, pattern in mine)
        assert caller.sees_all(role) == sees_all
    assert find_caller(grants, hash_key("another")) is None


async def test_lists_and_feeds_show_only_what_the_pattern_allows(serve: Serve) -> None:
    async with serve("mine=read:cam-*", "all=admin") as api:
        for source in ("cam-1", "robot-7"):
            await api.state(source, level="0.1000")
        listed = await api.http.get("/v1/sources", headers=bearer("mine"))
        url = f"{api.url.replace('http', 'ws')}/v1/ws"
        async with (
            connect(url, additional_headers=bearer("mine")) as mine,
            connect(url, additional_headers=bearer("all")) as everything,
        ):
            await eventually(lambda: api.service.live == 2)
            await api.score("robot-7")
            seen = await api.score("cam-1")
            first = json.loads(await asyncio.wait_for(mine.recv(), 5))
            both = [json.loads(await asyncio.wait_for(everything.recv(), 5)) for _ in range(2)]
        refused = await api.http.get("/v1/live?source=robot-7", headers=bearer("mine"))

    assert [row["source"] for row in listed.json()["sources"]] == ["cam-1"]
    assert first["data"]["id"] == seen
    assert {each["data"]["source"] for each in both} == {"cam-1", "robot-7"}
    assert refused.status_code == 403


async def test_a_websocket_needs_a_key_too(serve: Serve) -> None:
    async with serve("in=publish") as api:
        url = f"{api.url.replace('http', 'ws')}/v1/ws"
        statuses = []
        for headers in ({}, bearer("wrong"), bearer("in")):
            with pytest.raises(InvalidStatus) as refused:
                await connect(url, additional_headers=headers)
            statuses.append(refused.value.response.status_code)

    assert statuses == [401, 401, 403]


async def test_a_revoked_key_ends_its_feeds_and_sessions(serve: Serve, tmp_path: Path) -> None:
    async with serve("k=read") as api:
        signed_in = await api.http.post("/v1/session", json={"key": "k"})
        before = await api.http.get("/v1/status")

        (tmp_path / "keys").write_text(f"{hash_key('other')} read\n")
        path = "/v1/status"

        async def is_out() -> bool:
            return (await api.http.get(path)).status_code == 401

        await eventually(is_out, 5.0)
        by_key = await api.http.get(path, headers=bearer("k"))

    assert (signed_in.status_code, before.status_code, by_key.status_code) == (200, 200, 401)


async def test_a_broken_file_leaves_the_last_good_one(serve: Serve, tmp_path: Path) -> None:
    async with serve("k=read") as api:
        path = tmp_path / "keys"
        path.write_text("not a key\n")
        api.service.access.keys.reload(path)

        answer = await api.http.get("/v1/status", headers=bearer("k"))

    assert answer.status_code == 200


async def test_a_session_is_a_cookie_that_scripts_and_other_pages_cannot_use(serve: Serve) -> None:
    async with serve("k=publish") as api:
        wrong = await api.http.post("/v1/session", json={"key": "nope"})
        signed_in = await api.http.post("/v1/session", json={"key": "k"})
        cookie = signed_in.headers["set-cookie"]
        who = await api.http.get("/v1/session")
        path, event = "/v1/sources/cam-1/events", {"values": {"a": 1}}
        statuses = {}
        for name, origin in (
            ("own", {"Origin": api.url}),
            ("foreign", {"Origin": "http://evil.example"}),
            ("none", {}),
            ("null", {"Origin": "null"}),
        ):
            answer = await api.http.post(path, json=event, headers=origin)
            statuses[name] = answer.status_code
        ended = await api.http.delete("/v1/session", headers={"Origin": api.url})
        stolen = await api.http.get("/v1/session", headers={"Cookie": cookie.partition(";")[0]})

    assert wrong.status_code == 401
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "k" not in cookie.partition(";")[0].partition("=")[2].split("-")
    assert who.json() == {"keys": True, "grants": [{"role": "publish", "sources": "*"}]}
    assert statuses == {"own": 202, "foreign": 403, "none": 403, "null": 403}
    assert (ended.status_code, stolen.status_code) == (204, 401)


async def test_without_keys_a_foreign_page_reaches_nothing(api: Api) -> None:
    event = {"values": {"a": 1}}
    rebound = await api.http.get("/v1/status", headers={"Host": "evil.example"})
    posted = await api.http.post(
        "/v1/sources/cam-1/events", json=event, headers={"Origin": "http://evil.example"}
    )
    with pytest.raises(InvalidStatus) as refused:
        await connect(
            f"{api.url.replace('http', 'ws')}/v1/ws",
            origin="http://evil.example",  # type: ignore[arg-type]
        )

    assert (rebound.status_code, posted.status_code) == (403, 403)
    assert refused.value.response.status_code == 403


async def test_cross_origin_readers_get_no_leave(api: Api) -> None:
    answer = await api.http.get("/v1/status", headers={"Origin": "http://evil.example"})
    preflight = await api.http.options("/v1/status", headers={"Origin": "http://evil.example"})

    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert preflight.status_code == 405


async def test_too_many_requests_are_told_when_to_come_again(serve: Serve) -> None:
    async with serve("a=read", "b=read", rate_per_s=0.5) as api:
        mine = [(await api.http.get("/v1/status", headers=bearer("a"))) for _ in range(8)]
        other = await api.http.get("/v1/status", headers=bearer("b"))

    refused = [each for each in mine if each.status_code == 429]
    assert refused
    assert int(refused[0].headers["retry-after"]) >= 1
    assert other.status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_off_loopback_it_refuses_to_start_without_keys(host: str, tmp_path: Path) -> None:
    empty = tmp_path / "keys"
    empty.write_text("# none yet\n")

    for path in (None, empty):
        with pytest.raises(SettingsError, match="PERCIPIO_API_KEYS_FILE"):
            check_exposure(ApiSettings(host=host), KeyFile(path))


@pytest.mark.parametrize("line", ["secret read", f"{'0' * 64} root", f"{'0' * 64} read a/b x"])
def test_a_wrong_line_is_named_but_not_shown(line: str) -> None:
    with pytest.raises(SettingsError, match="line 2") as wrong:
        read_grants(f"# keys\n{line}\n", "keys")

    assert "secret" not in str(wrong.value)
