"""Drawings as the browser keeps them: what comes back is the same picture, anything else is
refused, and files are made once.
"""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from aim.errors import InvalidInput
from aim.images import read
from aim.pipeline import Pipeline
from aim.ui import drawings
from aim.ui.drawings import Drawings, Drawn
from aim.ui.models import Models
from pages import Page


@pytest.fixture
def models(tiny_pipeline: Pipeline) -> Models:
    found = Models.__new__(Models)
    found._names, found.default = [tiny_pipeline.name], tiny_pipeline.name
    found.get = lambda name: tiny_pipeline  # type: ignore[method-assign]
    return found


def drawn(pipe: Pipeline, *seeds: int, codes: int | None = None) -> Drawn:
    tokens = pipe.model.config.num_tokens
    grids = [np.arange(tokens)[: codes or tokens] % 7 + seed for seed in seeds]
    parameters = [pipe.parameters("goldfish", seed, pipe.sampling) for seed in seeds]
    return Drawn(pipe, tuple(grids), tuple(parameters))


def test_what_the_browser_keeps_comes_back(tiny_pipeline: Pipeline, models: Models) -> None:
    given = drawn(tiny_pipeline, 3, 4)
    told = json.loads(json.dumps(given.told()))
    back = Drawn.of(told, models)
    assert back.parameters == given.parameters and back.pipe is tiny_pipeline
    assert all(np.array_equal(*pair) for pair in zip(back.codes, given.codes, strict=True))
    assert told[1]["caption"].startswith("goldfish, seed 4") and "seed=4" in told[1]["link"]
    made = Drawings(models)
    image = Image.open(io.BytesIO(made.file(back, "png")))
    [first, second] = tiny_pipeline.pictures(given.codes)
    assert image.size[0] >= 2 * first.width and read.read_parameters(image.fp)["count"] == 2
    assert image.crop((0, 0, *first.size)).tobytes() == first.tobytes()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"codes": "?"}, "base64"),
        ({"codes": "AAAA"}, "two bytes each"),
        ({"codes": ""}, "1 to"),
        ({"codes": "/////w=="}, "codes below"),
        ({"parameters": None}, "told by its parameters"),
        ({"parameters": {"model": "/etc/passwd"}}, "there is no model"),
        ({"parameters": {}}, "another version"),
    ],
)
def test_anything_else_is_refused(
    tiny_pipeline: Pipeline, models: Models, change: dict[str, Any], words: str
) -> None:
    [told] = drawn(tiny_pipeline, 3).told()
    with pytest.raises(InvalidInput, match=words):
        Drawn.of([{**told, **change}], models)


@pytest.mark.parametrize("told", [None, {}, [], ["x"], [{}] * 201])
def test_what_is_no_list_of_pictures_is_refused(models: Models, told: Any) -> None:
    with pytest.raises(InvalidInput):
        Drawn.of(told, models)


def test_an_older_version_is_said_and_left_out_of_an_archive(
    tiny_pipeline: Pipeline, models: Models
) -> None:
    new, old = drawn(tiny_pipeline, 3, 4).told()
    old["parameters"] = {**old["parameters"], "version": "fedcba987654"}
    with pytest.raises(InvalidInput, match=r"another version of .*fedcba987654 there"):
        Drawn.of([old], models)
    with zipfile.ZipFile(io.BytesIO(Drawings(models).archive([new, old]))) as archive:
        assert archive.namelist() == [f"001-{drawn(tiny_pipeline, 3).stem}.png", "missing.txt"]
        assert archive.read("missing.txt").startswith(b"002: This picture is of another version")


def test_a_stopped_one_is_what_was_drawn_of_it(tiny_pipeline: Pipeline, models: Models) -> None:
    [told] = drawn(tiny_pipeline, 3, codes=5).told()
    told["parameters"] = {**told["parameters"], "codes_drawn": 5, "dtype": "bfloat16", "x": "<b>"}
    made = Drawings(models).file(Drawn.of([told], models), "png")
    inside = read.read_parameters(io.BytesIO(made))
    assert inside["codes_drawn"] == 5 and "x" not in inside, "only what is known goes in"
    assert inside["dtype"] == "bfloat16", "where it was drawn, not where the file is made"


def test_a_file_is_made_once(
    tiny_pipeline: Pipeline, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    count: list[int] = []
    monkeypatch.setitem(drawings.KINDS, "gif", lambda *_: bytes([count.append(1) or len(count)]))
    made, given = Drawings(models), drawn(tiny_pipeline, 3)
    assert made.file(given, "gif") == made.file(drawn(tiny_pipeline, 3), "gif") == b"\1"
    assert made.file(drawn(tiny_pipeline, 4), "gif") == b"\2"


def test_the_route_answers_in_words(page: Page) -> None:
    def asked(kind: str, body: Any) -> httpx.Response:
        return httpx.post(f"{page.url}drawings/{kind}", content=body, trust_env=False)

    told = json.dumps(drawn(page.pipe, 5).told())
    good = asked("large.png", told)
    assert good.status_code == 200 and good.headers["content-type"] == "image/png"
    assert 'filename="tiny-goldfish-1-seed-5.large.png"' in good.headers["content-disposition"]
    for kind, body, status, words in (
        ("png", "{", 400, "no JSON"),
        ("png", "[]", 400, "1 to 200 pictures"),
        ("exe", told, 404, "no such kind"),
    ):
        bad = asked(kind, body)
        assert (bad.status_code, words in bad.text) == (status, True)
