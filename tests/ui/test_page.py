"""The page in a real browser: pick, watch, stop, take home; on a phone; offline."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from aim.images import read
from pages import Page, until

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 800}

# How many codes of each picture are on stage.
SHOWN = "Number(document.querySelector('#stage .aim-stage').dataset.shown)"
SAVED = "#stage [data-kind='{}']:not([disabled])"


@pytest.fixture
def open_tab(page: Page, browser: Any) -> Iterator[Any]:
    """A function that opens the page in a new tab of its own; closed afterwards."""
    contexts = []

    def open_(size: dict[str, int] = DESKTOP, scheme: str = "light") -> Any:
        context = browser.new_context(viewport=size, color_scheme=scheme, accept_downloads=True)
        context.set_default_timeout(30_000)
        contexts.append(context)
        tab = context.new_page()
        tab.requests = []
        tab.on("request", lambda request: tab.requests.append(request.url))
        tab.goto(page.url)
        tab.wait_for_selector("#generate")
        return tab

    yield open_
    for context in contexts:
        context.close()


def progress(tab: Any) -> str:
    return tab.inner_text("#progress .aim-text")


def class_box(tab: Any) -> Any:
    return tab.get_by_label("Class", exact=True)


def pick(tab: Any, text: str, title: str) -> None:
    """Type ``text`` over the class that is there, and take ``title``, the only one left to
    choose.
    """
    box = class_box(tab)
    box.click()
    box.press_sequentially(text, delay=20)
    tab.wait_for_function("() => document.querySelectorAll('[role=option]').length === 1")
    assert tab.get_by_role("option").inner_text().split("\n")[-1].strip() == title
    box.press("Enter")
    assert until(lambda: box.input_value() == title)


def download(tab: Any, button: str, folder: Path) -> Path:
    with tab.expect_download() as waiting:
        tab.click(button)
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def test_pick_watch_stop_and_take_home(page: Page, open_tab: Any, tmp_path: Path):
    tab = open_tab()
    assert class_box(tab).input_value() == "goldfish (1)"
    assert until(lambda: "64×64" in tab.inner_text("#note"))
    assert tab.is_disabled("#generate-stop") and not tab.locator("#stage .aim-save:enabled").count()
    tab.wait_for_selector("#count input[value='4']:checked")  # a person gets four
    tab.get_by_label("1", exact=True).check()
    pick(tab, "golden", "golden retriever (207)")
    tab.screenshot(path=tmp_path / "idle.png")

    page.brake.seconds = 0.02
    tab.click("#generate")
    seen: list[float] = []

    def watch() -> bool:
        seen.append(tab.evaluate(SHOWN))
        return len(set(seen)) >= 5

    assert until(watch, 10), f"saw {seen}"
    assert seen == sorted(seen)
    assert seen[0] < seen[-1] < 256
    tab.wait_for_function(
        "() => /^[0-9]+ \\/ 256 codes$/"
        ".test(document.querySelector('#progress .aim-text').innerText)"
    )
    assert tab.inner_text("#progress .aim-rate").endswith("codes/s")
    assert tab.is_disabled("#generate")
    tab.screenshot(path=tmp_path / "running.png")
    at = page.brake.steps
    tab.click("#generate-stop")
    tab.wait_for_selector("#progress .aim-stopped")
    assert page.brake.steps - at < 60
    assert page.settle(3)
    assert progress(tab).startswith("Stopped at ")
    assert until(lambda: 0 < tab.evaluate(SHOWN) < 256), "what was drawn stays to be seen"
    tab.wait_for_selector("#generate:not([disabled])")

    page.brake.seconds = 0.004
    tab.click("#generate")
    tab.wait_for_selector("#progress .aim-done")
    tab.wait_for_selector(SAVED.format("gif"))
    assert tab.is_enabled("#generate"), "the next one can be asked for while this one is watched"
    assert progress(tab).startswith("256 / 256 codes in ")
    assert until(lambda: tab.evaluate(SHOWN) == 256)
    png = download(tab, SAVED.format("png"), tmp_path)
    parameters = read.read_parameters(png)
    assert Image.open(png).size == (64, 64)
    assert parameters["class_name"] == "golden retriever"
    assert parameters == page.pipe.parameters(207, parameters["seed"], page.pipe.sampling)
    assert png.name == f"tiny-golden-retriever-207-seed-{parameters['seed']}.png"
    animation = Image.open(download(tab, SAVED.format("gif"), tmp_path))
    assert (animation.format, animation.size) == ("GIF", (512, 512))
    assert animation.n_frames >= 32
    large = download(tab, SAVED.format("large.png"), tmp_path)
    assert Image.open(large).size == (512, 512) and read.read_parameters(large) == parameters
    tab.screenshot(path=tmp_path / "done.png")

    tab.get_by_label("Random", exact=True).uncheck()
    tab.wait_for_function(
        f"() => document.querySelector('#seed input').value === '{parameters['seed']}'"
    )
    assert until(lambda: not tab.is_checked("#random-seed input"))
    tab.click("#generate")
    tab.wait_for_selector("#progress .aim-drawing")
    tab.wait_for_selector(SAVED.format("png"))
    assert download(tab, SAVED.format("png"), tmp_path / "again").read_bytes() == png.read_bytes()


def test_the_stage_keeps_a_pace_to_watch_and_fills_a_large_window(page: Page, open_tab: Any):
    tab = open_tab({"width": 1920, "height": 1080})
    shown = "#stage .aim-stage[data-state={}]"
    tab.wait_for_selector("#count input[value='4']:checked")
    tab.get_by_label("1", exact=True).check()
    tab.click("#generate")
    tab.wait_for_selector(shown.format("playing"))
    started = time.monotonic()
    tab.wait_for_selector(shown.format("done"))
    assert time.monotonic() - started > 2.5, "as fast as the model, which takes no time here"
    canvas, visit = (tab.locator(it).bounding_box() for it in ("#stage canvas", "#visit"))
    player = tab.locator("#stage .aim-player").bounding_box()
    assert canvas["width"] > 680 and player["y"] + player["height"] < 1080
    assert visit["x"] > canvas["x"] + canvas["width"]
    assert visit["y"] < 300 and tab.evaluate("document.documentElement.scrollWidth") <= 1920

    tab.locator("#stage .aim-scrub").fill("100")
    tab.wait_for_selector(shown.format("held") + "[data-shown='100']")
    assert tab.inner_text("#stage .aim-shown") == "100 / 256"
    tab.get_by_role("button", name="Live").first.click()
    tab.locator("#stage .aim-play").click()
    tab.wait_for_selector(shown.format("done"))
    tab.locator("#stage .aim-play").click()
    assert until(lambda: 0 <= tab.evaluate(SHOWN) < 256), "it is replayed"
    tab.locator("#stage .aim-stage").hover()
    tab.click("#stage .aim-full")
    assert until(lambda: tab.evaluate("() => document.fullscreenElement?.className") == "aim-stage")
    assert until(lambda: tab.locator("#stage canvas").bounding_box()["height"] > 900)
    tab.click("#stage .aim-full")
    assert until(lambda: tab.evaluate("() => document.fullscreenElement") is None)


def test_nothing_is_fetched_from_elsewhere(page: Page, open_tab: Any):
    tab = open_tab()
    tab.get_by_role("tab", name="About").click()
    tab.wait_for_selector("text=The model on this page")
    assert "tiny, version 0123456789ab" in tab.inner_text("body")
    foreign = [url for url in tab.requests if not url.startswith((page.url, "data:", "blob:"))]
    assert len(tab.requests) > 5
    assert not foreign


def test_random_class_and_a_bad_value(page: Page, open_tab: Any):
    tab = open_tab()
    before = class_box(tab).input_value()
    titles = {page.pipe.title(index) for index in page.pipe.classes}

    def another() -> bool:
        tab.click("#random-class")
        return class_box(tab).input_value() not in (before, "")

    assert until(another)
    assert class_box(tab).input_value() in titles
    steps = page.brake.steps
    tab.get_by_label("Top-k").fill("-3")
    tab.click("#generate")
    tab.wait_for_selector("text=top_k is -3; it must be a whole number in [0, 2147483647]")
    assert page.brake.steps == steps
    tab.get_by_label("Top-k").fill("5")
    tab.click("#generate")
    tab.wait_for_selector("#progress .aim-done")


def test_a_closed_tab_ends_its_drawing(page: Page, open_tab: Any):
    page.brake.seconds = 0.02
    tab = open_tab()
    tab.click("#generate")
    assert until(lambda: tab.evaluate(SHOWN) > 0)
    at = page.brake.steps
    tab.close()
    assert page.settle()
    assert page.brake.steps - at < 100


def test_a_model_out_of_reach_leaves_the_old_one_usable(page: Page, open_tab: Any, tmp_path: Path):
    tab = open_tab()
    box = tab.get_by_label("Model", exact=True)
    box.click()
    tab.get_by_role("option", name="aim-b (880 MB download)").click()
    tab.wait_for_selector("#told .aim-failed")
    assert (
        "aim-b could not be loaded, so tiny stays in use: aim-b could not be fetched"
        in tab.inner_text("#told")
    )
    assert until(lambda: box.input_value() == "tiny")
    assert page.attempts[-1:] == ["aim-b"]
    tab.screenshot(path=tmp_path / "out-of-reach.png")
    tab.click("#generate")
    tab.wait_for_selector("#progress .aim-done")


def test_on_a_phone_the_picture_follows_the_buttons(page: Page, open_tab: Any, tmp_path: Path):
    tab = open_tab(PHONE, "dark")
    tab.click("#generate")
    tab.wait_for_selector(SAVED.format("gif"))
    tab.screenshot(path=tmp_path / "phone.png", full_page=True)
    assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    places = [
        tab.locator(selector).bounding_box()
        for selector in ("#class", "#generate", "#stage canvas", "#progress", "#seed")
    ]
    assert all(above["y"] + above["height"] <= below["y"] for above, below in pairwise(places))
    picture = places[2]
    assert picture["width"] == pytest.approx(picture["height"])
    assert picture["width"] > 280
