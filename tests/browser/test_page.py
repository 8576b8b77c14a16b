"""What somebody does with the page, in a real browser, with real workers behind it."""

from __future__ import annotations

from typing import Any

import pytest
from redis import Redis
from selenium.webdriver.common.keys import Keys

from pipeline.partition import Keys as RedisKeys
from pipeline.wire import pack
from tests.browser.conftest import READER, Page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]

KEYS = RedisKeys("percipio", 4)
TILES = ".tile:not(.bone)"
PICTURE = '[href="#/source/cam-1"] .view img:not([hidden])'
HOSTILE = "<img src=x onerror=\"document.title='taken'\">"
INKED = """const canvas = document.querySelector('.chart canvas');
    const size = canvas && [canvas.width, canvas.height];
    return canvas && canvas.getContext('2d').getImageData(0, 0, ...size).data.some(Boolean)"""
WATCH = """window.seen = false;
    const look = () => {
      window.seen ||= document.querySelector(arguments[0])?.textContent.includes('<img');
    };
    const all = { subtree: true, childList: true, characterData: true };
    new MutationObserver(look).observe(document.querySelector('main'), all)"""
KNOCK = "401"  # the browser itself tells of the answer that asks for a key


def moves(page: Page, selector: str, what: str) -> None:
    """Wait until something has changed three times."""
    seen: set[str] = set()

    def has_moved() -> bool:
        seen.add(str(page.run(f"return document.querySelector('{selector}')?.{what} ?? ''")))
        return len(seen - {""}) > 3

    page.until(has_moved, f"{selector} to move")


def only(complaints: list[str], *allowed: str) -> bool:
    return all(any(word in each for word in allowed) for each in complaints)


def add_letter(redis: Redis, source: str, **fields: str | bytes) -> None:
    keys = KEYS.of_source(source)
    key = keys.recordings if "image" in fields else keys.events
    entry: dict[Any, Any] = {"source": source, **fields}
    redis.xadd(key, entry)


def test_a_wrong_key_is_told_and_a_right_one_lets_in(page: Page) -> None:
    page.open(key=None)
    page.one("#key").send_keys("wrong\n")
    page.until(lambda: "not known" in page.text("#key-problem"), "the refusal")

    page.run("document.querySelector('#key').value = ''")
    page.one("#key").send_keys("admin-key\n")

    page.until(lambda: len(page.all(TILES)) >= 4, "tiles")
    assert page.run("return document.cookie") == ""
    assert page.run("return JSON.stringify(localStorage)").count("key") == 0
    page.one("[aria-label='Sign out']").click()
    page.one("#key")
    assert only(page.complaints(), KNOCK)


def test_tiles_move_and_nothing_complains(page: Page) -> None:
    page.open()

    moves(page, PICTURE, "src")
    moves(page, '[href="#/source/cam-1"] .tile-level', "textContent")
    page.until(lambda: "1 square" in page.text('[href="#/source/cam-2"] .things'), "objects")
    page.until(lambda: page.text(".figure b").replace(".", "").isdecimal(), "rates")

    foreign = "return performance.getEntriesByType('resource').map(e => new URL(e.name).host)"
    assert set(page.run(foreign)) <= {page.run("return location.host"), ""}
    assert page.text(".pill") == "Live"
    assert only(page.complaints(), KNOCK)


def test_a_source_is_opened_and_left_by_keyboard(page: Page) -> None:
    page.open()
    page.one('[href="#/source/cam-1"]').send_keys(Keys.ENTER)

    moves(page, ".view.big img:not([hidden])", "src")
    moves(page, ".huge", "textContent")
    page.until(lambda: "square" in page.text(".side table tbody"), "tracks")
    page.until(lambda: "vision.objects" in page.text(".columns tbody"), "values of channels")
    page.until(lambda: "objects" in page.text(".columns .scroll:last-child"), "groups of channels")
    page.until(lambda: page.run(INKED), "a chart")
    page.until(lambda: "squares@" in page.text(".columns .fields"), "the model's name")

    page.one(".back").send_keys(Keys.ENTER)
    page.until(lambda: len(page.all(TILES)) >= 4, "tiles")
    assert only(page.complaints(), KNOCK)


def test_a_lost_connection_is_told_and_regained(page: Page) -> None:
    page.open()
    moves(page, PICTURE, "src")
    level = '[href="#/source/cam-1"] .tile-level'

    page.ground.stop("api")
    page.until(lambda: "does not answer" in page.text("#banner"), "the banner")
    assert page.text(".pill") == "Disconnected"
    assert float(page.text(level)) >= 0, "what was known stays"
    page.ground.start_api()

    page.until(lambda: page.text(".pill") == "Live", "the connection")
    page.until(lambda: "does not answer" not in page.text("#banner"), "no banner")
    moves(page, PICTURE, "src")
    moves(page, level, "textContent")
    assert only(page.complaints(), KNOCK, "net::ERR_")


