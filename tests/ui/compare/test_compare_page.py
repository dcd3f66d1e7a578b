"""The Compare tab in a real browser and its API: sweeps, blends, refusals, Stop; completion through
the API.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from aim.compare import Axis, blend, sweep
from aim.images import read
from pages import Page, show, until

DESKTOP = {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def window(served: Page, browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport=DESKTOP, accept_downloads=True)
    context.set_default_timeout(30_000)
    tab = context.new_page()
    tab.goto(served.url)
    show(tab, "Compare")
    tab.wait_for_selector("#sweep")
    yield tab
    context.close()


@pytest.fixture
def tab(page: Page, window: Any) -> Any:
    """One window for all, in their order: the last one closes it."""
    tab = window
    tab.get_by_role("tab", name="Sweep").click()
    for side, values in (("across", "1, 2, 4, 8"), ("down", "0.6, 0.8, 1")):
        tab.locator(f"#{side}-values :is(input, textarea)").first.fill(values)
    return tab


@pytest.fixture
def client(page: Page, tmp_path: Path) -> Client:
    return Client(page.url, verbose=False, download_files=str(tmp_path))


def said(tab: Any) -> str:
    return str(tab.inner_text("#compare-progress .aim-text"))


def test_a_sweep(page: Page, tab: Any, tmp_path: Path) -> None:
    tab.locator("#across-values input, #across-values textarea").first.fill("1, 3")
    tab.locator("#down-values input, #down-values textarea").first.fill("0.5, 1")
    tab.click("#sweep")
    assert until(lambda: tab.locator("#compare-progress .aim-done").count() == 1, 60)
    assert until(lambda: tab.is_enabled("#compare-png"))
    with tab.expect_download() as waiting:
        tab.click("#compare-png")
    path = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(path)
    wanted = sweep(
        page.pipe, Axis("cfg_scale", (1.0, 3.0)), Axis("temperature", (0.5, 1.0)), "goldfish", 0
    ).draw(page.pipe)
    assert Image.open(path).tobytes() == wanted.tobytes()
    inside = read.read_parameters(path)
    assert (inside["kind"], inside["cfg_scale"], inside["temperature"], inside["class"]) == (
        "sweep",
        [1.0, 3.0],
        [0.5, 1.0],
        1,
    )
    tab.screenshot(path=tmp_path / "sweep.png", full_page=True)


def test_a_blend(tab: Any) -> None:
    tab.get_by_role("tab", name="Blend").click()
    tab.click("#blend")
    assert until(lambda: said(tab) == "1280 codes", 60)
    assert tab.locator("#grid img").count() == 1


def test_nonsense_is_refused_in_words(tab: Any) -> None:
    tab.locator("#across-values input, #across-values textarea").first.fill("1, lots")
    tab.click("#sweep")
    assert until(
        lambda: (
            "values of cfg_scale are '1, lots'; they must be numbers with commas between them"
            in said(tab)
        )
    )
    assert until(lambda: tab.is_enabled("#sweep"))


def test_stop(page: Page, tab: Any) -> None:
    page.brake.seconds = 0.05
    tab.click("#sweep")
    assert until(lambda: "/ 3072 codes" in said(tab))
    assert until(lambda: tab.locator("#grid img").count() == 1, 30), "the cells fill"
    assert tab.is_disabled("#compare-png")
    tab.click("#compare-stop")
    assert until(lambda: said(tab) == "Stopped")
    assert until(lambda: tab.is_enabled("#sweep"))
    page.brake.seconds = 0.0
    assert page.settle()


def test_a_closed_tab_stops_the_sweep(page: Page, tab: Any) -> None:
    page.brake.seconds = 0.05
    tab.click("#sweep")
    assert until(lambda: "/ 3072 codes" in said(tab))
    tab.close()
    assert page.settle()


def test_the_api_sweeps_and_blends(page: Page, client: Client) -> None:
    picture, progress, png = client.predict(
        "goldfish", "seed", "1,2", "top_k", "0,5", 0, None, None, api_name="/sweep"
    )
    assert progress["state"] == "done"
    wanted = sweep(page.pipe, Axis("seed", (1, 2)), Axis("top_k", (0, 5)), "goldfish")
    assert Image.open(png).tobytes() == wanted.draw(page.pipe).tobytes()
    assert Path(picture).read_bytes() == Path(png).read_bytes()
    *_, png = client.predict("goldfish", "tabby", 3, 7, None, None, api_name="/blend")
    between = blend(page.pipe, "goldfish", "tabby", 3, 7)
    assert Image.open(png).tobytes() == between.draw(page.pipe).tobytes()
    assert read.read_parameters(png)["classes"] == [1, 281]


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_the_api_completes_a_picture(page: Page, client: Client, tmp_path: Path, mode: str) -> None:
    path = tmp_path / "photo.jpg"
    Image.effect_noise((90, 60), 90).convert(mode).save(path, "JPEG")
    outputs = list(
        client.submit(handle_file(path), 6, "goldfish", None, None, 3, api_name="/complete")
    )
    picture, progress = outputs[-1]
    assert progress["state"] == "done"
    *_, frame = page.pipe.complete(path, 6, "goldfish", seed=3)
    assert frame.image is not None
    assert Image.open(picture).tobytes() == frame.image.tobytes()
    assert read.read_parameters(picture)["rows_kept"] == 6


@pytest.mark.parametrize(
    ("rows", "content", "message"),
    [(0, None, r"rows is 0; .*\[1, 15\]"), (4, b"text", "the file cannot be read as an image")],
)
def test_what_cannot_be_completed(
    client: Client, tmp_path: Path, rows: int, content: bytes | None, message: str
) -> None:
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "PNG")
    path = tmp_path / "a.png"
    path.write_bytes(content or out.getvalue())
    with pytest.raises(AppError, match=message):
        client.predict(handle_file(path), rows, "goldfish", None, None, 0, api_name="/complete")
