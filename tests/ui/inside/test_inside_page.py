"""The Inside tab in a real browser: maps while a picture is drawn and after, and the choice at one
code.
"""

from __future__ import annotations

import math
import re
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


COLOUR = """(place) => {
  const canvas = document.querySelectorAll("#looked canvas")[1];
  const at = (part) => Math.floor(((part + 0.5) / 16) * canvas.width);
  return [...canvas.getContext("2d").getImageData(at(place[1]), at(place[0]), 1, 1).data];
}"""


def key(tab: Any) -> str:
    return str(tab.inner_text("#map-key"))


def draw(tab: Any) -> None:
    tab.get_by_role("button", name="Live").first.evaluate("(it) => it.ariaPressed = 'true'")
    tab.click("#inside")
    assert until(lambda: "256 / 256" in tab.inner_text("#inside-progress .aim-text"), 30)
    tab.wait_for_selector("#choice table")
    tab.wait_for_selector("#looked .aim-stage[data-state=done]")


def test_maps_while_it_draws_and_after(tab: Any, page: Page, tmp_path: Path) -> None:
    page.brake.seconds = 0.02
    tab.click("#inside")
    assert until(lambda: "On average" in key(tab)), "the map grows with the picture"
    assert "256 / 256" not in tab.inner_text("#inside-progress .aim-text")
    page.brake.seconds = 0.0
    assert until(lambda: "256 / 256" in tab.inner_text("#inside-progress .aim-text"), 30)
    tab.wait_for_selector("#looked .aim-stage[data-state=done]")
    assert re.search(r" codes \(.* nats\)", tab.inner_text("#looked .aim-scale"))
    place, seen = [9, 4], []
    for name in ("Uncertainty", "Probability", "Pull of the class", "Colour of the code"):
        tab.get_by_label(name, exact=True).check()
        assert until(lambda: tab.evaluate(COLOUR, place) not in seen), name
        seen.append(tab.evaluate(COLOUR, place))
    assert (
        key(tab)
        == "The colour that each code has by itself; the decoder makes the picture of them."
    )
    assert not tab.is_visible("#looked .aim-scale")
    tab.screenshot(path=tmp_path / "inside.png", full_page=True)


def test_a_code_is_pointed_at_clicked_and_typed(tab: Any, page: Page) -> None:
    draw(tab)
    assert "Code 1, row 1, column 1" in tab.inner_text("#choice")
    for canvas in (tab.locator("#looked canvas").nth(i) for i in (0, 1)):
        canvas.scroll_into_view_if_needed()
        width = canvas.bounding_box()["width"]
        canvas.hover(position={"x": width * 7.5 / 16, "y": width * 1.5 / 16})
        here = tab.inner_text("#looked .aim-here")
        assert here.startswith("Row 2, column 8: drawn at ") and "equally likely; pull" in here
    canvas.click(position={"x": width * 4.5 / 16, "y": width * 2.5 / 16})
    assert until(lambda: "row 3, column 5" in tab.inner_text("#choice"))
    assert "Code 37" in tab.inner_text("#choice")
    assert "The choice was as open as if " in tab.inner_text("#choice")
    assert tab.input_value("#inside-row input") == "3"
    assert tab.locator("#choice tbody tr").count() == 5
    shares = [
        float(text.rstrip("%"))
        for text in tab.locator("#choice tbody td:last-child").all_inner_texts()
    ]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) <= 100 + 1e-6 and math.isfinite(sum(shares))
    tab.get_by_role("button", name="Right", exact=True).click()
    assert until(lambda: "row 3, column 6" in tab.inner_text("#choice"))
    tab.mouse.move(5, 5)
    tab.locator("#inside-column input").fill("16")
    steps = page.brake.steps
    tab.locator("#inside-column input").press("Enter")
    assert until(lambda: "row 3, column 16" in tab.inner_text("#choice"))
    assert until(lambda: tab.inner_text("#looked .aim-here").startswith("Row 3, column 16: ")), (
        "the mark went along"
    )
    assert page.brake.steps == steps, "Enter drew anew"
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
def test_on_a_phone_maps_are_wide_and_buttons_finger_sized(tab: Any) -> None:
    draw(tab)
    assert tab.evaluate("() => document.documentElement.scrollWidth") <= 360
    picture, chart = (tab.locator("#looked canvas").nth(i).bounding_box() for i in (0, 1))
    assert chart["y"] > picture["y"] + picture["height"] - 1 and chart["width"] > 280
    for button in tab.locator("#looked .aim-steps button").all():
        assert min(button.bounding_box()["width"], button.bounding_box()["height"]) >= 44
