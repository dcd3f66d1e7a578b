"""The keyboard alone does everything, wide and narrow: the class is picked by typing, each action
is reached and pressed by keys. One window a width, in which every test begins with its own class.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from aim.images import read
from pages import Page, until

WIDTHS = {"wide": {"width": 1280, "height": 900}, "narrow": {"width": 390, "height": 844}}
MOST = 90  # presses of Tab from anywhere to anywhere

# What has the focus, unless somebody who looks sees it: it is in the window, and framed.
SEEN = """() => {
  const [it, style] = [document.activeElement, getComputedStyle(document.activeElement)];
  const { top, bottom, left, right } = it.getBoundingClientRect();
  const inside = top < innerHeight && bottom > 0 && left < innerWidth && right > 0;
  const framed = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
  return inside && framed ? "" : `${it.outerHTML.slice(0, 200)} ${style.outline} ${top} ${left}`;
}"""


@pytest.fixture(scope="module", params=WIDTHS)
def window(served: Page, browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    context = browser.new_context(
        viewport=WIDTHS[request.param],
        accept_downloads=True,
        permissions=["clipboard-read", "clipboard-write"],
    )
    context.set_default_timeout(30_000)
    tab = context.new_page()
    tab.problems = []
    tab.on("pageerror", lambda error: tab.problems.append(str(error)))
    tab.goto(served.url + "?count=1")
    tab.wait_for_selector("#generate")
    tab.wait_for_function("() => window.aim")
    yield tab
    context.close()
    assert not tab.problems


@pytest.fixture
def tab(page: Page, window: Any) -> Any:
    """The window on the Generate tab, the mouse nowhere."""
    if window.evaluate("() => document.querySelector('dialog[open]') !== null"):
        window.keyboard.press("Escape")
    go(window, "Generate")
    return window


def reach(tab: Any, selector: str, key: str = "Tab") -> None:
    """Press Tab until what ``selector`` finds has the focus, and is seen to have it."""
    for _ in range(MOST):
        if tab.evaluate("(it) => document.activeElement.matches(it)", selector):
            break
        tab.keyboard.press(key)
    else:
        raise AssertionError(f"{selector} is not reached by {MOST} times {key}")
    unseen = tab.evaluate(SEEN)
    assert not unseen, f"nobody sees what has the focus: {unseen}"


def press(tab: Any, selector: str, key: str = "Enter") -> None:
    reach(tab, selector)
    tab.keyboard.press(key)


def go(tab: Any, name: str) -> None:
    """Open a tab of the page: back to the link above the settings, and past them."""
    press(tab, ".aim-skip")
    reach(tab, "[role=tab][aria-selected=true]")
    for _ in range(6):
        if tab.evaluate("() => document.activeElement.innerText.trim()") == name:
            return
        tab.keyboard.press("ArrowRight")
    raise AssertionError(f"the tab {name} is not reached")


def pick(tab: Any, typed: str, title: str, box: str = "#class") -> None:
    """Take a class by typing a part of its name."""
    option = tab.locator(f"{box} [role=option][aria-selected=true]")

    def found() -> bool:
        return option.count() == 1 and option.inner_text().startswith(title)

    for _ in range(3):  # new classes that come late, as of another model, close the list
        reach(tab, f"{box} input")
        tab.keyboard.press("ControlOrMeta+a")
        tab.keyboard.type(typed)
        if until(found):
            break
    assert found()
    tab.keyboard.press("Enter")
    assert tab.input_value(f"{box} input") == title


def choose(tab: Any, box: str, title: str) -> None:
    """Take one of a short list, by arrows."""
    reach(tab, f"{box} input")
    marked = tab.locator(f"{box} [role=option].active")
    for _ in range(9):
        tab.keyboard.press("ArrowDown")
        tab.wait_for_timeout(200)  # the list marks it a while later
        if marked.inner_text().endswith(title):
            break
    tab.keyboard.press("Enter")
    assert until(lambda: tab.input_value(f"{box} input") == title)


def draw(tab: Any, typed: str, title: str) -> None:
    """Pick a class and draw it: Enter takes the class, Enter draws."""
    pick(tab, typed, title)
    tab.keyboard.press("Enter")


def drawn(tab: Any, typed: str, title: str) -> int:
    """Draw, and wait until the pictures are in the visit; returns how many these are."""
    before = visit(tab)
    draw(tab, typed, title)
    assert until(lambda: visit(tab) > before, 30)
    return visit(tab) - before


def visit(tab: Any) -> int:
    return int(tab.locator("#visit li").count())


def said(tab: Any, tabs: str = "") -> str:
    return str(tab.inner_text(f"#{tabs}progress .aim-text"))


def test_stop_and_keep(tab: Any, page: Page, tmp_path: Path) -> None:
    before, page.brake.seconds = visit(tab), 0.03
    draw(tab, "tabb", "tabby (281)")
    known = "#stage .aim-stage"
    assert until(lambda: 24 < int(tab.get_attribute(known, "data-known") or 0) < 250)
    tab.keyboard.press("Escape")
    assert until(lambda: said(tab).startswith("Stopped at "))
    assert page.settle(3)
    press(tab, "#stage .aim-keep")
    assert until(lambda: visit(tab) > before)
    assert "tabby" in tab.inner_text("#visit") and "stopped at" in tab.inner_text("#visit")


def test_stop_by_its_button(tab: Any, page: Page) -> None:
    page.brake.seconds = 0.03
    draw(tab, "tabb", "tabby (281)")
    tab.wait_for_selector("#generate-stop:not([disabled])")
    press(tab, "#generate-stop")
    assert until(lambda: said(tab).startswith("Stopped at "))
    tab.wait_for_selector("#generate:not([disabled])")


def test_link(tab: Any) -> None:
    drawn(tab, "goldfish", "goldfish (1)")
    press(tab, "#stage .aim-link")
    assert until(lambda: "The link is copied" in tab.inner_text("#stage .aim-saying"))
    asked = parse_qs(urlsplit(tab.evaluate("() => navigator.clipboard.readText()")).query)
    assert (asked["class"], asked["seed"]) == (["1"], [tab.input_value("#seed input")])


def test_png(tab: Any, page: Page, tmp_path: Path) -> None:
    drawn(tab, "golden", "golden retriever (207)")
    with tab.expect_download() as waiting:
        press(tab, "#stage [data-kind=png]")
    waiting.value.save_as(tmp_path / "four.png")
    told = read.read_parameters(tmp_path / "four.png")
    assert (told["class"], str(told["seed"])) == (207, tab.input_value("#seed input"))


def test_inside(tab: Any) -> None:
    drawn(tab, "tabb", "tabby (281)")
    press(tab, "#stage [data-to=inside]")
    assert until(lambda: "256 / 256" in said(tab, "inside-"), 30)
    assert tab.url.endswith("#inside")
    tab.wait_for_selector("#choice table")
    press(tab, "#looked [data-by='0,1']")
    tab.keyboard.press("Enter")
    press(tab, "#looked [data-by='1,0']")
    assert until(lambda: "row 2, column 3" in tab.inner_text("#choice"))
    press(tab, "#map-kind input[value='guidance']", "Space")
    assert until(lambda: "How far the class moved" in tab.inner_text("#map-key"))


def test_branch(tab: Any) -> None:
    drawn(tab, "goldfish", "goldfish (1)")
    before = tab.locator("#branches img").count()
    press(tab, "#stage [data-to=explore]")
    assert until(lambda: tab.locator("#branches img").count() == before + 1)
    rows = tab.locator("#rows-kept input[type=number]")
    assert until(lambda: rows.input_value() == "8")
    press(tab, "#rows-kept input[type=range]", "ArrowLeft")
    assert until(lambda: rows.input_value() == "7")
    draw(tab, "tabb", "tabby (281)")
    assert until(lambda: tab.locator("#branches img").count() == before + 2, 30)
    caption = f"{before + 2}: tabby (281), 7 rows of {before + 1}"
    assert caption in tab.inner_text("#branches")
    press(tab, f"#branches [data-number='{before + 1}']")
    assert until(lambda: f"goes on from {before + 1}" in said(tab, "explore-"))


def test_sweep(tab: Any) -> None:
    go(tab, "Compare")
    pick(tab, "golden", "golden retriever (207)")
    for side, values in (("across", "1, 3"), ("down", "0.5")):
        reach(tab, f"#{side}-values :is(input, textarea)")
        tab.keyboard.press("Control+a")
        tab.keyboard.type(values)
    done = tab.locator("#compare-progress .aim-done")
    tab.keyboard.press("Enter")
    assert until(lambda: done.count() == 1 and said(tab, "compare-") == "512 codes", 60)
    assert until(lambda: tab.is_enabled("#compare-png"))
    with tab.expect_download() as waiting:
        press(tab, "#compare-png")
    told = read.read_parameters(waiting.value.path())
    assert (told["kind"], told["class"], told["cfg_scale"]) == ("sweep", 207, [1.0, 3.0])


def test_race(tab: Any, page: Page) -> None:
    go(tab, "Race")
    choose(tab, "#pair", "aim-b, gpt-b (random weights)")
    pick(tab, "tabb", "tabby (281)", "#race-class")
    page.rivals.seconds = 0.002
    press(tab, "#race")
    tab.wait_for_selector("#race-progress .aim-done")
    tab.wait_for_selector(".aim-replay[data-state=done]")
    canvas = tab.locator(".aim-racer canvas").first
    assert "tabby (281)" in canvas.get_attribute("aria-label")
    press(tab, ".aim-pace", "End")
    assert tab.input_value(".aim-pace") == "0.02"
    press(tab, ".aim-again")
    tab.wait_for_selector(".aim-replay[data-state=playing]")


def test_four_pictures(tab: Any) -> None:
    press(tab, "#count input[value='4']", "Space")
    assert drawn(tab, "golden", "golden retriever (207)") == 4
    assert said(tab).startswith("1024 / 1024 codes in ")
    press(tab, "#visit li:first-child button")
    assert tab.inner_text("#visit dialog .aim-caption").startswith("golden retriever, seed ")
    reach(tab, "#visit dialog [data-to=inside]")
    tab.keyboard.press("Escape")
    assert not tab.is_visible("#visit dialog")
    assert tab.evaluate("() => document.activeElement.matches('#visit li:first-child button')")
