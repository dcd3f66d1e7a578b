"""Picking a class by name, synonym, number and kind, with keyboard and mouse."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from aim.classes import imagenet
from aim.ui.assets import text
from aim.ui.picker.picker import catalogue
from pages import Page, until


@pytest.fixture(scope="module")
def script(browser: Any) -> Iterator[Any]:
    """An empty page with the matching in it."""
    tab = browser.new_page()
    choices = sorted(
        ([entry.title, entry.index] for entry in imagenet()), key=lambda one: one[0].casefold()
    )
    told = f"const entries = prepare({json.dumps(choices)}, {catalogue().decode()});"
    tab.add_script_tag(content=text("picker/match.js") + told)
    yield tab
    tab.close()


def found(script: Any, query: str) -> list[tuple[str, str]]:
    """Titles and because of which other word, for what is typed."""
    told = script.evaluate("(query) => match(entries, query)", query)
    assert not told["near"]
    return [(one["title"], one["why"]) for one in told["found"]]


@pytest.mark.parametrize(
    ("query", "title", "why"),
    [
        ("goldfish", "goldfish (1)", ""),
        ("  GOLD fish", "goldfish (1)", ""),
        ("goldfi", "goldfinch (11)", ""),
        ("207", "golden retriever (207)", ""),
        ("golden retriever (207)", "golden retriever (207)", ""),
        ("carassius", "goldfish (1)", "Carassius auratus"),
        ("retriever golden", "golden retriever (207)", ""),
        ("fruits", "acorn (988)", "fruit"),
        ("berries", "strawberry (949)", "berry"),
        ("tabb", "tabby (281)", ""),
    ],
)
def test_what_is_typed_first_means(script: Any, query: str, title: str, why: str) -> None:
    assert found(script, query)[0] == (title, why)


def test_a_kind_lists_all_of_it(script: Any) -> None:
    dogs = found(script, "dog")
    assert [why for _, why in dogs[:118]] == ["dog"] * 118
    assert ("beagle (162)", "dog") in dogs
    assert [title for title, why in dogs[118:] if not why][:1] == ["dogsled (537)"]
    assert {title for title, _ in found(script, "birds")} > {"robin (15)", "king penguin (145)"}
    assert len(found(script, "")) == 1000


def test_where_nothing_matches_the_nearest_are_told(script: Any) -> None:
    told = script.evaluate("(query) => match(entries, query)", "godlfish")
    assert told["near"] and told["found"][0]["title"] == "goldfish (1)"
    assert len(told["found"]) <= 5
    assert script.evaluate("match(entries, 'qqqq')") == {"near": True, "found": []}


@pytest.fixture
def tab(page: Page, browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(30_000)
    tab = context.new_page()
    tab.goto(page.url)
    tab.wait_for_selector("#generate")
    yield tab
    context.close()


def test_keyboard_and_mouse(tab: Any, page: Page) -> None:
    box = tab.locator("#class input")
    option = tab.locator("#class [role=option]")
    assert box.input_value() == "goldfish (1)"
    box.click()
    assert box.get_attribute("aria-expanded") == "true" and option.count() == 5
    tab.keyboard.type("cat")
    option.first.wait_for()
    assert until(lambda: option.all_inner_texts()[0].split("\n") == ["Egyptian cat (285)", "cat"])
    assert option.nth(0).get_attribute("id") == box.get_attribute("aria-activedescendant")
    tab.keyboard.press("ArrowDown")
    assert option.nth(1).get_attribute("aria-selected") == "true"
    tab.keyboard.press("Enter")
    assert box.input_value() == "tabby (281)" and box.get_attribute("aria-expanded") == "false"

    box.click()
    tab.keyboard.type("goldfihs")
    assert tab.inner_text("#class .aim-picker-list p") == (
        "Nothing matches “goldfihs”. The nearest:"
    )
    assert option.first.inner_text().startswith("goldfish (1)")
    assert "Nothing matches" in tab.text_content("#class [role=status]")
    tab.keyboard.press("Tab")
    assert box.input_value() == "tabby (281)" and not tab.is_visible("#class [role=listbox]")

    box.click()
    tab.keyboard.type("retriever")
    tab.keyboard.press("Tab")
    assert box.input_value() == "golden retriever (207)", "Tab takes what is marked"
    assert not tab.is_visible("#class [role=listbox]")
    box.click()
    tab.keyboard.type("goldf")
    tab.mouse.click(900, 20)
    assert box.input_value() == "goldfish (1)", "so does a click elsewhere"
    box.click()
    tab.keyboard.type("golden")
    option.first.click()
    assert box.input_value() == "golden retriever (207)"

    page.brake.seconds = 0.02
    tab.click("#generate")
    tab.wait_for_selector("#progress .aim-drawing")
    box.click()
    tab.keyboard.press("Escape")
    assert not tab.is_visible("#class [role=listbox]")
    assert tab.is_enabled("#generate-stop"), "Esc in a list stopped the drawing"
    tab.keyboard.press("Escape")
    assert until(lambda: tab.inner_text("#progress .aim-text").startswith("Stopped at"))
    assert tab.evaluate("document.querySelector('#stage .aim-stage canvas').ariaLabel").startswith(
        "golden retriever (207)"
    )
