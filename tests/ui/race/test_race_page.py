"""The Race tab in a real browser: start, watch, stop, the replay, what there is to take home; on a
phone; the line on scaling.
"""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gradio_client import Client

from aim.config import GPTConfig
from aim.ui.race import handlers as race_actions
from aim.ui.race import measuring
from pages import Page, show, until
from tests.tiny import TINY

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 800}
PAIR, TITLE = "aim-b/gpt-b random", "aim-b, gpt-b (random weights)"

# The shares of both canvases that are paper: codes not there yet.
COVERED = """() => [...document.querySelectorAll('.aim-racer canvas')].map((canvas) => {
  const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  let paper = 0;
  for (let i = 0; i < pixels.length; i += 4) {
    const [red, green, blue] = pixels.slice(i, i + 3);
    paper += red === 0xe9 && green === 0xee && blue === 0xf0;
  }
  return paper / (pixels.length / 4);
})"""


def opened(served: Page, browser: Any, size: dict[str, int], **more: Any) -> Iterator[Any]:
    """The Race tab for a pair of tiny models, in a window of its own."""
    context = browser.new_context(viewport=size, accept_downloads=True, **more)
    context.set_default_timeout(30_000)
    tab = context.new_page()
    tab.problems = []
    tab.on("pageerror", lambda error: tab.problems.append(str(error)))
    tab.goto(served.url)
    show(tab, "Race")
    choose(tab, "Pair", TITLE)
    yield tab
    context.close()


@pytest.fixture(scope="module")
def tab(served: Page, browser: Any) -> Iterator[Any]:
    """One window for all tests on a desktop, in their order."""
    yield from opened(served, browser, DESKTOP)


@pytest.fixture
def phone(served: Page, browser: Any) -> Iterator[Any]:
    """A dark phone that wants no motion."""
    yield from opened(served, browser, PHONE, color_scheme="dark", reduced_motion="reduce")


def choose(tab: Any, label: str, option: str) -> None:
    box = tab.get_by_label(label, exact=True)
    box.click()
    tab.get_by_role("option", name=option, exact=True).click()
    assert until(lambda: box.input_value() == option)


def download(tab: Any, button: str, folder: Path) -> Path:
    with tab.expect_download() as waiting:
        tab.click(button)
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def test_a_race_is_watched_replayed_and_taken_home(page: Page, tab: Any, tmp_path: Path):
    assert (
        not tab.is_visible(".aim-replay")
        and not tab.is_visible("#race-csv")
        and tab.is_disabled("#race-stop")
    )
    assert "aim-b: 38.8 at 256" in tab.get_attribute("#memory svg", "aria-label")
    choose(tab, "Batch", "4")
    page.rivals.seconds = 0.005
    tab.click("#race")
    tab.wait_for_function(
        "() => /Measuring (aim|gpt)-b: lap [1-5] of "
        "5/.test(document.querySelector('#race-progress').innerText)"
    )
    assert tab.is_disabled("#race") and tab.is_enabled("#race-stop")
    tab.wait_for_selector("#race-progress .aim-done")
    tab.wait_for_selector(".aim-replay[data-state=done]")
    tab.screenshot(path=tmp_path / "done.png", full_page=True)

    assert tab.inner_text(".aim-badge") == "Measured here, median laps"
    assert tab.input_value(".aim-pace") == "0.25"
    assert [found.inner_text() for found in tab.locator(".aim-count").all()] == [
        "16 / 16 codes"
    ] * 2
    assert tab.locator(".aim-name").all_inner_texts() == ["aim-b", "gpt-b"]
    assert max(tab.evaluate(COVERED)) < 0.05
    for canvas in tab.locator(".aim-racer canvas").all():
        assert "4 pictures of goldfish (1)" in canvas.get_attribute("aria-label")
    assert "times as fast, medians of 5 laps each" in tab.inner_text(".aim-verdict")
    report = tab.inner_text("#race-report")
    assert "Random weights: timing only" in report and "Somebody was drawing" not in report
    assert "in random order" in report
    rows = {
        row.locator("th").inner_text(): row.locator("td").all_inner_texts()
        for row in tab.locator("#race-report tbody tr").all()
    }
    assert rows["Backend"] == ["eager", "eager"] and rows["Weights"] == ["random", "random"]
    assert {
        "Parameters",
        "Codes a second",
        "Time to first code",
        "Time to picture",
        "Image decoding, apart",
        "Peak memory",
    } < set(rows)
    assert {"Memory per sequence", "Fraction of its own floor"} < set(rows)
    assert (
        tab.locator("#race-report .aim-fill").count()
        == tab.locator("#race-report .aim-whisker").count()
        == 8
    )

    tab.select_option(".aim-pace", "0.02")
    tab.click(".aim-again")
    tab.wait_for_function(
        "() => [...document.querySelectorAll('.aim-racer')].every((lane) => "
        "Number(lane.dataset.drawn) > 4)"
    )
    assert tab.get_attribute(".aim-replay", "data-state") == "playing"
    covered = tab.evaluate(COVERED)
    tab.screenshot(path=tmp_path / "playing.png")
    assert all(0.1 < share < 0.97 for share in covered), covered
    assert tab.inner_text(".aim-verdict") == ""
    tab.select_option(".aim-pace", "1")
    tab.wait_for_selector(".aim-replay[data-state=done]")

    found = json.loads(download(tab, "#race-json", tmp_path).read_text())
    assert [racer["name"] for racer in found["racers"]] == ["aim-b", "gpt-b"]
    assert all(len(lap["code_seconds"]) == 16 for racer in found["racers"] for lap in racer["laps"])
    assert (found["batch"], found["label"], found["disturbed"]) == (4, 1, False)
    path = download(tab, "#race-csv", tmp_path)
    with path.open() as file:
        laps = list(csv.DictReader(file))
    assert path.name == "race-aim-b-gpt-b-random-batch-4-class-1.csv"
    assert sorted(lap["model"] for lap in laps) == ["aim-b"] * 5 + ["gpt-b"] * 5
    assert not tab.problems


