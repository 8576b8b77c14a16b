from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pipeline.api import server, uploads
from tests.api.conftest import Api, Serve, bearer
from tests.conftest import Worker, eventually

HOST = b"Host: 127.0.0.1\r\n"


async def talk(api: Api, data: bytes, timeout_s: float = 5.0) -> bytes:
    """Send bytes and read until the other side hangs up, or falls silent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]))
    answer = b""
    try:
        writer.write(data)
        async with asyncio.timeout(timeout_s):
            while part := await reader.read(65536):
                answer += part
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.close()
    return answer


def status_of(answer: bytes) -> int:
    return int(answer[9:12])


@pytest.mark.parametrize(
    "path",
    [
        "/../pyproject.toml",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/..%2f..%2fetc/passwd",
        "/static/../../app.py",
        "//etc/passwd",
        "/__init__.py",
        "/index.html%00.js",
        "/v1/sources/..%2f..%2fadmin/state",
    ],
)
async def test_nothing_but_the_page_can_be_reached(api: Api, path: str) -> None:
    answer = await talk(api, f"GET {path} HTTP/1.0\r\n".encode() + HOST + b"\r\n")

    assert status_of(answer) in (404, 422)
    assert b"root:" not in answer


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"x" * 200_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"".join(b"h%d: 1\r\n" % n for n in range(20_000)) + b"\r\n",
        b"NOT HTTP\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /v1/sources/a/events HTTP/1.1\r\n"
        + HOST
        + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x",
        b"POST /v1/sources/a/events HTTP/1.1\r\n"
        + HOST
        + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST /v1/sources/a/events HTTP/1.1\r\n"
        + HOST
        + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_tricks_with_heads_and_chunks_end_in_a_refusal(api: Api, data: bytes) -> None:
    answer = await talk(api, data)
    after = await api.http.get("/healthz")

    assert status_of(answer) in (400, 431)
    assert after.status_code == 200


async def test_endless_chunks_are_cut_off(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "DRAINED_BYTES", 0)
    head = b"POST /v1/sources/a/events HTTP/1.1\r\n" + HOST
    head += b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"

    answer = await talk(api, head + b"100000\r\n%b\r\n" % (b" " * 0x100000) * 6)

    assert b" 413 " in answer[:20] or answer == b""
    assert not api.service.publishing._numbers


async def test_one_who_is_slow_with_a_request_is_let_go(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HEAD_S", 0.2)
    async with serve() as api:
        answers = [await talk(api, data) for data in (b"GET / HT", b"")]

    assert [status_of(answer) for answer in answers] == [408, 408]


async def test_one_who_is_slow_with_a_body_is_let_go(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "BODY_S", 0.2)
    head = b"POST /v1/sources/a/events HTTP/1.1\r\n" + HOST
    head += b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"

    answer = await talk(api, head)

    assert status_of(answer) == 408


async def test_one_who_does_not_read_is_let_go(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "SEND_S", 0.2)
    async with serve() as api:
        _, stuck = await asyncio.open_connection(
            "127.0.0.1", int(api.url.rpartition(":")[2]), limit=1024
        )
        stuck.write(b"GET /v1/live HTTP/1.1\r\n" + HOST + b"\r\n")
        await eventually(lambda: api.service.live == 1)
        padding = {"padding": "x" * 200_000}

        async def is_gone() -> bool:
            await api.score("cam-1", data=padding)
            return api.service.live == 0

        await eventually(is_gone, 20.0)
        stuck.close()


async def test_too_much_at_once_is_put_off(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MOST_UPLOADING_BYTES", 10)
    body = b'{"values": {"motion": 1}}'

    answer = await api.http.post(
        "/v1/sources/a/events", content=body, headers={"content-type": "application/json"}
    )

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


async def test_deep_json_is_refused(api: Api) -> None:
    answer = await api.http.post(
        "/v1/sources/a/events",
        content=b'{"meta":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        headers={"content-type": "application/json"},
    )

    assert answer.status_code == 422


async def test_an_error_of_ours_tells_nothing_and_is_logged(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_source: str) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(api.service.frames, "newest", fail)
    answer = await api.http.get("/v1/sources/cam-1/frame.jpg")

    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text
    assert "secret detail" in caplog.text


async def test_no_key_is_ever_logged(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with serve("pk_topsecret=read") as api:
        await api.http.get("/v1/status", headers=bearer("pk_topsecret"))
        await api.http.get("/v1/dead", headers=bearer("pk_topsecret"))
        await api.http.post("/v1/session", json={"key": "pk_topsecret"})
        metrics = await api.http.get("/metrics", headers=bearer("pk_topsecret"))

    assert metrics.status_code == 200
    assert "topsecret" not in caplog.text + metrics.text


async def test_the_worker_refuses_to_be_open_to_all(worker: Worker, tmp_path: Path) -> None:
    process = worker("api", {"PERCIPIO_API_HOST": "0.0.0.0", "PERCIPIO_API_PORT": "0"})

    await eventually(lambda: process.poll() is not None, 30.0)

    assert process.returncode == 2
    assert "PERCIPIO_API_KEYS_FILE" in (tmp_path / "0-api.log").read_text()
