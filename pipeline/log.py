"""Log lines: JSON, or readable on a terminal, one per failure. The home of structlog.

Loggers write through the standard library, so that a program using the SDK decides what it shows;
a worker calls `configure` once.
"""

from __future__ import annotations

import logging
import sys
from typing import TextIO, cast

import structlog
from structlog.stdlib import BoundLogger, ProcessorFormatter
from structlog.typing import EventDict, Processor, WrappedLogger

from pipeline.parsers import redact

Logger = BoundLogger
"""What `get_logger` gives: `log.warning("entry_failed", source="cam-1", error=str(error))`."""

_ROOT = "percipio"


def get_logger() -> Logger:
    """Give a logger; an event is a word in snake_case, what it is about are keyword arguments."""
    logger = structlog.wrap_logger(
        logging.getLogger(_ROOT),
        processors=[structlog.stdlib.filter_by_level, ProcessorFormatter.wrap_for_formatter],
        wrapper_class=BoundLogger,
    )
    return cast("Logger", logger)


def configure(
    log_format: str = "auto",
    level: str = "info",
    *,
    stream: TextIO | None = None,
    **bound: object,
) -> None:
    """Send all logging of this process, that of libraries included, to one place.

    Args:
        log_format: `json`, `text`, or `auto`: text on a terminal, else JSON.
        level: least severity of our own lines; libraries are heard from warning on.
        stream: where to, by default standard error.
        bound: goes into each line, e.g. `worker="detect"`.
    """
    out = sys.stderr if stream is None else stream
    as_text = log_format == "text" or (log_format == "auto" and out.isatty())
    handler = logging.StreamHandler(out)
    handler.setFormatter(_formatter(as_text=as_text, colors=out.isatty(), bound=bound))
    least = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(handlers=[handler], level=max(least, logging.WARNING), force=True)
    logging.getLogger(_ROOT).setLevel(least)
    logging.captureWarnings(capture=True)


def _formatter(*, as_text: bool, colors: bool, bound: dict[str, object]) -> ProcessorFormatter:
    def bind(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        first = {name: event[name] for name in ("timestamp", "level", "event")}
        return first | bound | dict(event)

    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.PositionalArgumentsFormatter(),
        bind,
        structlog.processors.format_exc_info,
        _without_secrets,
    ]
    render: Processor = structlog.processors.JSONRenderer(default=str)
    if as_text:
        render = structlog.dev.ConsoleRenderer(colors=colors)
    return ProcessorFormatter(
        processors=[_from_record, *shared, ProcessorFormatter.remove_processors_meta, render]
    )


def _from_record(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Name the library a line comes from; our own lines need no name."""
    record: logging.LogRecord = event["_record"]
    if not event["_from_structlog"]:
        event["logger"] = record.name
    return event


def _without_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Take credentials out of every URL, wherever in a line or a traceback it stands."""
    for name, value in event.items():
        if isinstance(value, Exception) or (isinstance(value, str) and "://" in value):
            event[name] = redact(str(value))
    return event
