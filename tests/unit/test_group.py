from __future__ import annotations

import socket
from dataclasses import replace

import pytest

from pipeline.errors import SettingsError
from pipeline.settings import load_settings
from workers.group import PORTS_TRIED, Page, choose_page


def test_a_port_that_was_asked_for_is_used_or_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(SettingsError, match=f"PERCIPIO_API_PORT={port} is taken"):
            choose_page(load_settings({"PERCIPIO_API_PORT": str(port)}))
    assert choose_page(load_settings({"PERCIPIO_API_PORT": str(port)})) == Page("127.0.0.1", port)


def test_another_is_looked_for_where_none_was_asked_for() -> None:
    settings = load_settings({})
    with socket.create_server(("127.0.0.1", 0)) as taken:
        first = min(taken.getsockname()[1], 65_535 - PORTS_TRIED)
        page = choose_page(replace(settings, api=replace(settings.api, port=first)))

        assert first <= page.port < first + PORTS_TRIED
        assert page.port != taken.getsockname()[1]


def test_zero_is_any_free_one_and_the_address_is_one_for_a_browser() -> None:
    page = choose_page(load_settings({"PERCIPIO_API_PORT": "0", "PERCIPIO_API_HOST": "0.0.0.0"}))

    assert page.port > 0
    assert page.url == f"http://127.0.0.1:{page.port}/"
    assert not page.is_ready()
