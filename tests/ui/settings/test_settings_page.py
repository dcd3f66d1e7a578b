"""One state for all tabs: what is set beside them is what each of them draws with, and the tab is
in the address.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pages import Page, show, until

DRAWING = {"generate", "complete", "sweep", "blend", "draw"}


@pytest.fixture
def tab(page: Page, browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(30_000)
    tab = context.new_page()
    tab.goto(page.url + "?count=1")
    tab.wait_for_selector("#generate")
    yield tab
    context.close()


def test_everything_that_draws_takes_model_class_seed_and_sampling(page: Page) -> None:
    blocks = {block.elem_id: block for block in page.blocks.blocks.values()}
    shared = {blocks[name] for name in ("model", "class", "seed")}
    found = {}
    for fn in page.blocks.fns.values():
        if fn.name in DRAWING:
            labels = [getattr(block, "label", None) for block in fn.inputs]
            found[fn.name] = shared <= {*fn.inputs} and {"Guidance", "Temperature"} <= {*labels}
    assert found == dict.fromkeys(DRAWING, True)


def test_what_is_emptied_or_switched_is_not_lost(page: Page, tab: Any) -> None:
    guidance = tab.get_by_label("number input for Guidance").first
    before = guidance.input_value()
    guidance.fill("")
    guidance.press("Tab")
    assert until(lambda: guidance.input_value() == before), "emptied is not the least value"
    tab.get_by_label("Random", exact=True).uncheck()
    tab.locator("#seed input").fill("")
    refused = "there is no seed; type a whole number"
    tab.click("#generate")
    assert until(lambda: refused in tab.inner_text("body"))
    for name, button in (("Explore", "explore"), ("Compare", "sweep")):
        show(tab, name)
        tab.click(f"#{button}")
        assert until(lambda name=name: refused in tab.inner_text(f"#{name.lower()}-progress")), name
    values = tab.locator("#across-values input, #across-values textarea").first
    values.fill("1, 3")
    for axis, shown in (("Top-p", "0.5, 0.8, 0.95, 1"), ("Guidance", "1, 3")):
        tab.locator("#across input").click()
        tab.get_by_role("option", name=axis, exact=True).click()
        assert until(lambda shown=shown: values.input_value() == shown)


def test_settings_and_address_go_along(page: Page, tab: Any) -> None:
    tab.locator("#seed input").fill("12")
    tab.locator("#seed input").press("Tab")
    show(tab, "Explore")
    assert tab.url.endswith("?count=1#explore")
    assert tab.locator("#seed input").input_value() == "12"
    tab.click("#explore")
    assert until(lambda: "seed 12," in tab.inner_text("#branches"))
    show(tab, "Race")
    assert until(lambda: not tab.is_visible("#class")), "it has settings of its own"
    tab.go_back()
    assert until(lambda: tab.is_visible("#explore") and tab.is_visible("#class"))
    tab.go_back()
    assert until(lambda: tab.is_visible("#generate")) and tab.url.endswith("?count=1")
    tab.goto(page.url + "#inside")
    tab.reload()
    tab.wait_for_selector("#inside")
    tab.click("#inside")
    assert until(lambda: tab.locator("#seed input").input_value() != "0"), "shows what it drew"
