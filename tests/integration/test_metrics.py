"""Metrics and health over HTTP, as Prometheus and an orchestrator ask for them."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Histogram, generate_latest
from prometheus_client.metrics import MetricWrapperBase

from pipeline import metrics
from pipeline.errors import SettingsError
from pipeline.health import Health
from pipeline.metrics import MetricsServer, serve_metrics


def a_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
def server(health: Health) -> Iterator[MetricsServer]:
    served = serve_metrics(a_free_port(), "127.0.0.1", health)
    assert served is not None
    yield served
    served.close()


def get(server: MetricsServer, path: str) -> tuple[int, str]:
    try:
        with urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_counts_and_process_memory_are_served(server: MetricsServer) -> None:
    metrics.describe_build(worker="detect")
    metrics.DROPS.labels("detect", "for-this-test").inc(3)
    with metrics.timed("detect", "for-this-test"):
        pass

    status, text = get(server, "/metrics")

    assert status == 200
    assert 'percipio_drops_total{reason="for-this-test",stage="detect"} 3.0' in text
    assert 'percipio_step_seconds_count{stage="detect",step="for-this-test"} 1.0' in text
    assert "percipio_build_info{" in text
    if sys.platform == "linux":
        assert "process_resident_memory_bytes" in text


def test_ready_and_alive_are_what_health_says(server: MetricsServer, health: Health) -> None:
    assert get(server, "/healthz") == (200, "ok\n")
    assert get(server, "/readyz") == (503, "starting\n")

    health.ready()
    assert get(server, "/readyz") == (200, "ok\n")
    assert get(server, "/else")[0] == 404


def test_a_taken_port_gives_the_next_free_one(server: MetricsServer, health: Health) -> None:
    second = serve_metrics(server.port, "127.0.0.1", health)
    assert second is not None

    with_next = second.port
    second.close()

    assert server.port < with_next < server.port + metrics.PORTS_TRIED


def test_twenty_taken_ports_are_a_wrong_setting(
    server: MetricsServer, health: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "PORTS_TRIED", 1)

    with pytest.raises(SettingsError, match=f"PERCIPIO_METRICS_PORT={server.port}"):
        serve_metrics(server.port, "127.0.0.1", health)


def test_an_address_of_another_machine_is_a_wrong_setting(health: Health) -> None:
    with pytest.raises(SettingsError, match=r"192\.0\.2\.1"):
        serve_metrics(a_free_port(), "192.0.2.1", health)


def test_port_zero_serves_nothing(health: Health) -> None:
    assert serve_metrics(0, "127.0.0.1", health) is None


def test_every_metric_has_our_prefix_a_unit_or_noun_and_a_sentence() -> None:
    ours = [made for made in vars(metrics).values() if isinstance(made, MetricWrapperBase)]
    families = [family for made in ours for family in made.describe()]

    assert len(families) >= 20
    assert all(family.name.startswith("percipio_") for family in families)
    assert all(family.documentation.endswith(".") for family in families)


def test_a_gpu_is_measured_and_a_lost_one_spoils_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = False

    def use(_handle: str) -> SimpleNamespace:
        if broken:
            raise OSError("GPU is lost")
        return SimpleNamespace(gpu=40)

    driver = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetUtilizationRates=use,
        nvmlDeviceGetMemoryInfo=lambda _handle: SimpleNamespace(used=1024),
    )
    monkeypatch.setitem(sys.modules, "pynvml", driver)

    assert metrics.watch_gpu("abc")
    assert 'percipio_gpu_use_ratio{gpu="GPU-abc"} 0.4' in metrics.render("")[0].decode()
    broken = True
    text = metrics.render("")[0].decode()

    assert 'percipio_gpu_use_ratio{gpu="GPU-abc"} NaN' in text
    assert 'percipio_gpu_memory_bytes{gpu="GPU-abc"} 1024.0' in text
    metrics.GPU_USE.clear()
    metrics.GPU_MEMORY.clear()


def test_without_a_driver_there_is_no_gpu_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)

    assert not metrics.watch_gpu("abc")
    assert "GPU-abc" not in metrics.render("")[0].decode()


def test_a_batch_of_values_is_counted_like_values_one_by_one() -> None:
    bounds, values = (0.5, 1.0), [0.1, 0.5, 0.7, 3.0]
    registry = CollectorRegistry()
    one_by_one = Histogram("a_seconds", "A.", ["kind"], buckets=bounds, registry=registry)
    for value in values:
        one_by_one.labels("x").observe(value)
    together = metrics.BatchHistogram("b_seconds", "B.", "kind", bounds)
    REGISTRY.unregister(together)
    registry.register(together)

    together.observe("x", values[:3])
    together.observe("x", values[3:])

    lines = generate_latest(registry).decode().splitlines()
    samples = [line for line in lines if line[0] != "#" and "_created" not in line]
    expected = [line.replace("a_", "b_", 1) for line in samples if line.startswith("a_")]
    assert [line for line in samples if line.startswith("b_")] == expected
