"""A Chromium without a window, and a deployment for it to look at."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from pipeline.api.keys import hash_key
from tests.browser.ground import Ground, ground

AXE = "axe-core@4.14.1"
CAMERAS = 3
FLAGS = (
    "headless",
    "no-sandbox",
    "disable-gpu",
    "disable-quic",
    "no-first-run",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
)
ADMIN, READER = "admin-key", "reader-key"
PATIENCE_S = 30.0


class Page:
    """What the tests do with the page."""

    def __init__(self, driver: Chrome, deployment: Ground) -> None:
        self.driver = driver
        self.ground = deployment

    def open(self, place: str = "#/", key: str | None = ADMIN) -> None:
        """Open a place, signed in with a key."""
        self.driver.get(self.ground.url)
        self.driver.delete_all_cookies()
        self.driver.get(f"{self.ground.url}{place}")
        self.driver.refresh()
        if key is not None:
            self.one("#key").send_keys(f"{key}\n")
            self.until(lambda: not self.all("#key"), "signed in")

    def resize(self, width: int, height: int, theme: str = "light", motion: str = "") -> None:
        """Take the size and the preferences of another device."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        wishes = [
            {"name": "prefers-color-scheme", "value": theme},
            {"name": "prefers-reduced-motion", "value": motion},
        ]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wishes})

    def all(self, selector: str) -> list[WebElement]:
        """Give what a CSS selector finds now."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        """Wait for what a CSS selector finds and give it."""
        self.until(lambda: self.all(selector), selector)
        return self.all(selector)[0]

    def text(self, selector: str) -> str:
        """Give the text of what a selector finds, empty if it finds nothing."""
        script = "return document.querySelector(arguments[0])?.textContent ?? ''"
        return str(self.driver.execute_script(script, selector))

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a script in the page."""
        return self.driver.execute_script(script, *arguments)

    def until(self, check: Callable[[], object], what: str) -> None:
        """Wait until something is so."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not check():
            if time.monotonic() > deadline_s:
                shown = self.driver.find_element(By.TAG_NAME, "body").text[:1000]
                pytest.fail(f"waited {PATIENCE_S:g} s for: {what}\n{shown}\n{self.complaints()}")
            time.sleep(0.05)

    def complaints(self) -> list[str]:
        """Give what the browser complained of since it was asked last."""
        log = self.driver.execute("getLog", {"type": "browser"})["value"]
        return [f"{each['source']}: {each['message']}" for each in log]


@pytest.fixture(scope="session")
def chromium() -> tuple[str, str]:
    """Where Chromium and its driver are."""
    found = shutil.which("chromium"), shutil.which("chromedriver")
    if found[0] is None or found[1] is None:
        pytest.skip("needs chromium and chromedriver: apt-get install chromium chromium-driver")
    return found[0], found[1]


@pytest.fixture(scope="session")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """Three cameras, a robot, workers and an API with an admin key and a read key."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"{hash_key(ADMIN)} admin\n{hash_key(READER)} read\n")
    with ground(CAMERAS, keys) as made, Redis.from_url(made.redis_url) as redis:
        deadline_s = time.monotonic() + 240
        while not any(redis.scan_iter("percipio:{*}:state:robot-7")):
            assert time.monotonic() < deadline_s, (made.folder / "score.log").read_text()
            time.sleep(0.2)
        yield made


@pytest.fixture
def redis(deployment: Ground) -> Iterator[Redis]:
    """The deployment's own Redis, to put strange things into."""
    with Redis.from_url(deployment.redis_url) as client:
        yield client


@pytest.fixture
def page(chromium: tuple[str, str], deployment: Ground) -> Iterator[Page]:
    """A browser of its own for each test."""
    options = ChromeOptions()
    options.binary_location = chromium[0]
    for flag in FLAGS:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=Service(chromium[1]))
    driver.set_script_timeout(60)
    made = Page(driver, deployment)
    made.resize(1280, 900)
    try:
        yield made
    finally:
        driver.quit()


@pytest.fixture(scope="session")
def axe(request: pytest.FixtureRequest) -> str:
    """The script of axe-core, fetched once from npm."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip(f"needs npm, to fetch {AXE}")
    cache = request.config.cache
    folder = Path(cache.mkdir("axe")) if cache is not None else Path(".")
    script = folder / "node_modules" / "axe-core" / "axe.min.js"
    if not script.exists():
        command = [npm, "install", "--no-save", "--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run([*command, "--prefix", str(folder), AXE], check=True, capture_output=True)
    return script.read_text()
