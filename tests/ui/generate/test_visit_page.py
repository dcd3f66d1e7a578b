"""The Generate tab in a real browser: several pictures, the visit's gallery, restoring, links,
films, presets, keys.
"""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import pytest
from PIL import Image

from aim.config import INDEX
from aim.images import read, write
from aim.ui.settings.handlers import Boxes, SettingsActions
from pages import Page, show, until

DESKTOP = {"width": 1280, "height": 900}


@pytest.fixture
def open_tab(page: Page, browser: Any) -> Iterator[Callable[..., Any]]:
    contexts = []

    def open_(query: str = "", size: dict[str, int] = DESKTOP) -> Any:
        context = browser.new_context(
            viewport=size, accept_downloads=True, permissions=["clipboard-read", "clipboard-write"]
        )
        context.set_default_timeout(30_000)
        contexts.append(context)
        tab = context.new_page()
        tab.goto(page.url + query)
        if not query:
            tab.wait_for_selector("#count input[value='4']:checked")
            tab.get_by_label("1", exact=True).check()
        tab.wait_for_selector("#generate")
        return tab

    yield open_
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def window(served: Page, browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport=DESKTOP)
    context.set_default_timeout(30_000)
    tab = context.new_page()
    tab.goto(served.url + "?count=1")
    tab.wait_for_selector("#generate")
    yield tab
    context.close()


@pytest.fixture
def tab(page: Page, window: Any) -> Any:
    """One window for all who do not mind what others drew there."""
    show(window, "Generate")
    return window


def said(tab: Any) -> str:
    return str(tab.inner_text("#progress .aim-text"))


def told(tab: Any) -> str:
    """What is said of settings that came from elsewhere."""
    return str(tab.inner_text("#told .aim-text"))


def fill(tab: Any, box: str, value: str) -> None:
    tab.locator(f"{box} input").first.fill(value)
    tab.locator(f"{box} input").first.press("Tab")


def seeded(tab: Any, seed: int) -> None:
    tab.get_by_label("Random", exact=True).first.uncheck()
    fill(tab, "#seed", str(seed))


def generate(tab: Any, pictures: int) -> None:
    """Press Generate and wait until the visit has ``pictures``."""
    tab.click("#generate")
    tab.wait_for_function(f"() => document.querySelectorAll('#visit li').length === {pictures}")


def saved(tab: Any, button: str, folder: Path) -> Path:
    with tab.expect_download() as waiting:
        tab.click(button)
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def test_four_at_once_are_those_drawn_alone(
    page: Page, open_tab: Callable[..., Any], tmp_path: Path
) -> None:
    tab = open_tab()
    seeded(tab, 5)
    tab.get_by_label("4", exact=True).check()
    page.brake.seconds = 0.01
    tab.click("#generate")
    assert until(lambda: "/ 1024 codes" in said(tab)), "all of them fill in together"
    page.brake.seconds = 0.0
    tab.wait_for_function("() => document.querySelectorAll('#visit li').length === 4")
    assert "1024 / 1024" in said(tab)
    tab.screenshot(path=tmp_path / "four.png", full_page=True)
    alone = [image for seed in range(5, 9) for image in page.pipe.generate("goldfish", seed=seed)]
    path = saved(tab, "#stage [data-kind=png]", tmp_path)
    assert Image.open(path).tobytes() == write.mosaic(alone).tobytes()
    assert read.read_parameters(path)["count"] == 4
    film = saved(tab, "#stage [data-kind=mp4]", tmp_path)
    assert film.suffix == ".mp4" and iio.imread(
        film.read_bytes(), extension=".mp4", plugin="pyav"
    ).shape[1:] == (512, 512, 3)
    with zipfile.ZipFile(saved(tab, "#visit .aim-all", tmp_path)) as archive:
        names = archive.namelist()
        assert names == [f"00{i + 1}-tiny-goldfish-1-seed-{5 + i}.png" for i in range(4)]
        for name, image in zip(names, alone, strict=True):
            assert Image.open(io.BytesIO(archive.read(name))).tobytes() == image.tobytes()


