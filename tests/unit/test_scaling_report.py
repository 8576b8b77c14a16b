"""What is measured reaches the page as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.cells import Cell, Figures
from benchmarks.scaling_report import memory_table, soak_table, write

MARKS = "".join(f"<!-- {m}: begin -->\n<!-- {m}: end -->\n" for m in ("baseline", "cells"))


def line(cell: Cell, events: int) -> str:
    """Give a measured row of so many events in a second."""
    figures = Figures(events, 1.0, 40.0, 9.0, 200.0, 150.0, 2000, (1.0, 2.0, 3.0), (1.25, 0.75))
    return figures.as_json(cell)


def test_tables(tmp_path: Path) -> None:
    """Cells appear once, as the median of their runs; speed is that over the first baseline."""
    (tmp_path / "scaling.md").write_text(MARKS)
    rows = [
        line(Cell("baseline"), 100),
        *(line(Cell(workers=1), events) for events in (9_000, 10_000, 30_000)),
        line(Cell(workers=4, batch=50), 20_000),
    ]
    (tmp_path / "rows").write_text("\n".join(rows))

    write(tmp_path / "rows", tmp_path)

    text = (tmp_path / "scaling.md").read_text()
    assert "| baseline | 4 | 100 | 10.000 |" in text
    assert "| percipio | 4 | 10,000 | 0.100 |" in text
    assert "| 100 |" in text
    assert "| processes | 4 | 50 | 20,000 | 40 + 9 |" in text
    assert "0.75 to 1.25" in text
    assert (tmp_path / "img" / "scaling.png").stat().st_size > 1000


def test_a_page_without_marks_is_refused(tmp_path: Path) -> None:
    """Nothing is written where the marks are missing; which one is said."""
    (tmp_path / "scaling.md").write_text("text")
    (tmp_path / "rows").write_text(json.dumps(json.loads(line(Cell(), 1))))

    with pytest.raises(ValueError, match="baseline"):
        write(tmp_path / "rows", tmp_path)


def test_memory_is_compared_in_all() -> None:
    """Worker and Redis together: 12,000 bytes against 24,000 are 50 % saved."""
    row: dict[str, float] = {}
    for channels in (4, 16):
        row[f"percipio worker, {channels} channels"] = 6000
        row[f"percipio redis, {channels} channels"] = 6000
        row[f"baseline redis, {channels} channels"] = 10_000
        row[f"baseline objects, {channels} channels"] = 14_000

    text = memory_table(row)

    assert "| baseline, sources held | 4 | 14,000 | 10,000 | 24,000 | 50 % |" in text
    assert "| baseline | 16 | 0 | 10,000 | 10,000 | -20 % |" in text


def test_spread_between_workers() -> None:
    """The spread is that between the workers' means, over their mean."""
    rows = [
        {
            "at_s": 10 * k,
            "events_per_s": 2000.0,
            "by_worker": [1100.0, 900.0],
            "waiting": k,
            "p50_ms": 5.0,
            "p95_ms": 9.0,
            "p99_ms": 12.0,
            "rss_mib": [200.0, 201.0],
            "redis_rss_mib": 50.0,
        }
        for k in range(3)
    ]

    assert "| 0 | 2,000 | 1,100 900 | 20.0 % | 5 / 9 / 12 | 0 |" in soak_table(rows)