def test_a_second_race_waits_and_the_first_can_be_stopped(page: Page, tab: Any):
    page.rivals.seconds = 0.05
    at = page.rivals.steps
    tab.click("#race")
    assert until(lambda: page.rivals.steps > at)
    client, second = (Client(page.url, verbose=False) for _ in range(2))
    waiting = client.submit(PAIR, 1, 1, api_name="/race")
    assert until(lambda: any(told["state"] == "waiting" for _, told, *_ in waiting.outputs()))
    assert waiting.outputs()[-1][1]["text"].startswith("Number 1 in line, behind somebody else's: ")
    second.predict(api_name="/stop_race")
    at = page.rivals.steps
    assert until(lambda: page.rivals.steps > at + 3), "somebody else's Stop ended it"
    at = page.rivals.steps
    tab.click("#race-stop")
    tab.wait_for_selector("#race-progress .aim-stopped")
    assert tab.inner_text("#race-progress .aim-text").startswith("Stopped. Last: Measuring ")
    tab.wait_for_selector("#race:not([disabled])")
    assert tab.is_disabled("#race-stop")
    assert until(lambda: waiting.outputs()[-1][1]["state"] == "drawing"), "its turn has come"
    client.predict(api_name="/stop_race")
    assert until(lambda: not measuring.running())


def test_on_a_phone_without_motion_and_a_closed_tab(page: Page, phone: Any, tmp_path: Path):
    phone.click("#race")
    phone.wait_for_selector(".aim-replay[data-state=done]")
    assert not phone.is_visible(".aim-pacing")
    assert phone.locator(".aim-count").all_inner_texts() == ["16 / 16 codes"] * 2
    phone.wait_for_selector("#race-csv")
    phone.screenshot(path=tmp_path / "phone-dark.png", full_page=True)
    assert phone.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    left, right = (phone.locator(".aim-racer canvas").nth(i).bounding_box() for i in (0, 1))
    assert left["x"] + left["width"] < right["x"], "side by side"
    assert left["y"] == right["y"] and left["width"] > 130
    clock = phone.locator(".aim-clock").first.bounding_box()
    assert clock["y"] + clock["height"] <= left["y"], "the clock stands above its picture"

    page.rivals.seconds = 0.05
    at = page.rivals.steps
    phone.click("#race")
    assert until(lambda: page.rivals.steps > at)
    at = page.rivals.steps
    phone.close()
    assert until(lambda: not measuring.running())
    assert page.rivals.steps - at < 150


def test_scaling_is_measured_and_drawn(
    page: Page, tab: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    tiny = {
        "aim-b": dataclasses.replace(TINY, classes=(), num_tokens=256),
        "gpt-b": GPTConfig(64, 2, 2, vocab_size=64, num_classes=5, multiple_of=64),
    }
    monkeypatch.setattr(
        import_module("aim.bench.scaling"),
        "spec_of",
        lambda name: SimpleNamespace(config=tiny[name]),
    )
    monkeypatch.setattr(race_actions, "SCALING_SECONDS", 3.0)
    monkeypatch.setattr(race_actions, "BATCHES", (1, 4))
    tab.get_by_text("Scaling: longer sequences").click()
    tab.click("#scaling")
    tab.wait_for_function(
        "() => /Measuring (aim|gpt)-b, 256 codes, "
        "batch/.test(document.querySelector('#scaling-progress').innerText)"
    )
    tab.wait_for_selector("#scaling-progress .aim-done")
    tab.wait_for_selector("#scaling-json")
    tab.click("#scaling-report summary")
    tab.screenshot(path=tmp_path / "scaling.png", full_page=True)
    charts = [
        chart.get_attribute("aria-label")
        for chart in tab.locator("#scaling-report figure > svg").all()
    ]
    assert [chart.partition(",")[0] for chart in charts] == [
        "Longer sequences",
        "Larger batches",
    ]
    assert all("aim-b: " in chart and "gpt-b: " in chart for chart in charts)
    assert "256 codes an image: " in tab.inner_text("#scaling-report .aim-verdicts")
    assert "A filled mark is measured code by code. A hollow one is not" in tab.inner_text(
        "#scaling-report"
    )
    assert tab.locator("#scaling-report tbody tr").count() == 8
    found = json.loads(download(tab, "#scaling-json", tmp_path).read_text())
    assert len(found["costs"]) + len(found["missing"]) == 16
    with download(tab, "#scaling-csv", tmp_path).open() as file:
        assert len(list(csv.DictReader(file))) == 16
    assert not tab.problems
