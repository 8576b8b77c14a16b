"""The page as it is shipped: whole, and with nothing in it that its policy forbids."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

import pytest

from pipeline.api.guard import CSP
from pipeline.api.page import load_assets

PAGE = Path(__file__).parents[2] / "pipeline" / "page"
OURS = sorted(path for path in PAGE.rglob("*") if path.is_file() and "vendor" not in path.parts)
SCRIPTS = [path for path in OURS if path.suffix == ".js"]
NAMESPACE = "http://www.w3.org/2000/svg"
VENDORED = {
    "uPlot.esm.js": "5dd9b3281aa64b461b42d9945f6adb2649d346502b12281a9ae0d46599a80eba",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}


def test_every_file_that_a_file_names_is_there() -> None:
    named = re.findall(r'(?:src|href)="([^"#]+)"', (PAGE / "index.html").read_text())
    assert {"js/app.js", "css/base.css"} <= set(named)
    for name in named:
        assert name == "docs" or (PAGE / name).is_file(), name
    for script in SCRIPTS:
        for name in re.findall(r'^import .*?"(.+?)";', script.read_text(), re.M | re.S):
            assert (script.parent / name).is_file(), (script.name, name)


def test_every_script_is_used() -> None:
    text = "".join(path.read_text() for path in (*SCRIPTS, PAGE / "index.html"))

    for script in SCRIPTS:
        assert f"{script.name}" in text.replace(f"// {script.name}", ""), script.name


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_nothing_asks_another_address_or_makes_markup_of_text(path: Path) -> None:
    text = path.read_text().replace(NAMESPACE, "")

    assert not re.search(r"https?://|//[a-z]+\.[a-z]", text)
    assert not re.search(
        r"(inner|outer)HTML|insertAdjacentHTML|document\.write|\beval\b|new Func", text
    )
    assert not re.search(r"<[^>]+ (style|on\w+)=", text)
    assert not re.search(r"<script(?![^>]* src=)|<style", text)
    assert len(text.splitlines()) < 320


def test_the_policy_lets_in_only_the_page_itself() -> None:
    assert "script-src 'self';" in CSP
    assert "style-src 'self';" in CSP
    assert "default-src 'none'" in CSP
    assert "unsafe" not in CSP


@pytest.mark.parametrize("name", VENDORED)
def test_what_is_vendored_is_as_it_was_published(name: str) -> None:
    digest = sha256((PAGE / "vendor" / name).read_bytes()).hexdigest()

    assert digest == VENDORED[name]
    assert "MIT License" in (PAGE / "vendor" / "uPlot.LICENSE.txt").read_text()


def test_files_are_served_as_what_they_are() -> None:
    assets = load_assets()

    assert assets["js/app.js"].media_type == "text/javascript; charset=utf-8"
    assert assets["css/base.css"].media_type == "text/css; charset=utf-8"
    assert assets["icon.svg"].media_type.startswith("image/svg+xml")
    assert assets["index.html"].data == (PAGE / "index.html").read_bytes()