def test_nine_stop_together(page: Page, tab: Any) -> None:
    tab.get_by_label("9", exact=True).check()
    page.brake.seconds = 0.05
    tab.click("#generate")
    assert until(lambda: "/ 2304 codes" in said(tab))
    tab.keyboard.press("Escape")
    assert until(lambda: said(tab).startswith("Stopped at"))
    assert until(lambda: tab.is_enabled("#generate"))
    assert page.settle()


def test_a_picture_of_the_visit_is_shown_large_and_goes_on_to_every_tab(
    page: Page, open_tab: Callable[..., Any], tmp_path: Path
) -> None:
    tab = open_tab()
    seeded(tab, 11)
    generate(tab, 1)
    fill(tab, "#seed", "12")
    generate(tab, 2)
    assert "seed 12, guidance 3, temperature 1, tiny" in tab.inner_text("#visit")
    tab.get_by_label("4", exact=True).check()
    tab.reload()
    second = tab.locator("#visit li button").nth(1)
    second.scroll_into_view_if_needed()
    assert until(lambda: (second.locator("img").get_attribute("src") or "").startswith("blob:"))
    second.click()
    assert "seed 11" in tab.inner_text("#visit dialog .aim-caption"), "it survives a reload"
    path = saved(tab, "#visit dialog [data-kind=png]", tmp_path)
    [alone] = page.pipe.generate("goldfish", seed=11)
    assert Image.open(path).tobytes() == alone.tobytes()
    tab.click("#visit dialog [data-to=generate]")
    assert until(lambda: tab.get_by_label("1", exact=True).is_checked())
    assert until(lambda: tab.locator("#seed input").input_value() == "11")
    assert until(lambda: "The settings are taken over" in told(tab))
    second.click()
    tab.click("#visit dialog [data-to=explore]")
    assert until(lambda: tab.is_visible("#explored") and tab.locator("#branches img").count() == 1)
    assert "1: goldfish (1)" in tab.inner_text("#branches") and tab.url.endswith("#explore")
    tab.locator("#visit li button").nth(0).click()
    tab.click("#visit dialog [data-to=inside]")
    assert until(lambda: tab.locator("#inside-progress .aim-done").count() == 1), "drawn at once"
    assert tab.locator("#seed input").input_value() == "12"


def test_pictures_of_an_older_model_say_so(open_tab: Callable[..., Any]) -> None:
    tab = open_tab()
    seeded(tab, 4)
    generate(tab, 1)
    tab.evaluate(
        "() => localStorage.setItem('aim-visit', "
        "localStorage.getItem('aim-visit').replaceAll('0123456789ab', 'fedcba987654'))"
    )
    tab.reload()
    tab.locator("#visit li").scroll_into_view_if_needed()
    assert until(lambda: "Of an older model: goldfish" in tab.inner_text("#visit"))
    tab.click("#visit li button")
    dialog = tab.locator("#visit dialog")
    assert until(lambda: "another version of tiny" in dialog.inner_text())
    assert dialog.locator("[data-kind]:enabled").count() == 0
    dialog.locator("[data-to=generate]").click()
    assert until(lambda: "differs in the model's version (fedcba987654 there" in told(tab))


def test_stop_keeps_what_is_shown_and_a_stopped_drawing_can_be_kept(
    page: Page, open_tab: Callable[..., Any], tmp_path: Path
) -> None:
    tab = open_tab()
    seeded(tab, 6)
    state, shown = "#stage .aim-stage[data-state={}]", "#stage .aim-stage"
    tab.click("#generate")  # done in no time, and shown slowly
    tab.wait_for_selector(state.format("playing"))
    assert until(lambda: "256 / 256" in said(tab) and tab.is_enabled("#generate-stop"))
    tab.keyboard.press("Escape")
    tab.wait_for_selector(state.format("held"))
    at = int(tab.get_attribute(shown, "data-shown"))
    tab.wait_for_timeout(300)
    assert 0 < at == int(tab.get_attribute(shown, "data-shown")) < 256
    page.brake.seconds = 0.03
    tab.click("#generate")
    assert until(lambda: 40 < int(tab.get_attribute(shown, "data-known")) < 256)
    tab.click("#generate-stop")
    tab.click("#stage .aim-keep")
    assert until(lambda: "stopped at" in tab.inner_text("#visit"))
    path = saved(tab, "#stage [data-kind=png]", tmp_path)
    drawn = read.read_parameters(path)["codes_drawn"]
    assert 40 < drawn < 256 and Image.open(path).size == (64, 64)


