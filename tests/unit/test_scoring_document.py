"""docs/scoring.md shows what its example prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).parents[2].joinpath("docs/scoring.md").read_text()
EXAMPLE = DOCUMENT.split("## A worked example")[1].split("\n## ")[0]
NUMBER = re.compile(r"-?\d+\.\d+")


def test_the_worked_example_prints_what_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """Words, counts and layout are the same; numbers with a point to one in their second place."""
    _, code, _, shown, _ = EXAMPLE.split("```")

    exec(code.removeprefix("python"), {})

    printed = capsys.readouterr().out
    assert NUMBER.sub("#", printed) == NUMBER.sub("#", shown.removeprefix("\n"))
    assert [float(x) for x in NUMBER.findall(printed)] == pytest.approx(
        [float(x) for x in NUMBER.findall(shown)], abs=0.0101
    )
