"""What goes out first: the card for messengers, the headline, compression, what the browser may
keep.
"""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from aim.ui.front import Card, dressed
from pages import Page


def asked(page: Page, path: str = "", **headers: str) -> httpx.Response:
    return httpx.get(page.url + path, headers=headers, trust_env=False)


def test_a_messenger_finds_our_card_and_no_other(page: Page) -> None:
    html = asked(page, **{"x-forwarded-host": "aim.example", "x-forwarded-proto": "https"}).text
    tags = dict(re.findall(r'<meta (?:name|property)="([^"]+)" content="([^"]*)" />', html))
    told = "AiM: watch a picture being drawn, code by code"
    assert (tags["og:title"], tags["og:url"]) == (told, "https://aim.example")
    assert f"<title>{told}</title>" in html and tags["og:description"] == tags["description"]
    assert "a picture of any of 5 things, one code" in tags["description"]
    assert tags["twitter:card"] == "summary"
    assert html.count("og:title") == 1 and "Gradio!" not in html.partition("<script>")[0]
    assert "og:image" not in tags, "the recorded pictures are of another model"
    assert asked(page, "card.jpg").status_code == 404


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("class=207", "golden retriever"),
        ("class=Carassius%20auratus&seed=3", "goldfish"),
        ("class=unicorn", ""),
        ("class=999", ""),
        (f"class={'9' * 400}", ""),
        ("class=%3Cscript%3E&class=x", ""),
    ],
)
def test_the_card_of_a_link_names_its_class(page: Page, query: str, name: str) -> None:
    html = asked(page, f"?{query}").text
    tags = dict(re.findall(r'<meta (?:name|property)="([^"]+)" content="([^"]*)" />', html))
    told = f"a picture of {name}" if name else "a picture"
    assert tags["og:title"] == f"AiM: watch {told} being drawn, code by code"
    assert f"<title>{tags['og:title']}</title>" in html
    assert f"draws {told}" in tags["description"]
    assert tags["og:url"].endswith("/?class=" + name.replace(" ", "+")) == bool(name)
    assert "unicorn" not in html and "<script>&" not in html


def test_a_card_has_its_picture_and_nothing_of_a_visitor_is_html(page: Page) -> None:
    html = "<head><style>a</style><script>window.gradio_config = {}</script>"
    card = Card(page.pipe)
    card.there = True
    made = dressed(html, card.tags('https://a.example/"><script>', "<b>"), "")
    assert "https://a.example/&quot;&gt;&lt;script&gt;/card.jpg" in made
    assert "<b>" not in made and "of &lt;b&gt; being drawn" in made
    assert dressed("<p>something else</p>", {}, "") == "<p>something else</p>"


def test_the_headline_is_seen_before_any_script_has_run(page: Page, browser: Any) -> None:
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(page.url)
    words = "A Mamba-2 model draws a picture as 256 codes, one after another."
    assert tab.inner_text(".aim-before p") == words
    before = [tab.locator(f".aim-before {it}").bounding_box() for it in ("h1", "p")]
    context.close()
    tab = browser.new_page()
    tab.goto(page.url)
    tab.wait_for_selector("#count input[value='4']:checked")
    assert not tab.is_visible(".aim-before h1")
    for it, was in zip(("h1", "p"), before, strict=True):
        now = tab.locator(f".aim-head {it}").bounding_box()
        assert abs(now["x"] - was["x"]) < 1 and abs(now["y"] - was["y"]) < 1, "it jumps"
    tab.close()


def test_the_page_is_compressed_and_assets_are_kept(page: Page) -> None:
    plain = asked(page, **{"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    for packing in ("gzip", "br"):
        packed = asked(page, **{"accept-encoding": packing})
        assert packed.headers["content-encoding"] == packing and packed.text == plain.text
        assert 3 * int(packed.headers["content-length"]) < len(plain.content)
    found = re.search(r"assets/index-[^\"]+\.js", plain.text)
    assert found and "immutable" in asked(page, found[0]).headers["cache-control"]
    assert "immutable" not in plain.headers.get("cache-control", "")


def test_settings_are_hidden_no_longer_than_they_need(page: Page, browser: Any) -> None:
    tab = browser.new_page()
    tab.goto(page.url)  # of a model without recorded pictures
    tab.wait_for_selector("#restore input", state="attached")
    tab.wait_for_selector("#note:visible", timeout=2000)
    assert tab.evaluate(
        "() => getComputedStyle(document.querySelector('#note')).animationName"
    ) == ("none"), "not only because the time is over"
    tab.close()
