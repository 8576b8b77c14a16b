"""`percipio plan`: what a deployment of so many cameras, events and sources needs, by the model."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from importlib.resources import files

from rich.console import Console
from rich.table import Table

from pipeline.capacity import Cost, Costs, Demand, Machine, Need, Plan, plan
from pipeline.settings import Settings

ANSWERS = {
    "score workers": "start more, on any machine: each owns its share of the partitions",
    "Redis": "more primaries: a partition is one slot, moved whole",
    "network of Redis": "more primaries on more machines, or fewer bytes a picture",
    "memory of Redis": "more primaries, or a smaller PERCIPIO_RESULTS_KEEP",
    "detection": "start more workers: they share the frames; on GPUs, larger batches",
    "partitions": "deployments side by side (PERCIPIO_KEY_PREFIX), each with its own sources",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("--cameras", type=_count, default=0, metavar="N")
    parser.add_argument("--fps", type=_amount, default=10.0, help="frames a second of a camera")
    parser.add_argument("--events", type=_amount, default=0.0, help="a second, of all sources")
    parser.add_argument("--sources", type=_count, help="of events; else 10 events/s of each")
    parser.add_argument("--frame-bytes", type=_count, default=100_000, help="of a picture")
    parser.add_argument("--cores", type=_positive, default=16, help="of a machine")
    parser.add_argument("--gpus", type=_count, default=0, help="of a machine that detects")
    parser.add_argument("--gpu-fps", type=_amount, help="frames a second of one GPU: measure yours")
    parser.add_argument("--gbit", type=_amount, default=10.0, help="network of a machine, Gbit/s")
    parser.add_argument("--redis-gib", type=_amount, default=32.0, help="memory of a primary")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Print the plan, what it is built on, and what saturates first."""
    sources = round(args.events / 10) if args.sources is None else args.sources
    demand = Demand(
        cameras=args.cameras,
        fps=args.fps,
        events_per_s=args.events,
        sources=sources,
        frame_bytes=args.frame_bytes,
        kept=settings.streams.results_keep,
    )
    machine = Machine(args.cores, args.gbit, args.redis_gib, args.gpus)
    costs = load_costs(args.gpu_fps)
    found = plan(demand, costs, machine)
    if args.json:
        print(json.dumps(as_json(demand, machine, costs, found)))
    else:
        show(demand, machine, costs, found)
    return 0


def load_costs(gpu_fps: float | None = None) -> Costs:
    """Read the measured costs, with a GPU's speed in place of the assumed one if it is given."""
    text = files("pipeline").joinpath("data/costs.json").read_text()
    costs = Costs.from_map(json.loads(text))
    if gpu_fps is None:
        return costs
    return replace(costs, gpu_frames_per_s=Cost(gpu_fps, "--gpu-fps", measured=False))


def as_json(demand: Demand, machine: Machine, costs: Costs, found: Plan) -> dict[str, object]:
    """Give everything, the costs with their sources included."""
    first = found.needs[0]
    return {
        "model": "computed from measured costs, not measured",
        "demand": asdict(demand),
        "machine": asdict(machine),
        "plan": asdict(found) | {"slots": found.slots},
        "saturates_first": first.name,
        "answer": ANSWERS[first.name],
        "costs": asdict(costs),
    }


def show(demand: Demand, machine: Machine, costs: Costs, found: Plan) -> None:
    """Print tables."""
    console = Console()
    console.print(
        f"{demand.cameras:,} cameras at {demand.fps:g} frames/s, {demand.events_per_s:,.0f} "
        f"events/s of {demand.sources:,} sources; {machine.share:.0%} of each unit in use. "
        "Computed from measured costs, not measured."
    )
    table = Table()
    for column in ("", "busy", "units", "when it is full"):
        table.add_column(column, justify="right" if column in {"busy", "units"} else "left")
    for need in found.needs:
        table.add_row(need.name, _busy(need), f"{need.units:,}", ANSWERS[need.name])
    console.print(table)
    console.print(
        f"{found.machines:,} machines of {machine.cores} cores: {found.score_workers:,} score "
        f"workers, {found.detect_workers:,} {'GPUs' if machine.gpus else 'cores'} for detection, "
        f"{found.primaries:,} Redis primaries with a replica each; {found.deployments} deployments "
        f"of {found.partitions} partitions, {found.slots:,} slots. "
        f"Saturates first: {found.needs[0].name}."
    )
    shown = costs.assumed() if machine.gpus else {}
    for name, cost in shown.items():
        console.print(f"Not measured: {name} {cost.value:,.0f} ({cost.source})", style="yellow")


def _busy(need: Need) -> str:
    return f"{need.used:,.2f} {need.unit}"


def _amount(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: must be 0 or more")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text}: must be 0 or more")
    return value


def _positive(text: str) -> int:
    value = _count(text)
    if value == 0:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value
