"""Workers and batch sizes against the straightforward pipeline: `python -m benchmarks.scaling`.

    python -m benchmarks.scaling --out FILE             everything, about 8 minutes a place
    python -m benchmarks.scaling --out FILE --parts baseline,memory --workers 1,2 --batches 50,0
    python -m benchmarks.scaling --soak 600             four workers for ten minutes
    python -m benchmarks.scaling --report FILE          the table and the picture of docs/scaling.md

Every cell starts a Redis (embedded, AOF on), workers and this generator on the same machine and
appends a line of JSON to FILE. Batch 0 is the default: a batch takes what is there, up to
PERCIPIO_SCORE_BATCH. FILE keeps what it has, so a run may be cut in pieces.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks import ours, scaling_report
from benchmarks.cells import Cell, Figures, Plan, measure_ours
from benchmarks.cells_plain import measure_plain
from benchmarks.load import Load
from benchmarks.scaling_memory import measure_memory
from benchmarks.scaling_soak import soak

BASELINES = {
    "baseline": [],
    "baseline, window when changed": ["--recompute", "window"],
    "baseline, the same, sources held": ["--recompute", "window", "--hold"],
}
MANY_CHANNELS = 16


def fleet_of(place: str) -> ours.Fleet:
    """Give what starts workers: plain processes, or actors of a local Ray."""
    if place == "ray":
        from benchmarks.ours_ray import actors

        return actors
    return ours.processes


def cells(places: list[str], workers: list[int], batches: list[int]) -> Iterator[Cell]:
    """Give every combination."""
    for place in places:
        for number in workers:
            for batch in batches:
                yield Cell("percipio", place, number, batch or None)


def compare(args: argparse.Namespace) -> Iterator[tuple[Cell, Figures]]:
    """Measure what is asked for, one cell after the other."""
    if "baseline" in args.parts:
        for channels in (4, MANY_CHANNELS):
            for name, options in BASELINES.items():
                cell = Cell(name, channels=channels)
                yield cell, measure_plain(cell, options, args.plain_seconds)
        cell = Cell(channels=MANY_CHANNELS)
        yield cell, measure_ours(cell, ours.processes, plan_of(args, cell))
    if "cells" in args.parts:
        for cell in cells(args.places, args.workers, args.batches):
            yield cell, measure_ours(cell, fleet_of(cell.place), plan_of(args, cell))


def plan_of(args: argparse.Namespace, cell: Cell) -> Plan:
    """Give what is offered to a cell."""
    return Plan(Load(args.sources, cell.channels), args.events, args.rate, args.seconds)


def tell(cell: Cell, figures: Figures) -> None:
    """Print a row."""
    name = cell.pipeline if cell.pipeline != "percipio" else cell.place
    batch = "" if cell.pipeline != "percipio" else f"batch {cell.batch or 'default'}"
    p50, p95, p99 = figures.latency_ms
    print(
        f"{name:34} {cell.channels:2} channels {cell.workers} workers {batch:14}"
        f"{figures.events_per_s:9,.0f} events/s {figures.cpu_us:9.1f} us CPU"
        f" {p50:7.1f} {p95:7.1f} {p99:7.1f} ms at {figures.offered_per_s}/s"
        f" {figures.rss_mib:7.0f} MiB",
        flush=True,
    )


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, help="append lines of JSON")
    parser.add_argument("--report", type=Path, help="measure nothing, write docs from this file")
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--parts", type=lambda t: t.split(","), default="baseline,memory,cells")
    parser.add_argument("--places", type=lambda t: t.split(","), default="processes")
    parser.add_argument("--workers", type=_numbers, default="1,2,4,8")
    parser.add_argument("--batches", type=_numbers, default="50,100,200,300,0")
    parser.add_argument("--sources", type=int, default=500)
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--rate", type=int, default=2000, help="events a second for the latency")
    parser.add_argument("--seconds", type=float, default=4.0, help="how long they are offered")
    parser.add_argument("--plain-seconds", type=float, default=6.0)
    parser.add_argument("--soak", type=float, help="seconds; one row every ten")
    return parser.parse_args()


def main() -> None:
    """Measure, or report."""
    args = _parse()
    if args.report:
        scaling_report.write(args.report, args.docs)
        return
    cores, python = psutil.cpu_count(), platform.python_version()
    print(f"{cores} cores {platform.machine()}, Python {python}, load {psutil.getloadavg()[0]:.1f}")
    lines = Lines(args.out)
    if args.soak:
        for sample in soak(args.soak, args.rate, args.workers[-1], Load(args.sources)):
            lines.add(json.dumps({"soak": sample}))
        return
    began_s = time.monotonic()
    if "memory" in args.parts:
        row = measure_memory()
        print(row, flush=True)
        lines.add(json.dumps({"memory": row}))
    for cell, figures in compare(args):
        tell(cell, figures)
        lines.add(figures.as_json(cell))
    print(f"{time.monotonic() - began_s:.0f} s")


class Lines:
    """A file of JSON lines that is added to, or none."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def add(self, line: str) -> None:
        """Append a line."""
        if self._path is not None:
            with self._path.open("a") as out:
                out.write(line + "\n")


if __name__ == "__main__":
    main()
