"""Requests made from the OpenAPI, valid and broken: no 5xx, nothing that is not declared."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pipeline.api.app import make_app
from pipeline.api.problems import MEDIA_TYPE
from pipeline.api.reference import example_of
from tests.conftest import Worker

OPENAPI = make_app().openapi()
CALLS = [
    (f"{method.upper()} {path}", call)
    for path, methods in OPENAPI["paths"].items()
    for method, call in methods.items()
]
CONTRACT = {
    "POST /v1/sources/{source}/frames": "publish",
    "POST /v1/sources/{source}/events": "publish",
    "GET /v1/sources": "read",
    "GET /v1/sources/{source}/state": "read",
    "GET /v1/sources/{source}/detections": "read",
    "GET /v1/sources/{source}/scores": "read",
    "GET /v1/sources/{source}/frame.jpg": "read",
    "GET /v1/sources/{source}/live.mjpg": "read",
    "GET /v1/live": "read",
    "GET /v1/status": "read",
    "GET /v1/dead": "admin",
    "POST /v1/dead/{partition}/{entry}/replay": "admin",
    "GET /healthz": "public",
    "GET /readyz": "public",
    "GET /metrics": "any",
    "POST /v1/session": "public",
    "DELETE /v1/session": "public",
}


def test_every_call_of_the_contract_is_there_with_its_role() -> None:
    roles = {name: call["x-role"] for name, call in CALLS}

    assert CONTRACT.items() <= roles.items()


@pytest.mark.parametrize(("name", "call"), CALLS, ids=[name for name, _ in CALLS])
def test_a_call_is_described_in_full(name: str, call: dict[str, Any]) -> None:
    assert call["description"], name
    for parameter in call.get("parameters", ()):
        assert parameter.get("description") or parameter["in"] == "path", (name, parameter["name"])
    for status, response in call["responses"].items():
        content = response.get("content", {})
        if int(status) >= 400:
            assert list(content) == [MEDIA_TYPE], (name, status)
        elif int(status) not in (204, 304):
            assert content, (name, status)
    for content in call.get("requestBody", {}).get("content", {}).values():
        is_binary = content["schema"].get("format") == "binary"
        assert is_binary or "example" in content or "example" in content["schema"], name


@pytest.mark.parametrize(("name", "call"), CALLS, ids=[name for name, _ in CALLS])
def test_examples_are_what_they_are_examples_of(name: str, call: dict[str, Any]) -> None:
    """Every JSON that is answered or taken has an example that its own schema accepts."""
    schemas = OPENAPI["components"]["schemas"]
    bodies = [*call["responses"].values(), call.get("requestBody", {})]
    for content_type, content in (pair for each in bodies for pair in _contents(each)):
        if not content_type.endswith("json"):
            continue
        example = content.get("example") or example_of(content["schema"], schemas)
        whole = {"components": OPENAPI["components"], "allOf": [content["schema"]]}
        jsonschema.Draft202012Validator(whole).validate(example)


def _contents(described: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from described.get("content", {}).items()


def _fuzz(worker: Worker, folder: Path, examples: int) -> subprocess.CompletedProcess[str]:
    port_file = folder / "0-api.log"
    worker("api", {"PERCIPIO_API_PORT": "0", "PERCIPIO_API_RATE_PER_S": "0"})
    url = url_in(port_file)
    checks = "not_a_server_error,status_code_conformance,content_type_conformance"
    checks += ",response_schema_conformance,response_headers_conformance"
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "run",
        f"{url}/openapi.json",
        "--checks",
        checks,
        "--max-examples",
        str(examples),
        "--phases",
        "examples,coverage,fuzzing",
        "--exclude-path",
        "/v1/live",
        "--exclude-path",
        "/v1/sources/{source}/live.mjpg",
        "--request-timeout",
        "20",
        "--no-color",
        "--seed",
        "7",
    ]
    environ = os.environ | {"SCHEMATHESIS_HOOKS": "tests.api.fuzz_hooks", "PYTHONPATH": os.getcwd()}
    return subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env=environ, check=False
    )


def url_in(words: Path) -> str:
    for line in _lines(words):
        if '"api_ready"' in line:
            return line.partition('"url": "')[2].partition('"')[0]
    raise AssertionError("the API did not start")


def _lines(words: Path) -> Iterator[str]:
    import time

    ends_s = time.monotonic() + 30
    seen = 0
    while time.monotonic() < ends_s:
        lines = words.read_text().splitlines() if words.exists() else []
        yield from lines[seen:]
        seen = len(lines)
        time.sleep(0.05)


@pytest.mark.timeout(240)
def test_requests_made_from_the_schema_break_nothing(worker: Worker, tmp_path: Path) -> None:
    ran = _fuzz(worker, tmp_path, 8)

    assert ran.returncode == 0, ran.stdout[:9000]


@pytest.mark.fault
@pytest.mark.timeout(1800)
def test_many_requests_made_from_the_schema_break_nothing(worker: Worker, tmp_path: Path) -> None:
    ran = _fuzz(worker, tmp_path, 400)

    print(ran.stdout[-3000:])
    assert ran.returncode == 0, ran.stdout[:9000]
