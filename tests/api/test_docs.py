"""docs/api.md: every example runs as it stands, against an API that has something to tell."""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from pipeline.image import encode_jpeg
from tests.api.conftest import KEYS, Api, Serve

TEXT = (Path(__file__).parents[2] / "docs/api.md").read_text()
BLOCK = re.compile(r"<!-- prints: ([^\n]*) -->\n```(\w+)\n(.*?)```", re.S)
KEY = "pk_of_the_examples"
PICTURE = encode_jpeg(np.full((48, 64, 3), 128, np.uint8), 90)
PROGRAMS = {
    "sh": ("bash", "example.sh"),
    "js": ("node", "example.mjs"),
    "python": ("", "example.py"),
}


class Example(NamedTuple):
    prints: str
    language: str
    code: str


EXAMPLES = [Example(*found) for found in BLOCK.findall(TEXT)]


@asynccontextmanager
async def with_results(api: Api) -> AsyncIterator[None]:
    """Have states, a frame with detections, and new scores all the time."""
    await api.state("cam-1", level="0.2500", phase="awakening")
    await api.store.run("SET", KEYS.of_source("cam-1").last("cam-1"), PICTURE)
    await api.detection("cam-1", "1-0", [])

    async def go_on() -> None:
        n = 0
        while True:
            n += 1
            await api.score("robot-7", n)
            await asyncio.sleep(0.1)

    async with asyncio.TaskGroup() as group:
        scoring = group.create_task(go_on())
        yield
        scoring.cancel()


def command_of(example: Example, folder: Path) -> list[str]:
    """Write an example as a program, and give what runs it; skips where that is not there."""
    program, name = PROGRAMS[example.language]
    head = "set -eu -o pipefail\n" if example.language == "sh" else ""
    tail = " || test $? = 23  # curl, cut off by head\n" if "| head" in example.code else ""
    (folder / name).write_text(head + example.code.rstrip("\n") + tail)
    found = sys.executable if example.language == "python" else shutil.which(program)
    if found is None or (example.language == "sh" and not shutil.which("curl")):
        pytest.skip(f"{program or 'curl'} is not installed")
    return [found, str(folder / name)]


def test_every_example_says_what_it_prints() -> None:
    """Only what starts the API is run elsewhere."""
    fences = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.S)

    assert {language for language, _ in fences} == set(PROGRAMS)
    assert [code for _, code in fences[1:]] == [each.code for each in EXAMPLES]


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
async def test_an_example_runs(number: int, serve: Serve, tmp_path: Path) -> None:
    example, folder = EXAMPLES[number], tmp_path / "example"
    folder.mkdir()
    (folder / "picture.jpg").write_bytes(PICTURE)
    command = command_of(example, folder)

    async with serve(f"{KEY}=admin") as api, with_results(api):
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=folder,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "API": api.url, "KEY": KEY},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 30)

    assert (process.returncode, err.decode()) == (0, ""), out.decode()
    assert re.search(example.prints, out.decode()), out.decode()
