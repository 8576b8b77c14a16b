"""Puts the rows that the fault tests noted into the table of docs/delivery.md.

python -m tests.fault.table RESULTS.jsonl docs/delivery.md
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
COUNTS = ("inputs", "lost", "doubled", "reordered", "late", "dead")
HIDDEN = (*COUNTS, "row", "problems", "recovery_s", "repaired")


def line_of(row: dict[str, Any]) -> str:
    """Give a row of the table."""
    counts = [str(row.get(name, "")) for name in COUNTS]
    recovery = f"{row['recovery_s']} s" if "recovery_s" in row else ""
    beside = ", ".join(
        f"{name.replace('_', ' ')} {round(value, 2) if type(value) is float else value}"
        for name, value in row.items()
        if name not in HIDDEN and value not in (0, [])
    )
    return "| " + " | ".join([row["row"], *counts, recovery, beside]) + " |"


def main(results: Path, page: Path) -> None:
    """Replace the table, rows in order of their names; the newest line of a row counts."""
    rows = {row["row"]: row for row in map(json.loads, results.read_text().splitlines())}
    head = ["fault", *COUNTS, "recovery", "beside"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    order = sorted(
        rows.values(), key=lambda row: (row["row"].startswith("Cluster"), row["row"].lower())
    )
    lines += [line_of(row) for row in order]
    before, rest = page.read_text().split(BEGIN)
    after = rest.split(END)[1]
    page.write_text(before + BEGIN + "\n" + "\n".join(lines) + "\n" + END + after)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
