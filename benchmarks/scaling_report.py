"""Writes what `benchmarks.scaling` measured into docs/scaling.md, as tables and a picture."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- {}: begin -->", "<!-- {}: end -->"
Row = dict[str, Any]


def write(measured: Path, docs: Path) -> None:
    """Put the tables between their marks in scaling.md and draw img/scaling.png.

    Raises:
        ValueError: a mark is missing.
    """
    lines = [json.loads(line) for line in measured.read_text().splitlines()]
    rows = _newest([line for line in lines if "pipeline" in line])
    page = docs / "scaling.md"
    text = page.read_text()
    text = _put(text, "baseline", baseline_table(rows))
    text = _put(text, "cells", cell_table(rows))
    memories = [line["memory"] for line in lines if "memory" in line]
    if memories:
        text = _put(text, "memory", memory_table(memories[-1]))
    soaked = [line["soak"] for line in lines if "soak" in line]
    if soaked:
        text = _put(text, "soak", soak_table(soaked))
    page.write_text(text)
    draw(rows, docs / "img" / "scaling.png")


def _key(row: Row) -> tuple[str, str, int, int, int]:
    return (
        row["pipeline"],
        row["place"],
        row["workers"],
        row["batch"] or 0,
        row["channels"],
    )


def _newest(rows: Iterable[Row]) -> list[Row]:
    """Give each cell once, medians over its runs."""
    runs: dict[tuple[str, str, int, int, int], list[Row]] = {}
    for row in rows:
        runs.setdefault(_key(row), []).append(row)
    return [_median(these) for _, these in sorted(runs.items())]


def _median(rows: Sequence[Row]) -> Row:
    merged = dict(rows[-1]) | {"runs": len(rows)}
    rates = [row["events_per_s"] for row in rows]
    merged["low"], merged["high"] = min(rates), max(rates)
    for name in ("events_per_s", "cpu_us", "redis_us", "rss_mib", "uss_mib", "load_average"):
        merged[name] = statistics.median(row[name] for row in rows)
    for name in ("latency_ms", "spread"):
        columns = zip(*(row[name] for row in rows), strict=True)
        merged[name] = [statistics.median(column) for column in columns]
    return merged


def _put(text: str, mark: str, table: str) -> str:
    before, found, rest = text.partition(BEGIN.format(mark))
    _, closed, after = rest.partition(END.format(mark))
    if not found or not closed:
        raise ValueError(f"no {BEGIN.format(mark)} with its end")
    return f"{before}{found}\n{table}\n{closed}{after}"


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """Give a table in Markdown."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def baseline_table(rows: Sequence[Row]) -> str:
    """Compare one worker of each pipeline."""
    body = []
    for channels in sorted({row["channels"] for row in rows}):
        alike = [r for r in rows if r["channels"] == channels and r["workers"] == 1]
        plain = [r for r in alike if r["pipeline"] != "percipio"]
        ours = [r for r in alike if r["pipeline"] == "percipio" and not r["batch"]]
        for row in plain + [r for r in ours if r["place"] == "processes"]:
            p50, p95, p99 = row["latency_ms"]
            first = plain[0]["events_per_s"] if plain else row["events_per_s"]
            body.append(
                [
                    row["pipeline"],
                    str(channels),
                    f"{row['events_per_s']:,.0f}",
                    f"{1e3 / row['events_per_s']:.3f}",
                    f"{row['cpu_us']:,.0f} + {row['redis_us']:,.0f}",
                    f"{p50:g} / {p95:g} / {p99:g} at {row['offered_per_s']:,}/s",
                    f"{row['events_per_s'] / first:,.0f}",
                    f"{row['load_average']:.0f}",
                ]
            )
    head = ("pipeline, one worker", "channels", "events/s", "ms an event")
    return table(
        [
            *head,
            "CPU us an event, worker + Redis",
            "latency p50 / p95 / p99 ms",
            "times faster",
            "load",
        ],
        body,
    )


def _rate(row: Row) -> str:
    """Give the rate, with the least and the most of several runs."""
    several = f" ({row['low']:,.0f} to {row['high']:,.0f})" if row["runs"] > 1 else ""
    return f"{row['events_per_s']:,.0f}{several}"


