"""The manifests say what the code knows: settings, commands, metrics, numbers that fit together."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import metrics
from pipeline.settings import Settings, load_settings
from workers.main import COMMANDS
from workers.ray import add_arguments

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "deploy/kuberay").glob("*.yaml")) + sorted(
    (ROOT / "deploy/keda").glob("*.yaml")
)
DOCUMENTS = [each for file in FILES for each in yaml.safe_load_all(file.read_text())]


def documents(kind: str) -> list[dict[str, Any]]:
    return [each for each in DOCUMENTS if each["kind"] == kind]


def pods(node: Any) -> Iterator[dict[str, Any]]:
    """Give every pod's spec below a node."""
    if isinstance(node, dict):
        if "containers" in node:
            yield node
        for child in node.values():
            yield from pods(child)
    elif isinstance(node, list):
        for child in node:
            yield from pods(child)


PODS = [pod for document in DOCUMENTS for pod in pods(document)]


def fleet_arguments() -> argparse.Namespace:
    (job,) = documents("RayJob")
    command, ray, *words = shlex.split(job["spec"]["entrypoint"])
    assert (command, ray) == ("percipio", "ray")
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)


def test_no_pod_has_variables_injected() -> None:
    assert len(PODS) == 5
    assert all(pod["enableServiceLinks"] is False for pod in PODS)


def test_every_variable_is_a_setting_in_range() -> None:
    """`load_settings` refuses any other name, and what it does not take."""
    (job,) = documents("RayJob")
    environs = [yaml.safe_load(job["spec"]["runtimeEnvYAML"])["env_vars"]]
    containers = [each for pod in PODS for each in pod["containers"]]
    environs += [{row["name"]: row["value"] for row in c.get("env", ())} for c in containers]

    assert sum(map(len, environs)) > 8
    for environ in environs:
        load_settings(environ)


def test_every_deployment_runs_a_command() -> None:
    for deployment in documents("Deployment"):
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        (name,) = container["args"]
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert name in COMMANDS
        assert name == labels["role"]
        assert labels == deployment["spec"]["selector"]["matchLabels"]


def test_the_fleet_fits_the_cluster() -> None:
    """A worker finds a node that is large enough, and the most of them find enough nodes."""
    args, (cluster,) = fleet_arguments(), documents("RayCluster")
    (group,) = cluster["spec"]["workerGroupSpecs"]
    cpus = float(group["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
    (job,) = documents("RayJob")

    assert args.verb == "up"
    assert args.address == "auto"
    assert max(args.detect_cpus, args.score_cpus) <= cpus
    wanted = args.detect[1] * args.detect_cpus + args.score[1] * args.score_cpus
    assert wanted <= cpus * group["maxReplicas"]
    least = args.detect[0] * args.detect_cpus + args.score[0] * args.score_cpus
    assert least <= cpus * group["minReplicas"]
    assert job["spec"]["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}


def test_ray_is_the_pinned_one_and_asks_for_a_token() -> None:
    (cluster,) = documents("RayCluster")
    pinned = re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.M)

    assert pinned is not None
    assert cluster["spec"]["rayVersion"] == pinned[1]
    assert cluster["spec"]["authOptions"] == {"mode": "token"}


@pytest.mark.parametrize("scaled", documents("ScaledObject"), ids=lambda d: d["metadata"]["name"])
def test_an_autoscaler_follows_our_number(scaled: dict[str, Any]) -> None:
    spec = scaled["spec"]
    targets = {each["metadata"]["name"]: each for each in documents("Deployment")}
    role = targets[spec["scaleTargetRef"]["name"]]["spec"]["template"]["metadata"]["labels"]["role"]
    (trigger,) = spec["triggers"]
    found = re.fullmatch(r'max\((\w+)\{(\w+)="(\w+)"\}\)', trigger["metadata"]["query"])

    assert found is not None
    assert (found[1], found[2]) == (metrics.WANTED._name, *metrics.WANTED._labelnames)
    assert found[3] == role
    assert (trigger["metricType"], trigger["metadata"]["threshold"]) == ("AverageValue", "1")
    assert 1 <= spec["minReplicaCount"] <= spec["maxReplicaCount"]
    if role == "score":
        assert spec["maxReplicaCount"] == Settings().streams.partitions
