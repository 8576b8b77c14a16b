"""`percipio demo`: Redis, all workers, API and page, a source and a live table, in one go."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from time import monotonic
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.status import Status as RichStatus
from rich.table import Table

from pipeline.client import Client
from pipeline.errors import DependencyError, SettingsError
from pipeline.ledger import Status, differences, read_status
from pipeline.partition import Keys
from pipeline.scene import Scene
from pipeline.settings import Settings
from pipeline.stream import Store
from pipeline.video import open_reader
from workers.group import Group, run_group
from workers.tally import Tally, percentiles_ms

SCENE_FPS = 15.0
SCENE_SEED = 1_000_037  # beyond those that the model was trained or evaluated on
SCENE_CONFIDENCE = 0.35  # where precision and recall balance on held-out scenes
START_S = 180.0
USUAL_S = 12.0
FIRST_START = (
    "the first start on a machine compiles the score and exports the model, a minute or so"
)
DRAIN_S = 20.0
TABLE_HZ = 4
SPARKS = "▁▂▃▄▅▆▇█"
SPARK_WIDTH = 24

Publish = Callable[[Client, Tally, asyncio.Event], Coroutine[Any, Any, None]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("--input", help="a video or a folder of pictures; else a built-in scene")
    parser.add_argument("--seconds", type=float, help="end after so long; else at Ctrl-C")
    parser.add_argument("--json", action="store_true", help="no table; one JSON object at the end")
    parser.add_argument("--seed", type=int, default=SCENE_SEED, help="of the built-in scene")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Run the demo and clean up after it."""
    if args.input and not Path(args.input).exists():
        raise SettingsError(f"--input {args.input}: no such file or folder")
    with (
        tempfile.TemporaryDirectory(prefix="percipio-demo-") as folder,
        _model(args, settings) as environ,
        run_group(settings, ("detect", "score"), environ, Path(folder)) as group,
    ):
        return asyncio.run(_demo(args, settings, group))


@contextmanager
def _model(args: argparse.Namespace, settings: Settings) -> Iterator[dict[str, str]]:
    """Give the settings of the built-in scene's own model, where nothing else was chosen."""
    if args.input or "PERCIPIO_MODEL" in settings.given:
        yield {}
        return
    with as_file(files("pipeline").joinpath("data/demo.pt")) as path:
        mine = {
            "PERCIPIO_MODEL": str(path),
            "PERCIPIO_IMAGE_SIZE": "320",
            "PERCIPIO_CONFIDENCE": str(SCENE_CONFIDENCE),
        }
        yield {name: value for name, value in mine.items() if name not in settings.given}


