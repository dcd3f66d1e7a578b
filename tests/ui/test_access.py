"""Every tab, and a picture shown large, wide and narrow, light and dark: the accessibility checker
finds nothing serious, nothing scrolls sideways, buttons of a row stand level; screenshots are kept.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from pages import Page, show, until

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 800}
KEPT = os.environ.get("AIM_SCREENSHOTS")  # a folder; else they lie in pytest's own
SERIOUS = ("serious", "critical")
BUTTONS = {"Generate": "#generate", "Inside": "#inside", "Explore": "#explore", "Compare": "#sweep"}
DONE = {
    "Generate": "#progress",
    "Inside": "#inside-progress",
    "Explore": "#explore-progress",
    "Compare": "#compare-progress",
}

# Buttons that overlap in height with the one before them, but stand higher or lower.
CROOKED = """() => [...document.querySelectorAll(".prose button")].filter((it) => {
  const before = it.previousElementSibling;
  if (!it.offsetParent || before?.tagName !== "BUTTON") return false;
  const [one, two] = [before.getBoundingClientRect(), it.getBoundingClientRect()];
  return Math.abs(one.top - two.top) > 0.5 && two.top < one.bottom;
}).map((it) => it.outerHTML.slice(0, 160))"""


def serious(tab: Any, name: str) -> list[str]:
    """What the checker finds on what is shown."""
    return [
        f"{name}: {violation['id']} ({violation['help']}): {node['target']}: {node['html'][:160]}"
        for violation in Axe().run(tab).response["violations"]
        if violation["impact"] in SERIOUS
        for node in violation["nodes"]
    ]


@pytest.mark.parametrize(
    ("size", "scheme"),
    [(DESKTOP, "light"), (DESKTOP, "dark"), (PHONE, "light")],
    ids=["wide", "dark", "narrow"],
)
def test_nothing_serious_is_found(
    page: Page,
    browser: Any,
    size: dict[str, int],
    scheme: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    context = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")
    context.set_default_timeout(30_000)
    tab = context.new_page()
    tab.goto(page.url)
    tab.wait_for_selector("#generate")
    folder = Path(KEPT) if KEPT else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    found: list[str] = []
    for name in ("Generate", "Inside", "Explore", "Compare", "Race", "About"):
        if name != "Generate":
            tab.keyboard.press("Escape")
            show(tab, name)
        if name in BUTTONS:
            if name == "Generate":
                tab.click("#share")
            tab.click(BUTTONS[name])
            assert until(
                lambda name=name: tab.locator(f"{DONE[name]} .aim-done").count() == 1, 60
            ), name
            assert until(lambda name=name: tab.is_enabled(BUTTONS[name]))
        tab.wait_for_timeout(600)  # buttons that are enabled have faded in
        tab.screenshot(
            path=folder / f"{request.node.callspec.id}-{name.lower()}.png", full_page=True
        )
        assert tab.evaluate("() => document.documentElement.scrollWidth") <= size["width"], (
            f"{name} scrolls sideways"
        )
        assert tab.evaluate(CROOKED) == []
        if name == "Generate":
            tab.click("#visit li button")
            assert until(lambda: tab.is_visible("#visit dialog img[src]"))
            tab.wait_for_timeout(300)
            tab.screenshot(path=folder / f"{request.node.callspec.id}-large.png")
            assert tab.evaluate(CROOKED) == []
            found += serious(tab, "A picture shown large")
            tab.keyboard.press("Escape")
            tab.click("#class input")  # an open list
            tab.keyboard.type("cat")
        found += serious(tab, name)
    context.close()
    assert found == []