def test_a_restored_png_makes_the_identical_picture(
    page: Page, open_tab: Callable[..., Any], tmp_path: Path
) -> None:
    [image] = page.pipe.generate(207, seed=33, cfg_scale=2.5, top_k=9)
    kept = write.png_bytes(
        image, page.pipe.parameters(207, 33, page.pipe.params(cfg_scale=2.5, top_k=9))
    )
    tab = open_tab()
    tab.set_input_files(
        "#restore input[type=file]", {"name": "kept.png", "mimeType": "image/png", "buffer": kept}
    )
    assert until(lambda: tab.locator("#seed input").input_value() == "33")
    assert until(
        lambda: tab.get_by_label("Class", exact=True).input_value() == "golden retriever (207)"
    )
    assert until(
        lambda: told(tab) == "The settings are taken over. They draw the picture again."
    ), told(tab)
    generate(tab, 1)
    assert Image.open(saved(tab, "#stage [data-kind=png]", tmp_path)).tobytes() == image.tobytes()


def test_a_png_from_elsewhere_says_where_it_differs(page: Page, tab: Any) -> None:
    inside = {
        **page.pipe.parameters(1, 3, page.pipe.sampling),
        "dtype": "bfloat16",
        "version": "fedcba987654",
    }
    name = "#restore input[type=file]"
    tab.set_input_files(
        name,
        {
            "name": "a.png",
            "mimeType": "image/png",
            "buffer": write.png_bytes(Image.new("RGB", (8, 8)), inside),
        },
    )
    assert until(
        lambda: (
            "differs in the model's version (fedcba987654 there" in told(tab)
            and "bfloat16 there" in told(tab)
        )
    )
    assert tab.locator("#seed input").input_value() == "3"


def test_other_pngs_are_refused(tab: Any) -> None:
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "PNG")
    for content, words in (
        (out.getvalue(), "this picture carries no parameters"),
        (b"junk", "cannot be read as an image"),
    ):
        tab.set_input_files(
            "#restore input[type=file]",
            {"name": "a.png", "mimeType": "image/png", "buffer": content},
        )
        assert until(lambda words=words: words in told(tab)), told(tab)
        assert tempfile.gettempdir() not in tab.inner_text("body"), "a path of the server"
        tab.wait_for_selector("#restore input[type=file]", state="attached")


def test_a_link_opens_the_page_ready(open_tab: Callable[..., Any]) -> None:
    tab = open_tab()
    seeded(tab, 21)
    tab.get_by_label("4", exact=True).check()
    tab.click("#share")
    assert until(lambda: "?" in tab.locator("#link textarea, #link input").first.input_value())
    link = tab.locator("#link textarea, #link input").first.input_value()
    assert (
        "class=1&seed=21&cfg_scale=3" in link
        and "version=0123456789ab" in link
        and link.endswith("count=4")
    )
    assert tab.evaluate("() => navigator.clipboard.readText()") == link
    again = open_tab(
        "?" + link.partition("?")[2].replace("seed=21", "seed=44").replace("class=1", "class=tabby")
    )
    assert until(lambda: again.locator("#seed input").input_value() == "44")
    assert until(lambda: again.get_by_label("Class", exact=True).input_value() == "tabby (281)")
    assert again.get_by_label("4", exact=True).is_checked()


NONSENSE = {
    "?seed=-5": "seed is -5",
    "?class=unicorn": "there is no class 'unicorn'",
    "?top_p=x": "top_p is 'x'",
    "?model=aim-b&seed=9": "so tiny stays in use",
}


@pytest.mark.parametrize(("query", "words"), NONSENSE.items())
def test_a_link_with_nonsense_is_refused_politely(
    open_tab: Callable[..., Any], query: str, words: str
) -> None:
    tab = open_tab(query)
    assert until(lambda: words in told(tab))
    assert tab.locator("#seed input").input_value() == "0"
    generate(tab, 1)


