"""LPIPS equals its formula, and reads its own files alone. The weights are random here."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from aim.errors import AimError, CheckpointError, InvalidInput
from aim.training.data.images import normalize
from aim.training.losses import perceptual_distance
from aim.training.perceptual import LPIPS, load_lpips

Weights = dict[str, Tensor]


def squeezenet(weights: Weights, images: Tensor) -> list[Tensor]:
    """Features of SqueezeNet 1.1 behind each of LPIPS's seven slices, in double precision."""
    w = {name: weight.double() for name, weight in weights.items()}

    def conv(x: Tensor, name: str, **how: int) -> Tensor:
        return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], **how).clamp(min=0)

    def fire(x: Tensor, at: int) -> Tensor:
        x = conv(x, f"features.{at}.squeeze")
        wide = conv(x, f"features.{at}.expand3x3", padding=1)
        return torch.cat([conv(x, f"features.{at}.expand1x1"), wide], 1)

    def pool(x: Tensor) -> Tensor:
        return F.max_pool2d(x, 3, 2, ceil_mode=True)

    shift = torch.tensor([-0.030, -0.088, -0.188]).double().view(3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).double().view(3, 1, 1)
    first = conv((images.double() - shift) / scale, "features.0", stride=2)
    second = fire(fire(pool(first), 3), 4)
    third = fire(fire(pool(second), 6), 7)
    out = [first, second, third]
    x = pool(third)
    for at in (9, 10, 11, 12):
        x = fire(x, at)
        out.append(x)
    return out


def distance(weights: Weights, images: Tensor, others: Tensor) -> Tensor:
    """LPIPS (B,) as in its paper's equation 1."""
    total = torch.zeros(len(images), dtype=torch.double)
    pairs = zip(squeezenet(weights, images), squeezenet(weights, others), strict=True)
    for i, (a, b) in enumerate(pairs):
        a, b = (x / x.norm(dim=1, keepdim=True).clamp(min=1e-10) for x in (a, b))
        total += (weights[f"lin{i}.weight"].double() * (a - b) ** 2).sum(1).mean((1, 2))
    return total


def test_equals_the_formula(lpips_file: Path, lpips_weights: Weights) -> None:
    make = torch.Generator().manual_seed(3)
    a, b = (torch.rand(3, 3, 64, 64, generator=make) * 2 - 1 for _ in range(2))
    network = LPIPS.load(lpips_file)
    want = distance(lpips_weights, a, b)
    assert want.min() > 0
    torch.testing.assert_close(network(a, b).double(), want, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        perceptual_distance(network, a, b).double(), want.mean(), rtol=1e-4, atol=1e-6
    )
    assert not any(p.requires_grad for p in network.parameters())


def test_the_gradient_goes_to_the_first_and_is_finite(lpips_file: Path) -> None:
    network = LPIPS.load(lpips_file)
    with torch.no_grad():
        network.features[0].bias.fill_(-9)  # nothing is seen anywhere: vectors of length 0
    flat, other = (torch.full((1, 3, 32, 32), v).requires_grad_() for v in (0.0, 0.5))
    network(flat, other).sum().backward()
    assert flat.grad is not None and flat.grad.isfinite().all()
    assert other.grad is None


def test_equal_images_are_no_distance_apart(
    lpips_file: Path, smooth_images: Callable[..., Tensor]
) -> None:
    images = normalize(smooth_images(2, 32))
    network = LPIPS.load(lpips_file)
    assert network(images, images).tolist() == [0, 0]
    near, far = (network(images + e * torch.randn(images.shape), images) for e in (0.02, 0.3))
    assert (near < far).all()


@pytest.mark.parametrize(
    "change",
    [
        lambda weights: weights.pop("lin3.weight"),
        lambda weights: weights.pop("features.9.squeeze.bias"),
        lambda weights: weights.update({"lin0.weight": torch.ones(1, 3, 1, 1)}),
        lambda weights: weights.update(extra=torch.ones(1)),
    ],
)
def test_another_file_is_refused(
    tmp_path: Path, lpips_weights: Weights, change: Callable[[Weights], object]
) -> None:
    weights = dict(lpips_weights)
    change(weights)
    save_file(weights, tmp_path / "other.safetensors")
    with pytest.raises(InvalidInput, match=r"other\.safetensors does not hold SqueezeNet's"):
        LPIPS.load(tmp_path / "other.safetensors")


def test_a_damaged_file_is_refused(lpips_file: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.safetensors").write_bytes(lpips_file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors cannot be read"):
        LPIPS.load(tmp_path / "cut.safetensors")


class StandIn(nn.Module):
    """The package's LPIPS with a network of one layer: its arguments and shapes."""

    def __init__(self, pretrained: bool = True, net: str = "alex", verbose: bool = True) -> None:
        super().__init__()
        assert pretrained and net == "vgg" and not verbose
        torch.manual_seed(0)
        self.conv, self.lin = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 1, 1, bias=False)

    def forward(self, in0: Tensor, in1: Tensor) -> Tensor:
        """(B, 1, 1, 1)."""
        first, second = (
            f / ((f**2).sum(1, keepdim=True).sqrt() + 1e-10)
            for f in (F.relu(self.conv(x)) for x in (in0, in1))
        )
        return self.lin((first - second) ** 2).mean((2, 3), keepdim=True)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("lpips")
    module.LPIPS = StandIn  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lpips", module)


@pytest.mark.usefixtures("package")
def test_the_package_s_network_is_a_choice() -> None:
    network = load_lpips("lpips-vgg")
    images, others = torch.rand(2, 2, 3, 16, 16) * 2 - 1
    found = network(images.requires_grad_(), others)
    assert found.shape == (2,)
    wanted = StandIn(net="vgg", verbose=False)(images, others).flatten()
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(perceptual_distance(network, images, others), found.mean())
    assert not any(p.requires_grad for p in network.parameters()) and not network.training
    [grad] = torch.autograd.grad(found.sum(), images)
    assert grad.abs().sum() > 0


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(AimError, match=r"lpips-vgg needs the package lpips, .*pip install lpips"):
        load_lpips("lpips-vgg")
