"""A judge is trained on real images, says how good it is, and is what evaluation reads."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch

from aim.errors import InvalidInput
from aim.evaluation.features import load_features
from aim.training.classifier import ResNet, accuracy, read_classifier
from aim.training.data.images import load_images
from aim.training.train_judge import train_judge


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aim.training.train_judge.ResNet", lambda count: ResNet(count, (4, 6)))


@pytest.mark.usefixtures("small")
def test_says_its_top_1_and_is_read_by_evaluation(
    picture_folder: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["seconds=0.3", "batch=8"]
    train_judge([str(picture_folder)], [str(picture_folder)], out, settings, size=16)
    found = re.search(r"judge: top-1 ([\d.]+) on validation images", capsys.readouterr().out)
    assert found
    held = load_images([picture_folder], 16)
    network = read_classifier(out / "judge.safetensors")
    assert float(found[1]) == pytest.approx(accuracy(network, held.images, held.labels), abs=1e-4)
    features = load_features(str(out / "judge.safetensors"))
    assert features.side == 16  # larger images are reduced to it
    seen = features(held.images[:3])
    assert torch.equal(seen.probabilities.argmax(1), network(held.images[:3] / 127.5 - 1).argmax(1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["speed=3"], "'speed' is no setting of ClassifierRecipe"),
        (["batch=1000", "seconds=1"], r"batch is 1000; it must be in \[1, "),
    ],
)
def test_settings_that_do_not_fit(
    picture_folder: Path, out: Path, settings: list[str], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        train_judge([str(picture_folder)], [], out, settings, size=16)
    assert not (out / "judge.safetensors").exists()


def test_one_class_is_nothing_to_tell_apart(picture_folder: Path, out: Path) -> None:
    shutil.rmtree(picture_folder / "dogs")
    with pytest.raises(InvalidInput, match="the images have 1"):
        train_judge([str(picture_folder)], [], out, size=16)