async def _demo(args: argparse.Namespace, settings: Settings, group: Group) -> int:
    console = Console(stderr=args.json)
    tally, stop = Tally(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    keys = Keys(settings.streams.key_prefix, settings.streams.partitions)
    with console.status("starting Redis and the workers …") as shown:
        await _until_ready(group, keys, shown)
    console.print(f"page and API at {group.page.url}", highlight=False)
    publish = _publish_video(args.input) if args.input else _publish_scene(args.seed)
    async with Client(group.redis_url, key_prefix=keys.prefix) as client:
        following = asyncio.create_task(_follow(client, tally))
        publishing = asyncio.create_task(publish(client, tally, stop))
        try:
            await _show(args, group, tally, (following, publishing), stop)
        finally:
            stop.set()
            await asyncio.wait([publishing])
            async with Store.open(group.redis_url, keys, create=False) as store:
                status = await _drain(store)
            following.cancel()
    _finish(args, console, tally, status)
    return 0 if status.is_balanced else 1


async def _until_ready(group: Group, keys: Keys, shown: RichStatus) -> None:
    """Wait for a detect worker in its group, an owner of every partition, and the page."""
    began_s = monotonic()
    while True:
        group.check()
        try:
            async with Store.open(group.redis_url, keys, create=False) as store:
                status = await read_status(store)
            owned = all(part.owner for part in status.partitions)
            is_detecting = status.partitions[0].streams["frames"].consumers > 0
            if owned and is_detecting and await asyncio.to_thread(group.page.is_ready):
                return
        except DependencyError:
            pass  # the first worker has not made the deployment yet
        waited_s = monotonic() - began_s
        if waited_s > START_S:
            raise DependencyError(f"the workers were not ready after {START_S:.0f} s")
        if waited_s > USUAL_S:
            shown.update(f"{FIRST_START} ({waited_s:.0f} s so far)")
        await asyncio.sleep(0.1)


def _publish_scene(seed: int) -> Publish:
    """A camera and sensors at a place that does not exist; what it shows is known."""

    async def publish(client: Client, tally: Tally, stop: asyncio.Event) -> None:
        scene, index, began_s = Scene(seed, fps=SCENE_FPS), 0, monotonic()
        while not stop.is_set():
            frame = await asyncio.to_thread(scene.frame, index)
            frame_id = await client.publish_frame("scene-1", frame.image, live=True)
            if frame_id:
                tally.truth[frame_id] = frame.truth
            await client.publish_event("scene-1", scene.events(index))
            tally.counts.update(frames_in=1, events_in=1)
            index += 1
            await _sleep_until(began_s + index / SCENE_FPS, stop)

    return publish


def _publish_video(path: str) -> Publish:
    """A file as if it were a camera: in real time, again and again."""

    async def publish(client: Client, tally: Tally, stop: asyncio.Event) -> None:
        source = re.sub(r"[^A-Za-z0-9._:-]", "-", Path(path).stem)[:128] or "video"
        pictures, began_s = iter(open_reader(path, loop=True)), monotonic()
        while not stop.is_set():
            picture = await asyncio.to_thread(next, pictures)
            await _sleep_until(began_s + picture.at_s, stop)
            await client.publish_frame(source, picture.image, live=True)
            tally.counts["frames_in"] += 1

    return publish


async def _sleep_until(at_s: float, stop: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(stop.wait(), max(0.0, at_s - monotonic()))
    except TimeoutError:
        return


async def _follow(client: Client, tally: Tally) -> None:
    async for result in client.follow():
        entry_ms = int(result.id.rpartition("/")[2].partition("-")[0])
        if result.kind == "detections":
            tally.detection(entry_ms, result.fields)
        else:
            tally.score(entry_ms, result.fields)


async def _show(
    args: argparse.Namespace,
    group: Group,
    tally: Tally,
    tasks: tuple[asyncio.Task[None], ...],
    stop: asyncio.Event,
) -> None:
    """Draw the table until the time is up or a task or worker ends."""
    ends_s = monotonic() + (args.seconds if args.seconds is not None else float("inf"))
    quiet = args.json or not sys.stdout.isatty()
    address, console = group.page.url, Console(quiet=quiet)
    with Live(_table(tally, address), auto_refresh=False, console=console) as live:
        while monotonic() < ends_s and not stop.is_set():
            done, _ = await asyncio.wait(tasks, timeout=1 / TABLE_HZ, return_when="FIRST_COMPLETED")
            for task in done:
                task.result()
            group.check()
            live.update(_table(tally, address), refresh=True)


async def _drain(store: Store) -> Status:
    """Wait until everything published is accounted for, for a while."""
    deadline_s = monotonic() + DRAIN_S
    while True:
        status = await read_status(store)
        if status.is_balanced or monotonic() > deadline_s:
            return status
        await asyncio.sleep(0.1)


def _table(tally: Tally, address: str = "") -> Table:
    frame, event = percentiles_ms(tally.frame_ms), percentiles_ms(tally.event_ms)
    table = Table(title=_headline(tally), title_justify="left", caption_justify="left")
    table.caption = (
        f"frame to detection: p50 {_ms(frame['p50'])}, p95 {_ms(frame['p95'])}   "
        f"event to score: p50 {_ms(event['p50'])}, p95 {_ms(event['p95'])}"
        + (f"\npage and API: {address}" if address else "")
    )
    for column, width in (("source", 8), ("level", 5), ("", SPARK_WIDTH), ("phase", 9)):
        table.add_column(column, no_wrap=True, min_width=width)
    table.add_column("tracks", no_wrap=True, justify="right")
    table.add_column("objects in the newest frame", no_wrap=True)
    for name, view in tally.sources.items():
        sparks = "".join(
            SPARKS[min(7, int(level * 8))] for level in list(view.levels)[-SPARK_WIDTH:]
        )
        row = (name, f"{view.level:.3f}", sparks, view.phase, str(view.tracks), view.labels)
        table.add_row(*row)
    return table


def _headline(tally: Tally) -> str:
    counts = tally.counts
    text = (
        f"frames in {counts['frames_in']}, detected {counts['detected']} ({tally.fps():.1f}/s), "
        f"objects {counts['objects']}, events in {counts['events_in']}, scored {counts['scored']}"
    )
    recall, precision = tally.recall(), tally.precision()
    if recall is not None and precision is not None:
        text += f", recall {recall:.3f}, precision {precision:.3f}"
    return text


def _ms(value: float | None) -> str:
    return "?" if value is None else f"{value:.0f} ms"


def _summary(tally: Tally, status: Status) -> dict[str, Any]:
    terms = status.terms
    summary: dict[str, Any] = {
        "frames_in": terms["frames_in"],
        "detected": terms["frames_detected"] + terms["frames_cached"],
        "dropped": {
            name: terms[f"frames_dropped_{name}"] for name in ("age", "overflow", "duplicate")
        },
        "dead": terms["frames_dead"] + terms["events_dead"],
        "objects": tally.counts["objects"],
        "objects_per_frame": round(tally.counts["objects"] / max(1, tally.counts["detected"]), 2),
        "events_in": terms["events_in"],
        "scored": terms["events_scored"] + terms["frames_scored"],
        "latency_ms": {
            "frame_to_detection": percentiles_ms(tally.frame_ms),
            "event_to_score": percentiles_ms(tally.event_ms),
        },
        "fps": round(tally.mean_fps(), 2),
        "sources": {
            name: {"level": view.level, "phase": view.phase} for name, view in tally.sources.items()
        },
        "ledger": {"balanced": status.is_balanced, "difference": differences(terms)},
    }
    if (recall := tally.recall()) is not None and (precision := tally.precision()) is not None:
        summary |= {"recall": round(recall, 4), "precision": round(precision, 4)}
    return summary


def _finish(args: argparse.Namespace, console: Console, tally: Tally, status: Status) -> None:
    summary = _summary(tally, status)
    if args.json:
        print(json.dumps(summary))
        return
    console.print(_table(tally))
    drops = ", ".join(f"{count} {why}" for why, count in summary["dropped"].items())
    balance = "balances" if status.is_balanced else f"is open: {summary['ledger']['difference']}"
    console.print(f"dropped: {drops}; dead letters: {summary['dead']}; the ledger {balance}")
