"""The Inside tab in a real browser: maps while a picture is drawn and after, and the choice at one
code.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pages import Page, show, until

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 800}


@pytest.fixture
def tab(page: Page, browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    context = browser.new_context(viewport=getattr(request, "param", DESKTOP))
    context.set_default_timeout(30_000)
    tab = context.new_page()
    tab.goto(page.url)
    show(tab, "Inside")
    tab.wait_for_selector("#inside")
    yield tab
    context.close()


def key(tab: Any) -> str:
    return str(tab.inner_text("#map-key"))


def draw(tab: Any) -> None:
    tab.click("#inside")
    assert until(lambda: "256 / 256" in tab.inner_text("#inside-progress .aim-text"), 30)
    tab.wait_for_selector("#choice table")


def test_maps_while_it_draws_and_after(tab: Any, page: Page, tmp_path: Path) -> None:
    page.brake.seconds = 0.02
    tab.click("#inside")
    assert until(lambda: "Darkest" in key(tab)), "the map grows with the picture"
    assert "256 / 256" not in tab.inner_text("#inside-progress .aim-text")
    page.brake.seconds = 0.0
    assert until(lambda: "256 / 256" in tab.inner_text("#inside-progress .aim-text"), 30)
    assert until(lambda: tab.is_enabled("#inside"))
    first = tab.get_attribute("#map img", "src")
    for name in ("Probability", "Pull of the class", "Colour of the code"):
        tab.get_by_label(name, exact=True).check()
        assert until(lambda before=first: tab.get_attribute("#map img", "src") != before)
        first = tab.get_attribute("#map img", "src")
    assert (
        key(tab)
        == "The colour that each code has by itself; the decoder makes the picture of them."
    )
    tab.screenshot(path=tmp_path / "inside.png", full_page=True)


def test_a_clicked_code_tells_what_else_was_likely(tab: Any) -> None:
    draw(tab)
    assert "Code 1, row 1, column 1" in tab.inner_text("#choice")
    assert until(lambda: tab.is_enabled("#inside"))
    image = tab.locator("#map img")
    image.scroll_into_view_if_needed()
    width = image.bounding_box()["width"]
    image.click(position={"x": width * 4.5 / 16, "y": width * 2.5 / 16})  # when it no longer moves
    assert until(lambda: "row 3, column 5" in tab.inner_text("#choice"))
    assert "Code 37" in tab.inner_text("#choice")
    assert tab.input_value("#inside-row input") == "3"
    assert tab.locator("#choice tbody tr").count() == 5
    shares = [
        float(text.rstrip("%"))
        for text in tab.locator("#choice tbody td:last-child").all_inner_texts()
    ]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) <= 100 + 1e-6 and math.isfinite(sum(shares))
    tab.locator("#inside-column input").fill("16")
    tab.locator("#inside-column input").press("Tab")
    assert until(lambda: "row 3, column 16" in tab.inner_text("#choice"))


def test_places_outside_the_grid_are_refused(tab: Any) -> None:
    draw(tab)
    tab.locator("#inside-row input").fill("17")
    tab.locator("#inside-row input").press("Tab")
    assert until(
        lambda: "row is 17; it must be a whole number in [1, 16]" in tab.inner_text("body")
    )


def test_stop(tab: Any, page: Page) -> None:
    page.brake.seconds = 0.05
    tab.click("#inside")
    assert until(lambda: "/ 256" in tab.inner_text("#inside-progress .aim-text"))
    tab.keyboard.press("Escape")
    assert until(lambda: tab.inner_text("#inside-progress .aim-text").startswith("Stopped at"))
    assert until(lambda: tab.is_enabled("#inside"))
    assert page.settle()


@pytest.mark.parametrize("tab", [PHONE], indirect=True)
def test_a_phone_needs_no_sideways_scrolling(tab: Any) -> None:
    draw(tab)
    assert tab.evaluate("() => document.documentElement.scrollWidth") <= 360