def cell_table(rows: Sequence[Row]) -> str:
    """Give every cell of workers and batch sizes."""
    body = []
    for row in rows:
        if row["pipeline"] != "percipio" or row["channels"] != 4:
            continue
        p50, p95, p99 = row["latency_ms"]
        most, least = row["spread"]
        body.append(
            [
                row["place"],
                str(row["workers"]),
                str(row["batch"] or "default"),
                _rate(row),
                f"{row['cpu_us']:.0f} + {row['redis_us']:.0f}",
                f"{p50:g} / {p95:g} / {p99:g}",
                f"{row['rss_mib']:,.0f} ({row['uss_mib']:,.0f})",
                f"{least:.2f} to {most:.2f}",
                f"{row['load_average']:.0f}",
            ]
        )
    head = ("placed as", "workers", "batch", "events/s", "CPU us, workers + Redis")
    return table(
        [
            *head,
            "p50 / p95 / p99 ms at 2,000/s",
            "RSS (own) MiB",
            "least to most of a worker",
            "load",
        ],
        body,
    )


def memory_table(row: Row) -> str:
    """Give bytes per source."""
    body = []
    for channels in (4, 16):

        def size(name: str, channels: int = channels) -> float:
            return float(row[f"{name}, {channels} channels"])

        ours = size("percipio worker") + size("percipio redis")
        text, objects = size("baseline redis"), size("baseline objects")
        for name, worker, redis in (
            ("percipio", size("percipio worker"), size("percipio redis")),
            ("baseline", 0.0, text),
            ("baseline, sources held", objects, text),
        ):
            saved = "" if name == "percipio" else f"{100 * (1 - ours / (worker + redis)):.0f} %"
            cells = [f"{x:,.0f}" for x in (worker, redis, worker + redis)]
            body.append([name, str(channels), *cells, saved])
    return table(
        ["pipeline", "channels", "worker", "Redis", "bytes a source", "percipio saves"], body
    )


def soak_table(rows: Sequence[Row]) -> str:
    """Give what a long run shows, a line for every minute or so."""
    every = max(1, len(rows) // 10)
    body = []
    for start in range(0, len(rows), every):
        some = rows[start : start + every]
        columns = list(zip(*(row["by_worker"] for row in some), strict=True))
        workers = [statistics.mean(column) for column in columns]
        mean = statistics.mean(workers)
        body.append(
            [
                f"{some[0]['at_s']:,}",
                f"{statistics.mean(row['events_per_s'] for row in some):,.0f}",
                " ".join(f"{rate:,.0f}" for rate in workers),
                f"{100 * (max(workers) - min(workers)) / mean:.1f} %",
                " / ".join(
                    f"{statistics.median(row[name] for row in some):g}"
                    for name in ("p50_ms", "p95_ms", "p99_ms")
                ),
                f"{max(max(0, row['waiting']) for row in some):,}",
                " ".join(f"{rss:.0f}" for rss in some[-1]["rss_mib"]),
                f"{some[-1]['redis_rss_mib']:.0f}",
            ]
        )
    head = ("from s", "events/s", "by worker", "spread", "p50 / p95 / p99 ms")
    return table([*head, "most waiting", "RSS of workers, MiB", "of Redis"], body)


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw events per second and p95 by workers and batch size, with the baseline as a line."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    places = [
        p for p in ("processes", "ray") if any(r["place"] == p and r["workers"] > 1 for r in rows)
    ]
    figure, axes = plt.subplots(1, 2 * len(places), figsize=(6 * len(places) + 3, 4), squeeze=False)
    plain = [r for r in rows if r["pipeline"] != "percipio" and r["channels"] == 4]
    for at, place in enumerate(places):
        some = [
            r for r in rows if (r["pipeline"], r["place"], r["channels"]) == ("percipio", place, 4)
        ]
        rates, spans = axes[0][2 * at], axes[0][2 * at + 1]
        for batch in sorted({row["batch"] or 0 for row in some}):
            line = [row for row in some if (row["batch"] or 0) == batch]
            workers = [row["workers"] for row in line]
            label = f"batch {batch or 'default'}"
            rates.plot(workers, [row["events_per_s"] for row in line], "o-", label=label)
            spans.plot(workers, [row["latency_ms"][1] for row in line], "o-", label=label)
        for row in plain:
            rates.axhline(row["events_per_s"], color="grey", linestyle=":", linewidth=1)
        rates.set(title=f"{place}: events/s (dotted: baselines)", xlabel="workers", yscale="log")
        spans.set(title=f"{place}: p95 ms at 2,000/s", xlabel="workers")
        rates.legend(fontsize=7)
        for axis in (rates, spans):
            axis.set_xscale("log", base=2)
            axis.set_xticks([1, 2, 4, 8], ["1", "2", "4", "8"])
    figure.tight_layout()
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=90)
