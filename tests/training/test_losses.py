"""Perceptual distance, the discriminator, and how the two are balanced."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aim.models.vq.model import VQ
from aim.training.classifier import VGG
from aim.training.data.images import normalize
from aim.training.losses import PatchDiscriminator, adaptive_weight, hinge_loss, perceptual_distance


class TestPerceptualDistance:
    def test_of_equal_images_is_zero(
        self, tiny_vgg: VGG, smooth_images: Callable[..., Tensor]
    ) -> None:
        images = normalize(smooth_images(4))
        assert perceptual_distance(tiny_vgg, images, images).item() == 0
        small, large = (
            perceptual_distance(tiny_vgg, images + e * torch.randn(images.shape), images)
            for e in (0.05, 0.5)
        )
        assert 0 < small < large

    def test_equals_the_formula(self, tiny_vgg: VGG, smooth_images: Callable[..., Tensor]) -> None:
        a, b = normalize(smooth_images(3)), normalize(smooth_images(3, seed=1))
        per_stage = []
        for x, y in zip(tiny_vgg.features(a), tiny_vgg.features(b), strict=True):
            # of unit vectors the squared distance is 2 - 2 cos
            cosines = F.cosine_similarity(x, y, dim=1)
            lengths = [(f.norm(dim=1) > 0).float() for f in (x, y)]
            per_stage.append((lengths[0] + lengths[1] - 2 * cosines).mean())
        torch.testing.assert_close(perceptual_distance(tiny_vgg, a, b), sum(per_stage) / 2)

    def test_the_gradient_goes_to_the_first(
        self, tiny_vgg: VGG, smooth_images: Callable[..., Tensor]
    ) -> None:
        tiny_vgg.requires_grad_(False)
        a, b = (normalize(smooth_images(2, seed=seed)).requires_grad_() for seed in (0, 1))
        perceptual_distance(tiny_vgg, a, b).backward()
        assert a.grad is not None
        assert a.grad.abs().max() > 0
        assert b.grad is None


class TestDiscriminator:
    @pytest.mark.parametrize("size", [16, 64])
    def test_a_score_for_every_four_pixels(self, size: int) -> None:
        assert PatchDiscriminator(16)(torch.randn(2, 3, size, size)).shape == (
            2,
            1,
            size // 4,
            size // 4,
        )

    def test_images_of_a_batch_do_not_mix(self) -> None:
        network = PatchDiscriminator(16).train()
        images = torch.randn(3, 3, 16, 16)
        torch.testing.assert_close(network(images)[1:2], network(images[1:2]))

    def test_hinge_loss(self) -> None:
        real, made = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0])
        assert hinge_loss(real, made).item() == pytest.approx(
            0.5 * ((0 + 0.5 + 2) / 3 + (0 + 1) / 2)
        )

    def test_learns_to_tell(self) -> None:
        torch.manual_seed(0)
        network = PatchDiscriminator(8)
        optimizer = torch.optim.Adam(network.parameters(), 1e-2)
        real, made = torch.rand(8, 3, 16, 16), -torch.rand(8, 3, 16, 16)
        before = hinge_loss(network(real), network(made)).item()
        for _ in range(15):
            loss = hinge_loss(network(real), network(made))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert loss.item() < 0.3 * before


class TestAdaptiveWeight:
    def test_equals_the_slow_way_through_both_losses(
        self, tiny_vq: VQ, smooth_images: Callable[..., Tensor]
    ) -> None:
        torch.manual_seed(0)
        model, critic = VQ(tiny_vq.config), PatchDiscriminator(8)
        images = normalize(smooth_images(2))
        made = model.decode_vectors(model.quantize_features(model.features(images)).vectors)
        task, adversarial = (
            F.mse_loss(made, images) + (made - images).abs().mean(),
            -critic(made).mean(),
        )
        norms = [
            torch.autograd.grad(loss, model.last_weight, retain_graph=True)[0].norm()
            for loss in (task, adversarial)
        ]
        of_task, of_adversarial = (
            torch.autograd.grad(loss, made, retain_graph=True)[0] for loss in (task, adversarial)
        )
        weight = adaptive_weight(made, of_task, of_adversarial, model.last_weight)
        torch.testing.assert_close(weight, (norms[0] / norms[1]).clamp(max=10))
        torch.testing.assert_close(
            adaptive_weight(made, of_task, 5 * of_adversarial, model.last_weight),
            norms[0] / norms[1] / 5,
        )
        assert not weight.requires_grad

    @pytest.mark.parametrize(("adversarial", "wanted"), [(1e-3, 10.0), (0.0, 10.0), (0.5, 2.0)])
    def test_is_at_most_ten(self, adversarial: float, wanted: float) -> None:
        last = nn.Parameter(torch.ones(3))
        made = last * torch.arange(3.0)
        weight = adaptive_weight(made, torch.ones(3), torch.full((3,), adversarial), last)
        assert weight.item() == pytest.approx(wanted)
