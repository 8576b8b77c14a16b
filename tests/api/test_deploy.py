"""What operators are given: alerts that fire, a dashboard whose every query finds its metric."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

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
