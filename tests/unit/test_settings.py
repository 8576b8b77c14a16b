"""Settings: complete, in range, or refused with a message that helps."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import FrozenInstanceError, asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import SettingsError
from pipeline.parsers import ClusterAddress, cluster_address, redact
from pipeline.settings import Settings, load_settings, table
from pipeline.variables import as_markdown, as_text

NAMES = [row.name for row in table()]


def test_nothing_set_gives_the_defaults_of_the_contract() -> None:
    settings = load_settings({"PATH": "/bin"})

    assert settings == Settings()
    assert settings.redis.url == "redis://127.0.0.1:6379/0"
    assert (settings.streams.key_prefix, settings.streams.partitions) == ("percipio", 16)
    assert (settings.streams.state_ttl_s, settings.streams.keep_last_frame) == (86_400, True)
    assert (settings.streams.results_keep, settings.streams.frame_max_age_ms) == (100_000, 1000)
    assert (settings.detect.model, settings.detect.image_size) == ("yolov9t", 640)
    assert (settings.detect.confidence, settings.detect.iou) == (0.25, 0.7)
    assert settings.score.reorder_ms == 2000
    assert (settings.api.host, settings.api.port) == ("127.0.0.1", 8080)
    assert settings.process.metrics_port == 0


def test_the_process_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERCIPIO_PARTITIONS", " 4 ")

    assert load_settings().streams.partitions == 4


def test_a_default_equals_the_same_text_given() -> None:
    given_all = {row.name: row.default for row in table() if row.default}

    assert asdict(load_settings(given_all)) | {"given": None} == asdict(Settings()) | {
        "given": None
    }


def test_a_variable_set_to_nothing_counts_as_unset() -> None:
    settings = load_settings({"PERCIPIO_PARTITIONS": "", "PERCIPIO_MODEL_SHA256": "  "})

    assert settings == Settings()


def test_a_chosen_value_can_be_told_from_a_default() -> None:
    settings = load_settings({"PERCIPIO_REDIS_URL": "redis://127.0.0.1:6379/0"})

    assert settings.given == {"PERCIPIO_REDIS_URL"}


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().streams.partitions = 3  # type: ignore[misc]


def test_an_unknown_name_is_refused_with_the_name_that_was_meant() -> None:
    with pytest.raises(SettingsError, match=r"PERCIPIO_PARTITION is not .* PERCIPIO_PARTITIONS\?"):
        load_settings({"PERCIPIO_PARTITION": "4"})


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({"PERCIPIO_XYZZY": "", "PERCIPIO_IOU": "2", "PERCIPIO_IMAGE_SIZE": "100"})

    message = str(caught.value)
    assert "PERCIPIO_XYZZY is not a setting" in message
    assert "PERCIPIO_IOU='2': takes 0 to 1" in message
    assert "PERCIPIO_IMAGE_SIZE='100': takes 32 to 4,096, a multiple of 32" in message


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("PARTITIONS", "0"),
        ("PARTITIONS", "1001"),
        ("PARTITIONS", "4.0"),
        ("KEY_PREFIX", "a{b}"),
        ("CONFIDENCE", "nan"),
        ("GRACE_S", "inf"),
        ("SURROGATES", "maybe"),
        ("RUNTIME", "tflite"),
        ("DEVICE", "cuda:x"),
        ("MODEL_SHA256", "abc"),
        ("CLASSES", "car,,person"),
        ("LABELS", "car,car"),
        ("BATCH_SIZE", "automatic"),
        ("CONSUMER", "two words"),
        ("REDIS_URL", "http://localhost"),
        ("REDIS_URL", "redis://"),
        ("REDIS_URL", "redis://host:99999"),
        ("REDIS_URL", "redis://host/first"),
        ("REDIS_URL", "redis://a b"),
        ("REDIS_URL", "redis://:p@ss@host"),
        ("REDIS_URL", "redis://user:1/2@host"),
        ("REDIS_URL", "unix://"),
        ("REDIS_URL", "redis+cluster://a:1,,b:2"),
        ("REDIS_URL", "redis+cluster://a:1/0"),
    ],
)
def test_a_value_that_is_not_taken_is_refused(name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=f"PERCIPIO_{name}=.*: takes "):
        load_settings({f"PERCIPIO_{name}": text})


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://user:p%40ss@localhost:6380/3?health_check_interval=5",
        "rediss://[::1]:6380/0?ssl_cert_reqs=required",
        "unix:///run/redis.sock",
        "unix:///run/redis.sock?db=2",
        "redis+cluster://a:7000,b:7001,[::1]:7002",
    ],
)
def test_redis_urls_of_the_contract_are_taken(url: str) -> None:
    assert load_settings({"PERCIPIO_REDIS_URL": url}).redis.url == url


def test_auto_and_numbers_are_taken_for_a_batch() -> None:
    settings = load_settings({"PERCIPIO_BATCH_SIZE": "16", "PERCIPIO_BATCH_WAIT_MS": "auto"})

    assert (settings.detect.batch_size, settings.detect.batch_wait_ms) == (16, None)


def test_paths_and_lists_become_values() -> None:
    settings = load_settings(
        {
            "PERCIPIO_MODEL_DIR": "~/weights",
            "PERCIPIO_API_KEYS_FILE": "keys",
            "PERCIPIO_CLASSES": "car, traffic light",
        }
    )

    assert settings.detect.model_dir == Path("~/weights").expanduser()
    assert settings.api.keys_file == Path("keys")
    assert settings.detect.classes == ("car", "traffic light")


def test_a_cluster_address_is_taken_apart() -> None:
    address = cluster_address("redis+cluster://u:p%2Fw@a:7000,b")

    assert address == ClusterAddress((("a", 7000), ("b", 6379)), "u", "p/w")
    assert "p/w" not in repr(address)


@given(st.text(alphabet="ab1:/?#%&=@", min_size=1).map(lambda text: f"hunter{text}2"))
def test_a_password_shows_nowhere(password: str) -> None:
    """Whatever is wrong with the URL, and however oddly the password is written."""
    url = f"redis://user:{password}@host:bad"

    with pytest.raises(SettingsError) as caught:
        load_settings({"PERCIPIO_REDIS_URL": url})

    assert "hunter" not in str(caught.value)
    assert "hunter" not in redact(f"read: {url}")
    assert "hunter" not in repr(load_settings({"PERCIPIO_REDIS_URL": "redis://:hunter@h"}))


@given(st.dictionaries(st.sampled_from(NAMES), st.text(max_size=12)))
def test_any_text_is_taken_or_refused_by_name(environ: dict[str, str]) -> None:
    try:
        settings = load_settings(environ)
    except SettingsError as error:
        assert any(name in str(error) for name in environ)  # noqa: PT017
    else:
        assert settings.given <= set(environ)


@given(st.integers())
def test_a_number_is_taken_exactly_within_its_range(number: int) -> None:
    environ = {"PERCIPIO_PARTITIONS": str(number)}

    if 1 <= number <= 1000:
        assert load_settings(environ).streams.partitions == number
    else:
        with pytest.raises(SettingsError):
            load_settings(environ)


def test_the_tables_name_every_setting() -> None:
    rows = list(table())

    assert all(f"| `{row.name}` |" in as_markdown(rows) for row in rows)
    assert as_text(rows).count("\n") == len(rows) - 1
    assert len({row.name for row in rows}) == len(rows)
    assert all(row.says.endswith((".", ")")) for row in rows)


def test_the_module_prints_its_table() -> None:
    command = [sys.executable, "-m", "pipeline.settings"]

    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)

    assert shown.stdout.strip() == as_markdown(table())