def test_a_dead_letter_is_replayed(page: Page, redis: Redis) -> None:
    add_letter(redis, "cam-1", image=b"no picture at all")
    page.open("#/dead")
    page.until(lambda: "no picture" in page.text("main") or page.all(".reason"), "the letter")
    letter = str(page.one(".act button").get_attribute("aria-label")).removeprefix("Replay ")

    page.one(".act button").click()

    page.until(lambda: letter in page.text("#toasts"), "the answer")
    gone = f"return !document.querySelector('[aria-label=\"Replay {letter}\"]')"
    page.until(lambda: page.run(gone), "the letter to leave")
    page.until(lambda: f"replay_of{letter}" in page.text("main"), "what it became, dead again")
    assert only(page.complaints(), KNOCK)


def test_a_reader_sees_how_many_are_dead_and_no_more(page: Page, redis: Redis) -> None:
    add_letter(redis, "cam-2", channel="a b", value="1")
    page.open("#/dead", READER)

    page.until(lambda: "Only an admin key" in page.text("main"), "the reason")
    assert not page.all(".act button")
    assert only(page.complaints(), KNOCK)


def test_names_and_labels_are_never_markup(page: Page, redis: Redis) -> None:
    add_letter(redis, "cam-3", channel=HOSTILE, value="1")
    shape = {"width": 64, "height": 48, "cached": False, "objects": [], "timing": {}}
    fields: dict[Any, Any] = {
        "v": 1,
        "source": "cam-3",
        "frame": "1-0",
        "stream": "frames",
        "ts": 1,
    }
    fields |= {"labels": f"{HOSTILE}:1", "data": pack({"model": HOSTILE, **shape})}
    page.open()
    moves(page, '[href="#/source/cam-3"] .tile-level', "textContent")
    page.run(WATCH, '[href="#/source/cam-3"] .things')

    def is_seen() -> bool:
        redis.xadd(KEYS.of_source("cam-3").detections, fields)
        return bool(page.run("return window.seen"))

    page.until(is_seen, "the label, as text")
    page.run("location.hash = '#/dead'")
    page.until(lambda: HOSTILE in page.text(".why"), "the error, as text")

    assert not page.all("img[src=x]")
    assert page.driver.title == "Dead letters · percipio"


def test_hundreds_of_sources_cost_what_is_in_sight(page: Page, redis: Redis) -> None:
    names = [f"many-{number:03}" for number in range(400)]
    for name in names:
        keys = KEYS.of_source(name)
        redis.hset(keys.state(name), mapping={"v": "1", "level": "0.2", "phase": "active"})
        redis.zadd(keys.sources, {name: 4102444800000})
    try:
        page.open()
        page.until(lambda: len(page.all(TILES)) > 400, "all tiles")
        page.until(lambda: page.run("return scrollY") == 0, "the top")
        moves(page, PICTURE, "src")
        asked = """return new Set(performance.getEntriesByType('resource').map(e => e.name)
            .filter(n => n.includes('/frame.jpg')).map(n => n.split('/').at(-2))).size"""
        assert page.run(asked) < 40
        page.one("#search").send_keys("many-39")
        page.until(lambda: len(page.all(TILES)) == 10, "ten of them")
        page.one("#search").send_keys("x")
        page.until(lambda: "Nothing matches" in page.text("main"), "none of them")
    finally:
        for name in names:
            redis.delete(KEYS.of_source(name).state(name))
            redis.zrem(KEYS.of_source(name).sources, name)


def test_who_wants_no_motion_gets_none(page: Page) -> None:
    page.resize(1280, 900, motion="reduce")
    page.open("#/pipeline")
    page.one(".stack i")

    assert page.run("return document.getAnimations().length") == 0


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(
    page: Page, axe: str, redis: Redis, theme: str, width: int
) -> None:
    add_letter(redis, "cam-1", image=b"no picture at all")
    page.resize(width, 844, theme)
    found = []
    page.open(key=None)
    page.one("#key")
    found += serious(page, axe, "sign in")
    page.open()
    for place, sign in (
        ("#/", PICTURE),
        ("#/source/cam-1", ".view.big img:not([hidden])"),
        ("#/source/robot-7", ".columns tbody tr"),
        ("#/pipeline", ".equation"),
        ("#/dead", ".act button"),
    ):
        page.run("location.hash = arguments[0]", place)
        page.one(sign)
        found += serious(page, axe, place)
        overflow = page.run("return document.documentElement.scrollWidth - innerWidth")
        assert overflow <= 0, f"{place} is {overflow} px too wide"

    assert found == []


def serious(page: Page, axe: str, place: str) -> list[str]:
    page.run(axe)
    result = page.driver.execute_async_script("axe.run().then(arguments[0])")
    return [
        f"{place}: {each['id']}: {node['target']} {node.get('failureSummary', '')}"
        for each in result["violations"]
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]
