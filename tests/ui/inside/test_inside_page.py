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

from aim.engine import Engine, Server
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


@pytest.fixture
def looks_ahead(page: Page) -> Iterator[None]:
    """The page's model looks at 8 codes in a pass."""
    before = page.pipe.server
    model: Any = before.engine.model  # type: ignore[attr-defined]
    advance, model.advance = model.advance, page.brake(model.advance)
    page.pipe._server = Server(Engine(model, 4, widths=((8, 8),)))
    yield
    assert page.settle()
    page.pipe._server.close()
    page.pipe._server, model.advance = before, advance


# places behind those that are shown which have a square in them, and not only a dot
SQUARES = """() => {
  const stage = document.querySelector("#looked .aim-stage");
  const canvas = stage.querySelector("canvas");
  const cell = canvas.width / 16;
  const pixel = (place, part) => {
    const [x, y] = [place % 16, Math.floor(place / 16)].map((at) => Math.floor((at + part) * cell));
    return canvas.getContext("2d").getImageData(x, y, 1, 1).data.join();
  };
  const places = [...Array(256).keys()].filter((place) => place >= Number(stage.dataset.shown));
  return places.filter((place) => pixel(place, 0.35) !== pixel(place, 0.1));
}"""


def test_what_is_guessed_is_shown_until_it_settles(
    tab: Any, page: Page, looks_ahead: None, tmp_path: Path
) -> None:
    page.brake.seconds = 0.1
    tab.get_by_role("button", name="Live").first.evaluate("(it) => it.ariaPressed = 'true'")
    tab.click("#inside")
    assert until(lambda: "small squares are its guesses" in key(tab))
    found: list[list[int]] = []
    assert until(lambda: found.append(tab.evaluate(SQUARES)) or len(found[-1]) > 2)
    assert len(found[-1]) <= 7 and found[-1][-1] - found[-1][0] == len(found[-1]) - 1, found
    tab.screenshot(path=tmp_path / "guesses.png", full_page=True)
    page.brake.seconds = 1.0
    tab.set_viewport_size({"width": 1100, "height": 900})  # paints anew
    tab.wait_for_timeout(200)
    assert until(lambda: tab.evaluate(SQUARES))
    page.brake.seconds = 0.1
    width = tab.locator("#looked canvas").first.bounding_box()["width"]

    def said() -> str:
        places = tab.evaluate(SQUARES)
        line, column = divmod(places[-1] if places else 0, 16)
        at = {"x": width * (column + 0.5) / 16, "y": width * (line + 0.5) / 16}
        tab.locator("#looked canvas").first.hover(position=at, force=True)
        return str(tab.inner_text("#looked .aim-here"))

    assert until(lambda: said().endswith("guessed, not settled"))
    page.brake.seconds = 0.0
    assert until(lambda: "256 / 256" in tab.inner_text("#inside-progress .aim-text"), 30)
    tab.wait_for_selector("#looked .aim-stage[data-state=done]")
    assert re.search(r"codes in \d+ passes", tab.inner_text("#inside-progress .aim-text"))
    assert until(lambda: "guesses" not in key(tab))


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
