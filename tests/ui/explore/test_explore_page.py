"""The Explore tab in a real browser: rewind and branch, completion, refusals."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from aim.engine import Request
from aim.ui.explore.branches import parent_of
from pages import Page, show, until

DESKTOP = {"width": 1280, "height": 900}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, page: Page) -> list[Request]:
    """Every request that reaches the engine."""
    requests: list[Request] = []
    submit = page.pipe.server.engine.submit

    def watched(request: Request) -> None:
        requests.append(request)
        submit(request)

    monkeypatch.setattr(page.pipe.server.engine, "submit", watched)
    return requests


def opened(served: Page, browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport=DESKTOP)
    context.set_default_timeout(30_000)
    tab = context.new_page()
    tab.goto(served.url)
    show(tab, "Explore")
    tab.wait_for_selector("#explore")
    yield tab
    context.close()


@pytest.fixture
def fresh(page: Page, browser: Any) -> Iterator[Any]:
    """A window in which nothing was explored yet."""
    yield from opened(page, browser)


@pytest.fixture(scope="module")
def window(served: Page, browser: Any) -> Iterator[Any]:
    yield from opened(served, browser)


@pytest.fixture
def tab(page: Page, window: Any) -> Any:
    """One window for all who do not mind what others explored there."""
    window.get_by_label("Random", exact=True).check()
    return window


def said(tab: Any) -> str:
    return str(tab.inner_text("#explore-progress .aim-text"))


def count(tab: Any) -> int:
    return int(tab.locator("#branches img").count())


def draw(tab: Any) -> int:
    """Press Draw, and wait until there is one picture more; returns how many there are."""
    before = count(tab)
    tab.click("#explore")
    assert until(lambda: count(tab) == before + 1)
    assert until(lambda: "256 / 256" in said(tab))
    return before + 1


def give(tab: Any, name: str, content: bytes) -> int:
    """Give a picture; returns its number."""
    before = count(tab)
    tab.set_input_files(
        "#given input[type=file]", {"name": name, "mimeType": "image/*", "buffer": content}
    )
    assert until(lambda: count(tab) == before + 1)
    assert "Your picture as 16x16 codes keep it" in said(tab)
    return before + 1


def keep_rows(tab: Any, rows: int) -> None:
    box = tab.locator("#rows-kept input[type=number]")
    box.fill(str(rows))
    box.press("Tab")


def test_rewind_and_branch(fresh: Any, asked: list[Request]) -> None:
    tab = fresh
    keep_rows(tab, 3)
    tab.click("#explore")
    assert until(lambda: "there is no picture yet to keep them of" in said(tab))
    assert until(lambda: tab.is_enabled("#explore"))
    keep_rows(tab, 0)
    tab.get_by_label("Random", exact=True).uncheck()
    draw(tab)
    assert asked[0].prefix == ()
    stage = tab.locator("#explored .aim-stage")
    stage.get_by_role("button", name="Live").click()
    tab.wait_for_selector("#explored .aim-stage[data-state=done]")
    canvas = stage.locator("canvas")
    canvas.scroll_into_view_if_needed()
    side = canvas.bounding_box()["width"]
    canvas.hover(position={"x": side / 2, "y": side * 3.5 / 16})
    assert "Click: the first 3 rows stay" in tab.inner_text("#explored .aim-cut")
    canvas.click(position={"x": side / 2, "y": side * 8.5 / 16})
    assert until(lambda: tab.input_value("#rows-kept input[type=number]") == "8"), "cut there"
    tab.mouse.move(5, 5)
    assert until(lambda: "The first 8 rows stay" in tab.inner_text("#explored .aim-cut"))
    keep_rows(tab, 5)
    assert until(lambda: "The first 5 rows stay" in tab.inner_text("#explored .aim-cut"))
    keep_rows(tab, 8)
    draw(tab)
    rate = float(tab.inner_text("#explore-progress .aim-rate").split()[0])
    told = re.search(r"128 codes drawn in ([\d.]+) s", tab.inner_text("#branches"))
    assert rate == pytest.approx(128 / float(told[1]), rel=0.05), "only what was drawn counts"
    again, first = asked[1], asked[0]
    assert len(again.prefix) == 128
    assert (again.label, again.seed, again.params) == (first.label, first.seed, first.params)
    assert "2: goldfish (1), 8 rows of 1" in tab.inner_text("#branches")
    assert "one pass over 128 codes and 128 codes drawn in" in tab.inner_text("#branches")
    assert tab.locator("#branches li li").count() == 1, "below the one that it grew out of"
    tab.locator("#branches button").first.click()
    assert until(lambda: "goes on from 1" in said(tab))
    tab.locator("#seed input").fill("77")
    tab.locator("#seed input").press("Tab")
    draw(tab)
    assert asked[2].seed == 77
    assert asked[2].prefix == again.prefix, "the same rows of the same picture"
    assert "3: goldfish (1), 8 rows of 1" in tab.inner_text("#branches")
    assert until(lambda: tab.is_enabled("#explored [data-to=inside]"))
    kept = tab.evaluate("() => JSON.parse(localStorage.getItem('aim-visit'))[0]")
    tab.click("#explored [data-to=inside]")
    assert until(lambda: tab.locator("#inside-progress .aim-done").count() == 1, 30)
    inside = asked[3]
    assert inside.explain and (inside.prefix, inside.seed) == (asked[2].prefix, 77)
    assert until(lambda: "Row 1, column 1: given, not drawn" in tab.inner_text("#looked"))
    assert "The first 128 codes were given" in tab.inner_text("#map-key")
    known = tab.evaluate("() => JSON.parse(localStorage.getItem('aim-visit'))")
    assert known[0] == kept and len(known) == 3, "the same picture, and no other"


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_a_picture_of_one_s_own_is_finished(
    tab: Any, page: Page, asked: list[Request], mode: str
) -> None:
    out = io.BytesIO()
    Image.effect_noise((90, 60), 90).convert(mode).save(out, "JPEG")
    number = give(tab, "photo.jpg", out.getvalue())
    assert tab.input_value("#rows-kept input[type=number]") == "8"
    draw(tab)
    assert list(asked[0].prefix) == page.pipe.encode(out.getvalue())[:128].tolist()
    assert f"{number + 1}: goldfish (1), 8 rows of {number}" in tab.inner_text("#branches")


def saved(kind: str) -> bytes:
    out = io.BytesIO()
    if kind == "12 megapixels":
        Image.effect_noise((4000, 3000), 90).convert("RGB").save(out, "JPEG", quality=60)
    elif kind == "1x1":
        Image.new("RGB", (1, 1), (200, 30, 30)).save(out, "PNG")
    else:
        frames = [Image.new("RGB", (40, 30), (60 * i, 90, 90)) for i in range(3)]
        frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    return out.getvalue()


@pytest.mark.parametrize(
    ("kind", "name"),
    [("12 megapixels", "photo.jpg"), ("1x1", "dot.png"), ("animated", "waving.gif")],
)
def test_pictures_of_every_kind_are_taken(tab: Any, kind: str, name: str) -> None:
    give(tab, name, saved(kind))


def test_an_upload_of_200_mb_is_refused_and_the_page_goes_on(fresh: Any, tmp_path: Path) -> None:
    tab, path = fresh, tmp_path / "huge.png"
    with path.open("wb") as file:
        file.truncate(200_000_000)
    tab.set_input_files("#given input[type=file]", path)
    assert until(
        lambda: (
            "maximum" in tab.inner_text("body").lower() and "size" in tab.inner_text("body").lower()
        ),
        30,
    )
    tab.reload()
    show(tab, "Explore")
    draw(tab)


def test_what_is_no_picture_is_refused_and_the_page_goes_on(tab: Any) -> None:
    tab.set_input_files(
        "#given input[type=file]",
        {"name": "notes.png", "mimeType": "image/png", "buffer": b"just some text"},
    )
    assert until(
        lambda: (
            "cannot be read as an image (its format is not known); take a PNG, JPEG or WebP"
            in said(tab)
        )
    )
    draw(tab)


def test_stop(tab: Any, page: Page) -> None:
    keep_rows(tab, 0)
    page.brake.seconds = 0.05
    tab.click("#explore")
    assert until(lambda: "/ 256" in said(tab))
    tab.click("#explore-stop")
    assert until(lambda: said(tab).startswith("Stopped at"))
    assert until(lambda: tab.is_enabled("#explore"))
    assert page.settle()


@pytest.mark.parametrize("rows", [-1, 16, 2.5, "8", True, None])
def test_rows_out_of_range(page: Page, rows: object) -> None:
    with pytest.raises(Exception, match=r"rows kept is .*; it must be a whole number in \[0, 15\]"):
        parent_of(page.pipe, [], 0, rows)
