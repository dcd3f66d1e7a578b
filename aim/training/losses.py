"""What a tokenizer is trained against: perceptual distance and a patch discriminator (VQGAN, arXiv
2012.09841).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aim.training.classifier import VGG
from aim.training.parallel import ALONE, Processes
from aim.training.perceptual import LPIPS, PackagedLPIPS
from aim.training.reconstruct import in_parts

LossNetwork = VGG | LPIPS | PackagedLPIPS


def at_images(
    loss: Callable[..., tuple[Tensor, ...]], images: Tensor, *others: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """The gradient of a loss at ``images`` (B, 3, H, W), and its figures, in parts, so that memory
    does not grow with the batch.

    ``loss`` takes a part of all batches and gives figures, means over it, the first of which is
    followed; the networks behind it get no gradient.
    """
    grads: list[Tensor] = []
    figures: list[list[Tensor]] = []
    for share, (part, *rest) in in_parts(images.detach(), *others):
        leaf = part.requires_grad_()
        found = [share * figure for figure in loss(leaf, *rest)]
        grads += torch.autograd.grad(found[0], leaf)
        figures.append([figure.detach() for figure in found])
    return torch.cat(grads), [torch.stack(same).sum() for same in zip(*figures, strict=True)]


def perceptual_distance(network: LossNetwork, images: Tensor, others: Tensor) -> Tensor:
    """LPIPS, or mean squared distance of channel-normalised features, averaged over stages: the
    same without its learned weights.

    images and others (B, 3, H, W) in [-1, 1] -> scalar; the gradient goes to ``images``.
    """
    if not isinstance(network, VGG):
        return network(images, others).mean()
    with torch.no_grad():
        wanted = [F.normalize(f, dim=1) for f in network.features(others)]
    distances = [
        (F.normalize(f, dim=1) - w).square().sum(1).mean()
        for f, w in zip(network.features(images), wanted, strict=True)
    ]
    return torch.stack(distances).mean()


class PatchDiscriminator(nn.Module):
    """Judges overlapping patches as real or made (pix2pix, arXiv 1611.07004), with group norm so
    that batches do not mix.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, width, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False),
            nn.GroupNorm(16, 2 * width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 4 * width, 3, 1, 1, bias=False),
            nn.GroupNorm(16, 4 * width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(4 * width, 1, 3, 1, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> patch scores (B, 1, H / 4, W / 4), positive for real."""
        return self.net(images)


def hinge_loss(real: Tensor, made: Tensor) -> Tensor:
    """The discriminator's loss on its scores."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + made).mean())


def learn_to_tell(discriminator: nn.Module, real: Tensor, made: Tensor) -> Tensor:
    """Add the gradient of the hinge loss on images (B, 3, H, W), in parts; the loss."""
    total = torch.zeros((), device=real.device)
    for share, (some, others) in in_parts(real, made):
        loss = share * hinge_loss(discriminator(some), discriminator(others))
        loss.backward()
        total += loss.detach()
    return total


def adaptive_weight(
    made: Tensor, task: Tensor, adversarial: Tensor, last: Tensor, processes: Processes = ALONE
) -> Tensor:
    """How much the adversarial loss counts: the ratio of both losses' gradients at the decoder's
    last weight, at most 10.

    ``task`` and ``adversarial`` are the losses' gradients with respect to the images ``made`` (B,
    3, H, W), a share of the batch.
    """
    grads = (torch.autograd.grad(made, last, g, retain_graph=True)[0] for g in (task, adversarial))
    of_task, of_adversarial = (processes.mean(grad).norm() for grad in grads)
    return (of_task / (of_adversarial + 1e-8)).clamp(0, 10).detach()