def test_settings_of_another_model_come_with_it(page: Page, make_pipe: Callable[..., Any]) -> None:
    other, _ = make_pipe()
    fields: dict[str, Any] = {name: object() for name in Boxes._fields}
    boxes = Boxes(**{**fields, "sampling": {name: object() for name in INDEX}})
    models = page.blocks.health.models  # type: ignore[attr-defined]
    future: Future[Any] = Future()
    future.set_result(other)
    before = dict(models._loads)
    models._loads["aim-b"] = future
    try:
        updates: dict[Any, Any] = {}
        for update in SettingsActions(models, boxes).restore(
            {"model": "aim-b", "class": "tabby", "seed": "4", "cfg_scale": 7}, "tiny"
        ):
            updates |= update
    finally:
        models._loads = before
        other.close()
    assert (updates[boxes.model], updates[boxes.current], updates[boxes.label]) == (
        "aim-b",
        "aim-b",
        281,
    )
    assert (
        updates[boxes.seed],
        updates[boxes.random_seed],
        updates[boxes.sampling["cfg_scale"]],
    ) == (
        4,
        False,
        7,
    )
    assert boxes.pictures not in updates, "nothing was said of it"


def test_a_typed_seed_is_the_one_drawn_and_the_link_has_it(open_tab: Callable[..., Any]) -> None:
    tab = open_tab()
    random = tab.get_by_label("Random", exact=True).first
    generate(tab, 1)
    drawn = int(tab.locator("#seed input").input_value())
    assert f"seed {drawn}," in tab.inner_text("#visit"), "the box shows the seed drawn"
    assert random.is_checked()
    tab.click("#share")
    link = tab.locator("#link textarea, #link input").first
    assert until(lambda: f"seed={drawn}" in link.input_value())
    fill(tab, "#seed", "77")
    assert until(lambda: not random.is_checked())
    generate(tab, 2)
    assert "seed 77," in tab.inner_text("#visit")


def test_a_link_with_a_seed_draws(open_tab: Callable[..., Any]) -> None:
    tab = open_tab("?class=281&seed=9&count=1")
    tab.wait_for_selector("#visit li")
    assert "tabby, seed 9" in tab.inner_text("#visit")


@pytest.mark.parametrize("leave", ["Tab", "click"])
def test_a_list_that_is_left_takes_what_was_typed(tab: Any, leave: str) -> None:
    show(tab, "Explore")
    box = tab.locator("#class input")
    box.click()
    box.press_sequentially("tabb", delay=30)
    assert until(lambda: tab.locator("[role=option]").count() == 1)
    tab.keyboard.press("Tab") if leave == "Tab" else tab.click("#explore-progress")
    assert until(lambda: box.input_value() == "tabby (281)")


def test_escape_in_a_list_closes_it_and_draws_on(page: Page, tab: Any) -> None:
    page.brake.seconds = 0.02
    tab.click("#generate")
    tab.wait_for_selector("#progress .aim-drawing")
    tab.click("#class input")
    tab.keyboard.press("Escape")
    tab.wait_for_timeout(500)
    assert not said(tab).startswith("Stopped") and tab.is_enabled("#generate-stop")
    tab.click("#generate-stop")


def test_presets_and_keys(page: Page, open_tab: Callable[..., Any]) -> None:
    tab = open_tab()
    tab.locator("#preset input").click()
    tab.keyboard.press("Tab")
    assert until(lambda: tab.locator("#preset [role=option]").count() == 0), "left by Tab"
    tab.locator("#preset input").click()
    tab.get_by_role("option", name="Vivid").click()
    assert until(lambda: tab.get_by_label("number input for Guidance").first.input_value() == "6")
    tab.locator("#seed input").focus()
    tab.keyboard.press("Enter")
    tab.wait_for_function("() => document.querySelectorAll('#visit li').length === 1")
    assert "guidance 6, temperature 0.9, top-p 0.95" in tab.inner_text("#visit")
