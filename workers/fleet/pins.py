"""The versions that must be the same on every node: percipio's own code, and what computes."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from functools import cache
from importlib import metadata, resources
from importlib.resources.abc import Traversable

LIBRARIES = ("numba", "numpy", "openvino", "ray", "redis", "torch", "ultralytics")


@cache
def pins_here() -> Mapping[str, str]:
    """Give the versions of this process's environment; `missing` for what is not installed."""
    found = {"python": platform.python_version(), "code": _digest_of("pipeline", "workers")}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def differences(wanted: Mapping[str, str], here: Mapping[str, str]) -> str | None:
    """Say what is other than wanted, `numba 0.68.1, wanted 0.68.2`; None when nothing is."""
    found = [
        f"{name} {here.get(name, 'missing')}, wanted {version}"
        for name, version in sorted(wanted.items())
        if here.get(name) != version
    ]
    return "; ".join(found) or None


def _digest_of(*packages: str) -> str:
    digest = hashlib.sha256()
    for package in packages:
        for name, file in sorted(_files(resources.files(package), package)):
            digest.update(name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]


def _files(folder: Traversable, path: str) -> list[tuple[str, Traversable]]:
    found = []
    for item in folder.iterdir():
        if item.is_dir() and not item.name.startswith(("_", ".")):
            found += _files(item, f"{path}/{item.name}")
        elif item.name.endswith((".py", ".lua")):
            found.append((f"{path}/{item.name}", item))
    return found
