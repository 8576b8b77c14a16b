"""What every worker process does around its work: settings, log, signals, metrics, exit code."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass
from typing import Any

from pipeline import metrics
from pipeline.errors import PercipioError
from pipeline.health import Health
from pipeline.log import configure, get_logger
from pipeline.settings import Settings, load_settings
from workers.slots import take_slot

log = get_logger()

_BEAT_S = 1.0
_CANCEL_S = 2.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, slots=True)
class Context:
    """What a worker's main function is given.

    Attributes:
        settings: complete and in range; hand on parts of it.
        consumer: this worker's name in consumer groups, kept over restarts.
        stop: set by the first SIGTERM or SIGINT: finish what was begun, then return.
        health: call `ready()` once work is taken, `progress()` in every pass of a loop.
    """

    settings: Settings
    consumer: str
    stop: asyncio.Event
    health: Health


Main = Callable[[Context], Coroutine[Any, Any, None]]


def run_worker(name: str, main: Main) -> int:
    """Run `main` to its end, or to that of the grace period after a signal, as a whole process.

    The first SIGTERM or SIGINT sets `stop`; a second one ends the process at once.

    Args:
        name: `detect`, `score`, `api`: in log lines, metrics and the consumer's name.
        main: returns when its work is done or `stop` is set.

    Returns:
        The exit code: 0 done, 1 failed, 2 wrong setting, 3 something is away. What failed was
        logged in one line, with a traceback only if it was not foreseen.
    """
    try:
        settings = load_settings()
    except PercipioError as error:
        print(f"percipio {name}: {error}", file=sys.stderr)
        return error.exit_code
    faulthandler.enable()
    configure(settings.process.log_format, settings.process.log_level, worker=name)
    try:
        with ExitStack() as stack:
            consumer = settings.process.consumer or _take_name(name, stack)
            return _run(name, main, settings, consumer)
    except Exception as error:  # the last one to catch it: everything ends as a line and a number
        return _exit_code(error)
    except KeyboardInterrupt:  # before our handlers were in place
        return 128 + signal.SIGINT


def _run(name: str, main: Main, settings: Settings, consumer: str) -> int:
    process = settings.process
    configure(process.log_format, process.log_level, worker=name, consumer=consumer)
    metrics.describe_build(worker=name)
    health = Health()
    server = metrics.serve_metrics(process.metrics_port, process.metrics_host, health)
    with (
        closing(server) if server else nullcontext(),
        asyncio.Runner(loop_factory=_loop_factory()) as runner,
    ):
        runner.run(_attend(main, settings, consumer, health))
    return 0


def _take_name(worker: str, stack: ExitStack) -> str:
    try:
        slot = take_slot(worker)
    except OSError as error:
        log.warning("no_stable_name", error=str(error), help="set PERCIPIO_CONSUMER")
        return f"{worker}-{os.getpid()}"
    stack.enter_context(slot.lock)
    return slot.name


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        log.info("uvloop_missing", used="asyncio")
        return None
    return uvloop.new_event_loop


async def _attend(main: Main, settings: Settings, consumer: str, health: Health) -> None:
    stop = asyncio.Event()
    _handle_signals(stop, health)
    beating = asyncio.create_task(_beat(health, settings.process.stall_s), name="beat")
    stopping = asyncio.create_task(stop.wait(), name="stopping")
    working = asyncio.create_task(main(Context(settings, consumer, stop, health)), name="working")
    try:
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait((working,), timeout=settings.process.grace_s)
        if not working.done():
            await _give_up(working, settings.process.grace_s)
        await working
    finally:
        beating.cancel()
        stopping.cancel()


async def _give_up(working: asyncio.Task[None], grace_s: float) -> None:
    """End the process: what it held is delivered again to others."""
    log.error("grace_exceeded", grace_s=grace_s)
    working.cancel()
    await asyncio.wait((working,), timeout=_CANCEL_S)
    logging.shutdown()
    os._exit(1)  # a thread that does not end would keep the interpreter from ending


async def _beat(health: Health, stall_s: float) -> None:
    while True:
        health.beat()
        if health.busy_s > stall_s:
            log.error("stuck", busy_s=round(health.busy_s), help="another takes over what it held")
            logging.shutdown()
            os._exit(1)  # the thread that does not end cannot be ended otherwise
        await asyncio.sleep(_BEAT_S)


def _handle_signals(stop: asyncio.Event, health: Health) -> None:
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        for each in _SIGNALS:  # the second is the kernel's, which needs no loop that turns
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)
        log.info("stopping", signal=number.name)
        health.unready("stopping")
        stop.set()

    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal, number)


def _exit_code(error: Exception) -> int:
    foreseen = _foreseen(error)
    if foreseen is None:
        log.error("worker_crashed", exc_info=error)
        return 1
    log.error("worker_failed", error=str(foreseen), exit_code=foreseen.exit_code)
    return foreseen.exit_code


def _foreseen(error: BaseException) -> PercipioError | None:
    """Give our own error, or the first of a group that holds none but ours."""
    if isinstance(error, BaseExceptionGroup):
        found = [_foreseen(inner) for inner in error.exceptions]
        return found[0] if all(found) else None
    return error if isinstance(error, PercipioError) else None
