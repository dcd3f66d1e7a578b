"""What accelerate's trackers get of a run, with a stand-in for one."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from aim.config import MODELS
from aim.errors import AimError, InvalidInput
from aim.training.identity import Identity
from aim.training.launch import Launch, Options
from aim.training.recipe import PriorRecipe

pytest.importorskip("accelerate")

IDENTITY = Identity.of(PriorRecipe(lr=0.25), MODELS["aim-s"].config, data="48 images")


class Board:
    """Takes the place of a tracker of accelerate's."""

    name = "tensorboard"

    def __init__(self) -> None:
        self.images: list[tuple[int, Any]] = []

    def log_images(self, values: dict[str, Any], step: int, dataformats: str) -> None:
        assert dataformats == "NHWC"
        self.images.append((step, values["sheet"]))


def test_hyperparameters_sheets_and_the_same_run_again(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = []
    for _ in range(2):
        with Launch(Options("cpu", "none"), out) as launch:
            asked: list[Any] = []
            monkeypatch.setattr(
                launch.accelerator, "init_trackers",
                lambda project, config, init_kwargs: asked.append((config, init_kwargs)),  # noqa: B023
            )  # fmt: skip
            launch.options = launch.options._replace(tracker="wandb")
            launch.describe({"model": "aim-s", "model.sampling": {"top_k": 1}}, IDENTITY)
        ((config, own),) = asked
        assert (config["model"], config["lr"], config["batch"]) == ("aim-s", 0.25, 256)
        assert "model.sampling" not in config, "only single values"
        names.append(own["wandb"]["id"])
        assert own["wandb"]["resume"] == "allow"
        assert json.loads((out / "config.json").read_text())["run"]["id"] == names[0]
    assert names[0] == names[1]


def test_sheets_go_to_the_tracker(out: Path) -> None:
    def draw(average: nn.Module, thing: str, to: Path) -> None:
        to.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 2), "red").save(to)

    with Launch(Options("cpu", "none", draw), out) as launch:
        board = Board()
        launch.accelerator.trackers = [board]
        hooks = launch.hooks("thing")
        assert hooks.validated is not None
        hooks.validated(nn.Identity(), 7)
    ((step, pixels),) = board.images
    assert (step, pixels.shape) == (7, (1, 2, 4, 3))
    assert np.array_equal(pixels[0, 0, 0], [255, 0, 0])


@pytest.mark.parametrize(
    ("tracker", "kind", "message"),
    [
        ("tensorboard", AimError, r'not installed: pip install "aim-mamba\[train\]", or take'),
        ("wandb", AimError, "not installed: pip install wandb, or take --tracker none"),
        ("paper", InvalidInput, "which accelerate refuses"),
    ],
)
def test_a_tracker_that_is_missing_is_an_error(
    out: Path, monkeypatch: pytest.MonkeyPatch, tracker: str, kind: type, message: str
) -> None:
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", list)
    with pytest.raises(kind, match=message):
        Launch(Options("cpu", tracker), out)
    assert not out.exists()


@pytest.mark.parametrize("seen", [1, 2])
def test_processes_on_cpus_train_one_model(
    out: Path, monkeypatch: pytest.MonkeyPatch, seen: int
) -> None:
    asked: list[bool] = []

    def accelerator(cpu: bool, **_: Any) -> SimpleNamespace:
        asked.append(cpu)
        return SimpleNamespace(
            num_processes=seen, process_index=0, device=torch.device("cpu"), log_with=[]
        )

    monkeypatch.setattr("accelerate.Accelerator", accelerator)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    if seen == 2:
        assert Launch(Options(tracker="none"), out).processes.world == 2
    else:
        with pytest.raises(AimError, match="accelerate sees 1 of 2 processes"):
            Launch(Options(tracker="none"), out)
    assert asked == [True]
