"""The capacity model's arithmetic, by costs that make it easy to check by hand."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest

from pipeline.capacity import (
    GIBI,
    Cost,
    Costs,
    Demand,
    Machine,
    detect_cores,
    memory_gib,
    net_gbit_per_s,
    plan,
    redis_cores,
    score_cores,
    spread,
)
from workers.main import main
from workers.plan import ANSWERS, load_costs

NOTHING = Costs(*(Cost(0.0, "by hand", measured=True) for _ in fields(Costs)))
GPU = replace(NOTHING, gpu_frames_per_s=Cost(500.0, "a guess", measured=False))
EVENTS = Demand(events_per_s=10_000, sources=500)


def costs(**values: float) -> Costs:
    """Give costs that are 0 but for these."""
    return replace(GPU, **{name: Cost(value, "by hand", True) for name, value in values.items()})


def test_an_event_an_entry_and_a_window_add_up() -> None:
    """10,000 events/s in 2,000 entries/s of 500 sources: 0.3 + 0.04 + 0.1 cores."""
    found = costs(score_us_event=30, score_us_entry=20, score_us_window=200)

    assert score_cores(replace(EVENTS, events_per_entry=5), found) == pytest.approx(0.44)


def test_redis_and_network_count_frames() -> None:
    """100 frames/s of 100 kB pass Redis three times: 0.24 Gbit/s and their own cost."""
    demand = Demand(cameras=10, fps=10)
    found = costs(redis_us_frame=500, net_bytes_frame=25_000)

    assert redis_cores(demand, found) == pytest.approx(0.05)
    assert net_gbit_per_s(demand, found) == pytest.approx(8e-9 * 100 * 325_000)


def test_entries_after_an_evaluation_and_pictures_cost_by_their_kind() -> None:
    """500 of 2,000 entries/s follow an evaluation; 100 pictures/s of 100 kB with 4 objects each."""
    events = costs(redis_us_window=100, net_bytes_window=1000)
    frames = costs(redis_us_kb=2, net_bytes_object=1000, detect_ms_frame=30)
    demand = Demand(cameras=10, fps=10)

    assert redis_cores(replace(EVENTS, events_per_entry=5), events) == pytest.approx(0.05)
    assert redis_cores(replace(EVENTS, events_per_entry=100), events) == pytest.approx(0.01)
    assert net_gbit_per_s(EVENTS, events) == pytest.approx(8e-9 * 500_000)
    assert redis_cores(demand, frames) == pytest.approx(0.02)
    assert net_gbit_per_s(demand, frames) == pytest.approx(8e-9 * 100 * 304_000)
    assert detect_cores(replace(demand, frame_px=640 * 192), frames) == pytest.approx(1.5)


def test_units_leave_room() -> None:
    """2.4 busy cores at 60 % of each are four workers, and a partition never has half of one."""
    found = plan(EVENTS, costs(score_us_event=240), Machine(share=0.6))

    assert found.score_workers == 4
    assert found.needs[0].name == "score workers"
    assert found.partitions == 16
    assert found.deployments == 1


def test_frames_go_to_cores_or_gpus() -> None:
    """800 frames/s of 40 ms are 32 busy cores, or 1.6 GPUs of 500 frames/s each."""
    demand, found = Demand(cameras=80, fps=10), costs(detect_ms_frame=40)

    assert plan(demand, found, Machine(share=0.5)).detect_workers == 64
    assert plan(demand, found, Machine(share=0.5, gpus=2)).detect_workers == 4


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"redis_us_event": 120}, "Redis"),
        ({"net_bytes_event": 400_000}, "network of Redis"),
        ({"redis_bytes_source": 1e9}, "memory of Redis"),
        ({"score_us_event": 1e6}, "score workers"),
    ],
)
def test_what_saturates_first(changed: dict[str, float], expected: str) -> None:
    """The resource of which one unit is filled most often comes first, and has an answer."""
    found = plan(EVENTS, costs(**changed), Machine())

    assert found.needs[0].name == expected
    assert expected in ANSWERS
    if expected != "score workers":
        assert found.primaries >= found.needs[0].used


def test_memory_holds_sources_pictures_and_results() -> None:
    """Results are kept up to the setting in every partition, never more than a day's."""
    found = costs(redis_bytes_source=7000, keep_bytes_entry=600)
    demand = Demand(cameras=10, fps=1, events_per_s=10_000, sources=990, kept=1000)
    idle = replace(demand, events_per_s=0.0, cameras=0, sources=1000)

    assert memory_gib(demand, found, 16) * GIBI == pytest.approx(7e6 + 1e6 + 16_000 * 600)
    assert memory_gib(idle, found, 16) * GIBI == pytest.approx(7e6)


@pytest.mark.parametrize(
    ("workers", "primaries", "expected"),
    [
        (1, 1, (16, 1)),
        (40, 3, (80, 1)),
        (500, 1, (1000, 1)),
        (501, 1, (501, 2)),
        (9, 900, (900, 4)),
    ],
)
def test_partitions(workers: int, primaries: int, expected: tuple[int, int]) -> None:
    """Two partitions a worker, four a primary, 16 at least; beyond 1,000 another deployment."""
    assert spread(workers, primaries) == expected


def test_costs_are_all_there() -> None:
    """A cost that is missing or not known is named; the shipped ones are complete and sourced."""
    with pytest.raises(ValueError, match="score_us_event"):
        Costs.from_map({})

    shipped = load_costs()
    for each in fields(Costs):
        cost = getattr(shipped, each.name)
        assert cost.value >= 0
        assert cost.source
        assert cost.date
    assert not shipped.assumed()


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """`percipio plan` prints the plan, and what it stands on that was not measured."""
    words = ["plan", "--cameras", "20000", "--fps", "5", "--events", "1000", "--gpus", "4"]

    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["demand"]["sources"] == 100
    assert found["saturates_first"] in ANSWERS
    assert found["plan"]["detect_workers"] > 1
    assert found["costs"]["gpu_frames_per_s"]["measured"]
    assert main(words) == 0
    assert "Not measured" not in capsys.readouterr().out
    assert main([*words, "--gpu-fps", "700"]) == 0
    assert "Not measured" in capsys.readouterr().out


def test_a_gpu_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    """`--gpu-fps` takes the place of the assumed speed."""
    words = ["plan", "--cameras", "100", "--fps", "10", "--gpus", "1", "--json"]

    counts = []
    for speed in ("100", "1000"):
        assert main([*words, "--gpu-fps", speed]) == 0
        counts.append(json.loads(capsys.readouterr().out)["plan"]["detect_workers"])

    assert counts == [17, 2]


@pytest.mark.parametrize("words", [["--cameras", "-1"], ["--events", "nan"], ["--cores", "0"]])
def test_wrong_usage(words: list[str]) -> None:
    """What is below its range ends with 2."""
    with pytest.raises(SystemExit) as ended:
        main(["plan", *words])

    assert ended.value.code == 2
