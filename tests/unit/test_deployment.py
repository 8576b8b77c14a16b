"""What operators start from: every file names commands, settings and files that exist."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pipeline.settings import load_settings, table

ROOT = Path(__file__).parents[2]
COMPOSE = sorted(ROOT.glob("docker-compose*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(params=COMPOSE, ids=lambda path: path.name)
def services(request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(request.param.read_text())["services"]
    return found


def test_compose_sets_only_settings_that_exist(services: dict[str, dict[str, Any]]) -> None:
    for service in services.values():
        load_settings({k: str(v or "") for k, v in service.get("environment", {}).items()})


def test_compose_keeps_every_entry_of_redis(services: dict[str, dict[str, Any]]) -> None:
    command = services["redis"]["command"]

    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command
    assert "/data" in services["redis"]["volumes"][0]
    assert services["redis"]["healthcheck"]["test"] == ["CMD", "redis-cli", "ping"]


def test_compose_workers_wait_for_redis_and_may_drain(services: dict[str, dict[str, Any]]) -> None:
    workers = {name: services[name] for name in ("detect", "score")}

    for name, service in workers.items():
        assert service["command"] == [name]
        assert service["depends_on"]["redis"]["condition"] == "service_healthy"
        assert int(service["stop_grace_period"].removesuffix("s")) > 20
        assert "container_name" not in service, "a fixed name cannot be scaled"
        assert "ports" not in service, "a fixed port cannot be scaled"


def test_compose_health_asks_the_port_that_is_served(services: dict[str, dict[str, Any]]) -> None:
    detect = services["detect"]
    code = detect["healthcheck"]["test"][-1]

    assert f":{detect['environment']['PERCIPIO_METRICS_PORT']}/readyz" in code
    compile(code, "healthcheck", "exec")


def test_the_procfile_names_workers_that_exist() -> None:
    lines = (ROOT / "Procfile").read_text().splitlines()
    words = [re.fullmatch(r"(\w+): python -m workers\.(\w+)", line) for line in lines]

    assert all(found and found[1] == found[2] for found in words)
    assert all(found and find_spec(f"workers.{found[2]}") for found in words)


def test_the_image_copies_files_that_exist_and_are_not_ignored() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY") for word in line.split()[1:-1]]
    kept = (ROOT / ".dockerignore").read_text().splitlines()

    assert {name for name in copied if not (ROOT / name).exists()} == set()
    assert {name for name in copied if f"!{name}" not in kept} == set()
    assert "USER percipio" in lines


def test_every_pin_agrees_with_the_project() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    lines += (ROOT / "constraints-cpu.txt").read_text().splitlines()
    pins = {
        canonicalize_name(pin.name): str(pin.specifier).removeprefix("==")
        for pin in map(Requirement, (line for line in lines if line[0] not in "#-"))
    }
    wanted = [
        *PROJECT["dependencies"],
        *(r for e in PROJECT["optional-dependencies"].values() for r in e),
    ]

    for requirement in map(Requirement, wanted):
        if (name := canonicalize_name(requirement.name)) != "percipio":
            assert requirement.specifier.contains(pins[name]), requirement


def test_make_help_names_every_target() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)

    for target in ("setup", "demo", "test", "check", "fmt", "bench", "fault"):
        assert f"make {target} " in shown.stdout


def test_make_demo_hands_on_seconds_and_input() -> None:
    shown = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "demo",
         "SECONDS=20", "INPUT=my film.mp4", "ARGS="],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert (
        shown.stdout.splitlines()[-1]
        .strip()
        .endswith('percipio demo --seconds 20 --input "my film.mp4"')
    )


def test_continuous_integration_runs_the_test_commands_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    subprocess.run(["bash", "-n", ROOT / ".ci" / "run"], check=True)

    commands = script.splitlines()[-3:]
    assert commands == ["make test", "make cluster", "make fault-short"]
    readme = (ROOT / "README.md").read_text().splitlines()
    assert all(any(line.startswith(f"{each} ") for line in readme) for each in commands)


def test_no_setting_is_missing_from_the_table() -> None:
    """What code, compose and make call PERCIPIO_* is a setting; the table is whole."""
    known = {row.name for row in table()}
    named: set[str] = set()
    for path in [*ROOT.glob("pipeline/**/*.py"), *ROOT.glob("workers/**/*.py"), *COMPOSE]:
        named |= set(re.findall(r"\bPERCIPIO_[A-Z0-9_]*[A-Z0-9]\b", path.read_text()))

    assert named - known == set()


def test_importing_the_library_loads_no_network() -> None:
    code = (
        "import sys, pipeline.settings, workers.runner; print({'torch', 'cv2'} & set(sys.modules))"
    )

    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)

    assert shown.stdout.strip() == b"set()"
