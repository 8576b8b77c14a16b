"""`percipio detect`: one detect worker, frames and recordings to detections."""

from __future__ import annotations

import argparse
import asyncio
from concurrent.futures import ThreadPoolExecutor

from pipeline.answer_store import AnswerStore
from pipeline.answers import AnswerMemory
from pipeline.consumer import consume
from pipeline.detect_feed import DetectFeed, DetectLimits
from pipeline.detect_stage import DetectWork, Network
from pipeline.detector import DetectorOptions, YoloDetector, load_detector
from pipeline.entries import InputLimits
from pipeline.gauges import watch_lag
from pipeline.image import encode_jpeg
from pipeline.inputs import Inputs
from pipeline.log import get_logger
from pipeline.metrics import watch_gpu
from pipeline.partition import Keys
from pipeline.reuse import Reuse
from pipeline.settings import DetectSettings, Settings
from pipeline.still import StillGate
from pipeline.stream import Store
from pipeline.tasks import end_tasks
from workers.runner import Context, run_worker

LAST_FRAME_S = 60


def add_arguments(_parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes: nothing, the settings say it all."""


def run(_args: argparse.Namespace, _settings: Settings) -> int:
    """Run until SIGTERM or Ctrl-C."""
    return run_worker("detect", main)


def detector_options(settings: DetectSettings) -> DetectorOptions:
    """Give the part of the settings that concerns the network."""
    return DetectorOptions(
        model=settings.model,
        model_dir=settings.model_dir,
        sha256=settings.model_sha256,
        labels=settings.labels,
        classes=settings.classes,
        device=settings.device,
        runtime=settings.runtime,
        image_size=settings.image_size,
        confidence=settings.confidence,
        iou=settings.iou,
        threads=settings.threads,
        precision=settings.precision,
    )


def _load(settings: DetectSettings) -> YoloDetector:
    detector = load_detector(detector_options(settings))
    detector.warm_up()
    return detector


def _limits(settings: Settings, detector: YoloDetector) -> DetectLimits:
    """Give the bounds; a GPU is done before one thread has scaled and read what it computes."""
    mine, cpu = settings.detect, detector.info.device == "cpu"
    wait_ms = mine.batch_wait_ms if mine.batch_wait_ms is not None else (0.0 if cpu else 5.0)
    return DetectLimits(
        batch_size=mine.batch_size or detector.info.batch_size,
        batch_wait_s=wait_ms / 1e3,
        max_age_ms=settings.streams.frame_max_age_ms,
        max_deliveries=mine.max_deliveries,
        keep_last=settings.streams.keep_last_frame,
        seats=2 if cpu else 4,
    )


async def main(context: Context) -> None:
    """Load the network, then detect until told to stop; what was begun is finished."""
    settings, streams = context.settings, context.settings.streams
    keys = Keys(streams.key_prefix, streams.partitions)
    async with Store.open(settings.redis.url, keys, wait_s=settings.redis.wait_s) as store:
        detector = await asyncio.to_thread(_load, settings.detect)
        info = detector.info
        model = f"{info.name}@{info.digest12}"
        get_logger().info(
            "model_ready", model=model, runtime=info.runtime, device=info.device, why=info.why
        )
        if info.device.startswith("cuda"):
            from pipeline.runtime_torch import gpu_uuid

            watch_gpu(gpu_uuid(info.device))
        limits = _limits(settings, detector)
        network = Network(detector, model, info.labels, encode_jpeg)
        answers = _answers(store, settings.detect)
        reuse = _reuse(settings.detect, detector, answers)
        with ThreadPoolExecutor(info.threads, thread_name_prefix="decode") as decoders:
            work = DetectWork(network, limits, keys.partitions, decoders, reuse)
            inputs = Inputs(store, context.consumer, _input_limits(settings))
            feed = DetectFeed(inputs, limits, work.prepare, work.turn)
            async with asyncio.TaskGroup() as group:
                if answers is not None:
                    group.create_task(answers.run(context.stop), name="answers")
                await _serve(context, inputs, feed, work, 2 if info.device == "cpu" else 8)


def _answers(store: Store, mine: DetectSettings) -> AnswerStore | None:
    if not (mine.cache_bytes and mine.cache_redis_bytes):
        return None
    return AnswerStore(store, mine.cache_redis_bytes, mine.cache_ttl_s)


def _reuse(mine: DetectSettings, detector: YoloDetector, answers: AnswerStore | None) -> Reuse:
    info = detector.info
    network = f"{info.name}@{info.digest12}|{info.runtime}|{info.precision}|{mine.image_size}"
    return Reuse(
        f"{network}|{mine.confidence}|{mine.iou}|{','.join(mine.classes)}",
        AnswerMemory(mine.cache_bytes) if mine.cache_bytes else None,
        answers,
        StillGate(mine.still_threshold, mine.still_run) if mine.still_threshold else None,
    )


def _input_limits(settings: Settings) -> InputLimits:
    streams = settings.streams
    return InputLimits(
        claim_idle_ms=settings.detect.claim_idle_ms,
        backlog=streams.frames_backlog,
        max_age_ms=streams.frame_max_age_ms,
        ttl_s=streams.state_ttl_s,
        last_ttl_s=LAST_FRAME_S,
        results_keep=streams.results_keep,
    )


async def _serve(
    context: Context, inputs: Inputs, feed: DetectFeed, work: DetectWork, lanes: int = 2
) -> None:
    """Run as many lanes: one's batch is collected and decoded while others' are in the network."""
    keep_s = inputs.limits.claim_idle_ms / 4e3
    watching = inputs.watch()
    context.health.ready()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(feed.keep(context.stop, keep_s), name="keep")
            group.create_task(watch_lag(inputs.store, context.stop), name="lag")
            for lane in range(lanes):
                lane_task = consume(feed, work, context.stop, context.health)
                group.create_task(lane_task, name=f"lane-{lane}")
    finally:
        await end_tasks(watching)


if __name__ == "__main__":
    raise SystemExit(run_worker("detect", main))
