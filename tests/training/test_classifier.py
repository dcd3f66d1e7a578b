"""Classifiers learn what is easy, and say what they see."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fakes import Clock
from safetensors.torch import save_file
from torch import nn

from aim.errors import CheckpointError, InvalidInput
from aim.training.classifier import (
    VGG,
    ClassifierRecipe,
    ResNet,
    accuracy,
    predict,
    read_classifier,
    train_classifier,
)
from aim.training.data.images import ImageSet, normalize


def stripes(count: int, seed: int = 0) -> ImageSet:
    """Horizontal against vertical stripes, in random colours and phases."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    phase = torch.randint(0, 4, (count, 1, 1), generator=g)
    rows = ((torch.arange(16).view(1, 16, 1) + phase) // 2 % 2).expand(count, 16, 16)
    pattern = torch.where(labels.view(-1, 1, 1) == 0, rows, rows.transpose(1, 2)).unsqueeze(1)
    bright = torch.randint(120, 256, (count, 3, 1, 1), generator=g)
    return ImageSet((pattern * bright).to(torch.uint8), labels, (1, 207))


@pytest.mark.parametrize("network", [VGG, ResNet])
def test_learns_two_classes_by_the_clock(network: type[VGG] | type[ResNet], clock: Clock) -> None:
    torch.manual_seed(0)
    model = network(2, (8, 16))
    clock.tick = 1.0
    trained = train_classifier(
        model, stripes(64), ClassifierRecipe(seconds=41, batch=16, lr=1e-2, min_scale=0.8)
    )
    assert clock.now == 100 + 42, "a look at the start, then one a step"
    assert trained is model
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    held = stripes(40, seed=1)
    assert accuracy(model, held.images, held.labels) > 0.95
    assert accuracy(model, held.images, 1 - held.labels) < 0.05


def test_the_same_seed_trains_the_same(clock: Clock) -> None:
    clock.tick = 1.0
    weights = []
    for _ in range(2):
        torch.manual_seed(1)
        model = train_classifier(
            VGG(2, (8,)), stripes(32), ClassifierRecipe(seconds=4, batch=16, seed=3)
        )
        weights.append(model.head.weight)
    assert torch.equal(*weights)


@pytest.mark.parametrize("network", [VGG, ResNet])
def test_shapes(network: type[VGG] | type[ResNet]) -> None:
    model = network(7, (8, 16, 24)).eval()
    assert model(torch.randn(2, 3, 16, 16)).shape == (2, 7)


def test_features_halve_at_every_stage(tiny_vgg: VGG) -> None:
    shapes = [tuple(f.shape) for f in tiny_vgg.features(torch.randn(2, 3, 16, 16))]
    assert shapes == [(2, 8, 16, 16), (2, 16, 8, 8)]


class Brightest(nn.Module):
    """Says which channel is the brightest."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert images.is_floating_point()
        assert images.abs().max() <= 1
        return images.mean((2, 3))


def test_predict_and_accuracy() -> None:
    wanted = torch.arange(11) % 3
    images = torch.zeros(11, 3, 4, 4, dtype=torch.uint8)
    images[torch.arange(11), wanted] = 9
    for batch in (3, 11, 500):
        assert predict(Brightest(), images, batch).tolist() == wanted.tolist()
        assert predict(Brightest(), normalize(images), batch).tolist() == wanted.tolist()
    labels = wanted.clone()
    labels[:4] = (labels[:4] + 1) % 3
    assert accuracy(Brightest(), images, labels) == pytest.approx(7 / 11)


@pytest.mark.parametrize("kind", [VGG, ResNet])
@pytest.mark.parametrize("widths", [(4,), (4, 6), (4, 6, 8, 10, 12)], ids=str)
def test_a_file_tells_the_kind_and_the_widths(
    kind: type[VGG] | type[ResNet], widths: tuple[int, ...], tmp_path: Path
) -> None:
    network = kind(3, widths).eval()
    save_file(network.state_dict(), tmp_path / "network.safetensors")
    again = read_classifier(tmp_path / "network.safetensors")
    assert type(again) is kind
    assert not again.training
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(again(images), network(images))
    assert torch.equal(again.head(again.pooled(images)), again(images))


@pytest.mark.parametrize("weights", [{"a": torch.ones(2)}, {"stages.0.0.0.weight": torch.ones(2)}])
def test_other_files_are_no_classifier(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file(weights, tmp_path / "other.safetensors")
    with pytest.raises(InvalidInput, match=r"other\.safetensors is no loss network and no judge"):
        read_classifier(tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="there is no file"):
        read_classifier(tmp_path / "absent.safetensors")
