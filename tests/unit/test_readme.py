"""README says what the code does."""

from __future__ import annotations

from pathlib import Path

from pipeline.settings import table
from pipeline.variables import as_markdown
from workers.main import COMMANDS

README = Path(__file__).parents[2].joinpath("README.md").read_text()


def test_the_settings_table_is_the_one_of_the_code() -> None:
    """`python -m pipeline.settings` prints what README shows."""
    shown = README.split("<!-- settings -->")[1].split("<!-- /settings -->")[0]

    assert shown.strip() == as_markdown(table()).strip()


def test_the_commands_it_shows_exist() -> None:
    """Every `percipio WORD` at the start of a line is a command."""
    shell = "".join(block.split("```")[0] for block in README.split("```sh")[1:])
    words = [line.split()[1] for line in shell.splitlines() if line.startswith("percipio ")]

    assert words
    assert set(words) <= COMMANDS.keys()


def test_the_files_it_names_exist() -> None:
    """The table of files points to files."""
    root = Path(__file__).parents[2]
    rows = README.split("## Where things are")[1].split("## Licence")[0]
    names = [part for index, part in enumerate(rows.split("`")) if index % 2]
    paths = [n if "/" in n.rstrip("/") or n == "workers/" else f"pipeline/{n}" for n in names]

    assert [p for p in paths if "make check" not in p and not (root / p).exists()] == []
