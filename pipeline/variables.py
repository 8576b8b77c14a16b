"""Settings as environment variables: declared once as a field, then parsed, checked and listed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from pipeline.parsers import Parser, redact

PREFIX = "PERCIPIO_"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Variable:
    """One row of the table of settings.

    Attributes:
        name: with its prefix.
        parser: what it takes.
        default: as it would be written in the environment; empty for none.
        says: one sentence (or two short ones) for README.
    """

    name: str
    parser: Parser[Any]
    default: str
    says: str


def variable(assignment: str, parser: Parser[T], says: str, *, shown: bool = True) -> T:
    """Declare a dataclass field that is set by a variable.

    Args:
        assignment: `NAME=default` without the prefix, as one would write it in the environment.
        parser: also parses the default, so that a default is always in range.
        says: what the setting means.
        shown: False keeps the value out of the dataclass's repr.
    """
    name, _, default = assignment.partition("=")
    row = Variable(PREFIX + name, parser, default, says)
    made: T = field(default=parser.parse(default), metadata={"variable": row}, repr=shown)
    return made


def variables_of(part: type[Any]) -> Iterator[tuple[str, Variable]]:
    """Give the name of each field of a dataclass with the variable that sets it."""
    for row in fields(part):
        yield row.name, row.metadata["variable"]


def texts_of(environ: Mapping[str, str]) -> dict[str, str]:
    """Give the variables with our prefix, without the blanks around their values."""
    return {name: text.strip() for name, text in environ.items() if name.startswith(PREFIX)}


def unknown(names: Iterable[str], known: Iterable[str]) -> Iterator[str]:
    """Give a message for each of `names` that is not among the `known`."""
    candidates = list(known)
    for name in sorted(set(names).difference(candidates)):
        near = difflib.get_close_matches(name, candidates, n=1, cutoff=0.75)
        hint = f", did you mean {near[0]}?" if near else ""
        yield f"{name} is not a setting{hint}"


def parse_part(part: type[T], texts: Mapping[str, str], problems: list[str]) -> T:
    """Make a dataclass from `texts`; what is not taken is added to `problems`.

    A variable that is set to nothing counts as unset, as compose files pass it on.
    """
    values: dict[str, object] = {}
    for name, row in variables_of(part):
        if not (text := texts.get(row.name, "")):
            continue
        try:
            values[name] = row.parser.parse(text)
        except ValueError:
            problems.append(f"{row.name}={redact(text)!r}: takes {row.parser.takes}")
    return part(**values)


def as_markdown(rows: Iterable[Variable]) -> str:
    """Give README's table."""
    lines = ["| variable | default | takes | meaning |", "|---|---|---|---|"]
    for row in rows:
        default = f"`{row.default}`" if row.default else "none"
        lines.append(f"| `{row.name}` | {default} | {row.parser.takes} | {row.says} |")
    return "\n".join(lines)


def as_text(rows: Iterable[Variable]) -> str:
    """Give what the command's help says about settings."""
    found = list(rows)
    width = max(len(row.name) for row in found)
    return "\n".join(f"{row.name:<{width}}  {row.says} [{row.default or 'none'}]" for row in found)
