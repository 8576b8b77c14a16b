"""Every setting of the score that is taken gives parameters that the engine takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import SettingsError
from pipeline.scoring.channels import ChannelMap, ChannelMaps
from pipeline.settings import load_settings
from workers.score import check_ttl, parameters_of, read_maps


@pytest.mark.parametrize("bin_ms", [10, 19, 250, 5001, 60_000])
@pytest.mark.parametrize("hop", [1, 4, 64])
def test_any_bin_and_hop_that_is_taken_works(bin_ms: int, hop: int) -> None:
    environ = {"PERCIPIO_BIN_MS": str(bin_ms), "PERCIPIO_HOP": str(hop)}

    found = parameters_of(load_settings(environ).score)

    assert (found.delta_ms, found.hop_bins) == (bin_ms, hop)
    assert found.stale_after_ms >= bin_ms


def test_a_window_does_not_outlive_what_is_kept() -> None:
    """64 + 8 + 20 bins of a quarter second, or of a minute by a map, and ten seconds."""
    parameters = parameters_of(load_settings({}).score)
    wide = ChannelMaps((ChannelMap("s-*", {}, {}, 60_000),))

    check_ttl(parameters, ChannelMaps(), 60)
    with pytest.raises(SettingsError, match=r"STATE_TTL_S=32: .* 250 ms .* set at least 33"):
        check_ttl(parameters, ChannelMaps(), 32)
    with pytest.raises(SettingsError, match=r"bins of 60000 ms .* at least 4390"):
        check_ttl(parameters, wide, 300)
    check_ttl(parameters, wide, 4390)


def test_the_channel_map_file_is_read(tmp_path: Path) -> None:
    """A file that is away or no text is a wrong setting; without one names are free."""
    path = tmp_path / "channels.toml"
    with pytest.raises(SettingsError, match=r"channels\.toml.*No such file"):
        read_maps(path)
    path.write_text('version = 1\n[[map]]\nsources = "cam-*"\nchannels = { x = 1 }')
    found = read_maps(path).of("cam-1")

    assert found is not None
    assert found.channels["x"].place == 1
    assert read_maps(None).of("cam-1") is None
    path.write_text("version = [")
    with pytest.raises(SettingsError, match=r"channels\.toml"):
        read_maps(path)


def test_a_hop_that_does_not_divide_the_window_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"PERCIPIO_HOP=.*1, 2, 4, 8, 16, 32 or 64"):
        load_settings({"PERCIPIO_HOP": "3"})
