"""What operators are given: alerts that fire, a dashboard whose every query finds its metric."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml

from pipeline.image import encode_jpeg
from tests.api.test_schema import url_in
from tests.conftest import Worker, eventually

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/percipio.json").read_text())
ALERTS = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"][0]["rules"]
NAME = re.compile(r"\b(?:percipio|process)_[a-z_]+\b")
PARTS = re.compile(r"_(?:bucket|sum|count)\Z")


def queries() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]
    for rule in ALERTS:
        yield rule["expr"]


def names_of(query: str) -> set[str]:
    """Give the metrics of a query, without what braces and `by (...)` hold."""
    plain = re.sub(r"\{[^}]*\}", "", query)
    return {PARTS.sub("", name) for name in NAME.findall(plain)}


async def test_every_metric_asked_for_is_exported(worker: Worker, tmp_path: Path) -> None:
    worker("api", {"PERCIPIO_API_PORT": "0"})
    url = url_in(tmp_path / "0-api.log")
    exported: set[str] = set()

    async def is_scraped() -> bool:
        async with httpx.AsyncClient() as client:
            text = (await client.get(f"{url}/metrics")).text
        exported.update(re.findall(r"^# TYPE (\S+)", text, re.M))
        return "percipio_redis_memory_bytes" in text

    await eventually(is_scraped)

    asked = set().union(*map(names_of, queries()))
    assert len(asked) > 25
    assert asked - exported == set()


def test_every_label_asked_for_is_one_of_the_metric() -> None:
    from prometheus_client import REGISTRY

    from pipeline import metrics

    labels: dict[str, set[str]] = {}
    for each in vars(metrics).values():
        if hasattr(each, "_labelnames"):
            labels[each._name] = set(each._labelnames)
    assert REGISTRY is not None
    for query in queries():
        for name, matchers in re.findall(r"(percipio_[a-z_]+)\{([^}]*)\}", query):
            metric = PARTS.sub("", name).removesuffix("_total")
            asked = set(re.findall(r"(\w+)\s*[=!]~?", matchers))
            assert asked <= labels[metric], query


def test_the_dashboard_is_whole() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    source = yaml.safe_load(
        (DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text()
    )["datasources"][0]

    assert len(ids) == len(set(ids))
    for panel in DASHBOARD["panels"]:
        assert panel["title"]
        assert panel.get("datasource", {"uid": source["uid"]})["uid"] == source["uid"]


def _promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    return subprocess.run(
        [found, *arguments], capture_output=True, text=True, cwd=DEPLOY, check=False
    )


@pytest.mark.parametrize(
    "arguments", [("check", "config", "prometheus.yml"), ("test", "rules", "alerts_test.yml")]
)
def test_promtool_agrees(arguments: tuple[str, ...]) -> None:
    ran = _promtool(*arguments)

    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_alert_is_tried_both_ways() -> None:
    tests: list[dict[str, Any]] = yaml.safe_load((DEPLOY / "alerts_test.yml").read_text())["tests"]
    tried = {
        (each["alertname"], bool(each["exp_alerts"]))
        for test in tests
        for each in test["alert_rule_test"]
    }

    assert tried == {(rule["alert"], fires) for rule in ALERTS for fires in (True, False)}


COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]


def test_compose_finds_all_that_it_names() -> None:
    """Files that are mounted, volumes, secrets, and services that others wait for."""
    for name, service in SERVICES.items():
        for mount in service.get("volumes", ()):
            source = mount.partition(":")[0]
            is_there = source in COMPOSE["volumes"]
            assert is_there or (source.startswith("./") and (ROOT / source).exists()), (name, mount)
        assert set(service.get("depends_on", ())) <= SERVICES.keys()
        assert set(service.get("secrets", ())) <= COMPOSE["secrets"].keys()


def test_compose_opens_ports_on_loopback_alone() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    defaults = [re.sub(r"\$\{\w+:-(\d+)\}", r"\1", port).split(":") for port in ports]

    assert {host for host, _, _ in defaults} == {"127.0.0.1"}
    assert len({outside for _, outside, _ in defaults}) == len(defaults)


def test_the_monitors_find_each_other() -> None:
    """Prometheus scrapes services at the port where they are told to serve; Grafana asks it."""
    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    source = yaml.safe_load(
        (DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text()
    )["datasources"][0]
    boards = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/percipio.yml").read_text())
    (scraped,) = [job for job in config["scrape_configs"] if job["job_name"] == "percipio"]
    (found,) = scraped["dns_sd_configs"]
    mounted = {volume.split(":")[1] for volume in SERVICES["prometheus"]["volumes"]}
    boards_at = {volume.split(":")[1] for volume in SERVICES["grafana"]["volumes"]}

    for name in found["names"]:
        assert int(SERVICES[name]["environment"]["PERCIPIO_METRICS_PORT"]) == found["port"], name
    assert {f"/etc/prometheus/{name}" for name in config["rule_files"]} <= mounted
    assert source["url"] == "http://prometheus:9090"
    assert boards["providers"][0]["options"]["path"] in boards_at
    assert {name for name, each in SERVICES.items() if each.get("profiles") == ["monitor"]} == {
        "prometheus",
        "grafana",
    }


SELDOM = re.compile(
    "dead_letters_total|drops|lost|late_|claimed|renewed|fenced|gpu|missed|refused|memory_limit"
)
"""What a small healthy deployment has nothing of."""
METRICS_PORT = 19_480


@pytest.mark.long
@pytest.mark.timeout(180)
async def test_every_query_is_answered(redis: Any, worker: Worker, tmp_path: Path) -> None:
    """A Prometheus scrapes workers at work, and has what every panel and every rule asks for."""
    prometheus = shutil.which("prometheus")
    if prometheus is None:
        pytest.skip("prometheus is not installed (Debian: apt-get install prometheus)")
    model = {"PERCIPIO_MODEL": str(ROOT / "pipeline/data/demo.pt"), "PERCIPIO_DEVICE": "cpu"}
    names = ("score", "detect", "api")
    for number, name in enumerate(names):
        at = {"PERCIPIO_METRICS_PORT": str(METRICS_PORT + 20 * number), "PERCIPIO_API_PORT": "0"}
        worker(name, at | (model if name == "detect" else {}))
    url = url_in(tmp_path / "2-api.log")
    targets = [f"127.0.0.1:{METRICS_PORT + 20 * number}" for number in range(len(names))]
    job = {"job_name": "percipio", "static_configs": [{"targets": targets}]}
    config = {"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    asked = f"127.0.0.1:{METRICS_PORT + 90}"
    command = [prometheus, f"--config.file={tmp_path / 'prometheus.yml'}", "--log.level=error"]
    command += [f"--storage.tsdb.path={tmp_path / 'data'}", f"--web.listen-address={asked}"]
    running = await asyncio.create_subprocess_exec(*command, cwd=tmp_path)
    try:
        async with httpx.AsyncClient() as http, http.stream("GET", f"{url}/v1/live"):
            await _answers(http, url, f"http://{asked}/api/v1/query")
    finally:
        running.terminate()
        await running.wait()


async def _answers(http: httpx.AsyncClient, api: str, prometheus: str) -> None:
    """Publish, read and listen until no query is left without an answer."""
    picture = encode_jpeg(np.random.default_rng(7).integers(0, 255, (96, 128, 3), np.uint8), 90)
    headers = {"content-type": "image/jpeg"}
    left = {query.replace("$__rate_interval", "10s") for query in queries()}

    async def is_answered() -> bool:
        events = [{"values": {"a": 0.1, "b": 0.2}}] * 5
        await http.post(f"{api}/v1/sources/robot-7/events", json=events)
        await http.post(f"{api}/v1/sources/cam-1/frames", content=picture, headers=headers)
        for path in ("/v1/sources/robot-7/state", "/v1/status", "/v1/sources/cam-1/scores"):
            await http.get(api + path)
        for query in list(left):
            try:
                answer = (await http.get(prometheus, params={"query": query})).json()
            except httpx.TransportError:
                return False  # it starts
            assert answer["status"] == "success", (query, answer)
            if answer["data"]["result"] or SELDOM.search(query) or query in RULES:
                left.discard(query)
        assert not left, sorted(left)
        return True

    await eventually(is_answered, 150.0, "every query")


RULES = {rule["expr"] for rule in ALERTS}
"""A rule that nothing fires has no result; that it is a query is enough."""
