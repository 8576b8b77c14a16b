"""Log lines: one object per line, whoever writes them, and no password in any."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator

import pytest

from pipeline import log


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    """Where this test's lines go; logging is as before after it."""
    root, ours = logging.getLogger(), logging.getLogger("percipio")
    before = root.handlers[:], root.level, ours.level
    yield io.StringIO()
    logging.captureWarnings(capture=False)
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])


def lines(out: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_what_is_bound(out: io.StringIO) -> None:
    log.configure("json", "info", stream=out, worker="detect")

    log.get_logger().warning("entry_failed", source="cam-1", name="n", process=3)

    [line] = lines(out)
    assert line.pop("timestamp")
    assert line == {
        "level": "warning",
        "event": "entry_failed",
        "worker": "detect",
        "source": "cam-1",
        "name": "n",
        "process": 3,
    }


def test_libraries_and_warnings_come_out_the_same_way(out: io.StringIO) -> None:
    log.configure("json", "info", stream=out)

    logging.getLogger("some.library").warning("got %d", 3)
    logging.getLogger("some.library").info("chatter")
    with warnings.catch_warnings():
        # pytest puts its own hook back after each test, which logging does not notice
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.simplefilter("default")
        warnings.warn("old", stacklevel=1)

    first, second = lines(out)
    assert (first["event"], first["logger"], first["level"]) == ("got 3", "some.library", "warning")
    assert "UserWarning: old" in str(second["event"])


def test_what_is_less_severe_than_the_level_is_not_written(out: io.StringIO) -> None:
    log.configure("json", "warning", stream=out)

    log.get_logger().info("started")

    assert out.getvalue() == ""


def test_a_traceback_stays_on_the_line_of_its_failure(out: io.StringIO) -> None:
    log.configure("json", "info", stream=out)

    try:
        int("redis://user:hunter2@host")
    except ValueError as error:
        log.get_logger().exception("worker_crashed", cause=error)

    [line] = lines(out)
    assert "Traceback" in str(line["exception"])
    assert "redis://***@host" in str(line["cause"])
    assert "hunter2" not in out.getvalue()


def test_text_is_for_people_and_without_colours_in_a_file(out: io.StringIO) -> None:
    log.configure("text", "info", stream=out, worker="score")

    log.get_logger().info("started", url="redis://:hunter2@host")

    assert "started" in out.getvalue()
    assert "worker=score" in out.getvalue()
    assert "\x1b" not in out.getvalue()
    assert "hunter2" not in out.getvalue()


def test_auto_is_json_where_no_terminal_is(out: io.StringIO) -> None:
    log.configure("auto", "info", stream=out)

    log.get_logger().info("started")

    assert lines(out)[0]["event"] == "started"
