"""The models that a page offers."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

import aim.ui
from aim.errors import AimError, HubError, InvalidInput
from aim.pipeline import Pipeline
from aim.settings import Settings
from aim.ui import models as ui_models
from aim.ui.models import Models
from aim.ui.race.pairs import Pair, classes, find, offered
from pages import until


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Sources that were loaded; whatever is asked for is there, but aim-l only at the second
    attempt.
    """
    calls: list[str] = []

    def load(source: str, device: str, dtype: str, backend: str, ahead: str) -> SimpleNamespace:
        assert ahead == Settings.from_env().ahead
        calls.append(source)
        if source == "aim-l" and calls.count("aim-l") < 2:
            raise HubError("out of reach")
        return SimpleNamespace(name=Path(source).name)

    monkeypatch.setattr(ui_models, "load", load)
    return calls


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of bundled models, empty."""
    monkeypatch.setattr(ui_models, "bundled_folder", lambda: tmp_path)
    return tmp_path


@pytest.mark.parametrize("ahead", ["auto", "off", "8"])
def test_the_environment_says_how_far_the_page_s_models_look_ahead(
    loads: list[str], monkeypatch: pytest.MonkeyPatch, ahead: str
) -> None:
    monkeypatch.setenv("AIM_AHEAD", ahead)
    Models("aim-s", "auto", "auto")
    assert loads == ["aim-s"]


def test_the_page_s_own_model_comes_first_and_downloads_say_their_size(
    loads: list[str], bundled: Path
):
    for name in ("aim-s", "gpt-s"):
        (bundled / f"{name}.safetensors").touch()
    assert Models("aim-s", "auto", "auto").choices == [
        ("aim-s (bundled)", "aim-s"),
        ("aim-b (880 MB download)", "aim-b"),
        ("aim-l (1.7 GB download)", "aim-l"),
        ("aim-xl (3.3 GB download)", "aim-xl"),
        ("gpt-s (bundled)", "gpt-s"),
        ("gpt-b (740 MB download)", "gpt-b"),
        ("gpt-l (1.7 GB download)", "gpt-l"),
        ("gpt-b-384 (740 MB download)", "gpt-b-384"),
        ("gpt-l-384 (1.7 GB download)", "gpt-l-384"),
        ("gpt-xl-384 (3.4 GB download)", "gpt-xl-384"),
        ("gpt-xxl-384 (5.9 GB download)", "gpt-xxl-384"),
        ("gpt-3b-384 (12.7 GB download)", "gpt-3b-384"),
    ]
    assert loads == ["aim-s"]


def test_a_folder_is_called_by_its_name_and_its_path_is_not_told(loads: list[str], bundled: Path):
    (bundled / "aim-s.safetensors").touch()
    models = Models("/somewhere/mine", "auto", "auto")
    assert models.default == "mine"
    assert models.choices[:2] == [("mine", "mine"), ("aim-s (bundled)", "aim-s")]
    with pytest.raises(InvalidInput, match="choose one of mine, aim-s, aim-b"):
        models.fetch("/somewhere/mine")


def test_a_bundled_model_whose_file_is_not_there_is_not_offered(loads: list[str], bundled: Path):
    (bundled / "aim-s.safetensors").touch()
    names = [name for _, name in Models("/somewhere/mine", "auto", "auto").choices]
    assert "aim-s" in names and "gpt-s" not in names


def test_pairs_race_with_their_weights_where_both_can_be_had(loads: list[str], bundled: Path):
    hub = [
        "aim-b/gpt-b",
        "aim-b/gpt-b random",
        "aim-l/gpt-l",
        "aim-l/gpt-l random",
        "aim-xl/gpt-xl random",
    ]
    (bundled / "aim-s.safetensors").touch()
    without = Models("aim-s", "auto", "auto")
    (bundled / "gpt-s.safetensors").touch()
    models = Models("aim-s", "auto", "auto")
    assert [pair.name for pair in offered(models)] == ["aim-s/gpt-s", *hub]
    assert [pair.name for pair in offered(without)] == ["aim-s/gpt-s random", *hub], (
        "a page's offer stays what it was"
    )
    assert find("aim-s/gpt-s", models).title == "aim-s, gpt-s (bundled)"
    assert find("aim-b/gpt-b", models).title == "aim-b, gpt-b (1.6 GB download)"
    for wrong in ("aim-s/gpt-b", ["aim-s/gpt-s"]):
        with pytest.raises(
            InvalidInput, match=r"there is no pair .* here; choose one of aim-s/gpt-s, aim-b/gpt-b"
        ):
            find(wrong, models)


def test_classes_of_a_pair_are_its_own_imagenet_s_or_not_known_yet(
    bundled: Path, tiny_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
):
    (bundled / "aim-s.safetensors").touch()
    monkeypatch.setattr(ui_models, "load", lambda *_, **__: tiny_pipeline)
    models = Models("mine", "auto", "auto")
    assert classes(Pair("aim-s", "gpt-s", random=True), models)[:2] == [
        ("class 0", 0),
        ("class 1", 1),
    ]
    assert len(classes(Pair("aim-b", "gpt-b", random=True), models) or []) == 1000
    assert classes(Pair("aim-s", "gpt-s", random=False), models) is None
    models.fetch("aim-s").result(5)
    assert ("goldfish (1)", 1) in (classes(Pair("aim-s", "gpt-s", random=False), models) or [])


def test_a_failed_load_is_tried_again_and_a_good_one_is_kept(loads: list[str]):
    models = Models("aim-s", "auto", "auto")
    with pytest.raises(HubError):
        models.fetch("aim-l").result(5)
    assert models.peek("aim-l") is None
    with pytest.raises(HubError):
        models.get("aim-l")  # told once
    assert models.fetch("aim-l").result(5) is models.get("aim-l") is models.peek("aim-l")
    assert loads == ["aim-s", "aim-l", "aim-l"]


def test_who_asks_for_a_model_that_loads_is_told_and_not_kept_waiting(
    monkeypatch: pytest.MonkeyPatch, loads: list[str]
):
    models = Models("aim-s", "auto", "auto")
    go = threading.Event()
    loaded = SimpleNamespace(name="aim-b")
    monkeypatch.setattr(ui_models, "load", lambda *_, **__: go.wait(5) and loaded)
    for _ in range(130):  # more than there are threads
        with pytest.raises(AimError, match=r"Loading aim-b \(880 MB download\) … Ask again"):
            models.get("aim-b")
    go.set()
    assert until(lambda: models.peek("aim-b") is not None)
    assert models.get("aim-b") is loaded


def test_a_download_ends_when_nobody_else_waits_for_it(
    monkeypatch: pytest.MonkeyPatch, loads: list[str]
):
    models = Models("aim-s", "auto", "auto")
    stopped: list[str] = []
    monkeypatch.setattr(ui_models, "stop", stopped.append)
    with models.wanted("aim-b"):
        with models.wanted("aim-b"):
            assert not models.stop_loading("aim-b")
        assert not stopped and models.stop_loading("aim-b")
    assert stopped == [ui_models.MODELS["aim-b"].repo]


def test_two_who_want_a_model_share_one_load(monkeypatch: pytest.MonkeyPatch, loads: list[str]):
    models = Models("aim-s", "auto", "auto")
    go = threading.Event()
    monkeypatch.setattr(
        ui_models, "load", lambda *_, **__: go.wait(5) and SimpleNamespace(name="aim-b")
    )
    first, second = models.fetch("aim-b"), models.fetch("aim-b")
    assert models.peek("aim-b") is None
    go.set()
    assert first.result(5) is second.result(5)


def test_a_page_is_built_from_a_folder(tiny_checkpoint: Path):
    page = aim.ui.build(str(tiny_checkpoint), device="cpu", dtype="float32")
    label = next(
        block for block in page.blocks.values() if getattr(block, "label", None) == "Class"
    )
    assert label.value == 1
    assert ("golden retriever (207)", 207) in label.choices


def test_a_page_of_nothing_is_refused(tmp_path: Path):
    with pytest.raises(aim.AimError, match=r"nothing\.safetensors"):
        aim.ui.build(str(tmp_path / "nothing.safetensors"))
