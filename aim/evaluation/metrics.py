"""Figures of sets of features, in float64: Fréchet distance, inception score, precision and recall,
nearest distances.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from aim.errors import InvalidInput

NEIGHBOUR = 3  # whose distance is a ball's radius, in precision and recall
SPLIT = 5000  # images an inception score is computed on; the score is the mean over such parts
WINDOW = 11  # pixels a side, of SSIM
BLOCK = 4096  # features a side whose distances are in memory at once, 128 MiB
NOISE = 1e-12  # of the squared lengths of two vectors: below it their squared distance is rounding


class Statistics(NamedTuple):
    """Mean and covariance of the features of a number of images, float64 on the CPU."""

    mean: Tensor  # (F,)
    covariance: Tensor  # (F, F), divided by images - 1
    images: int  # 0 where nobody said


class Moments:
    """Mean and covariance of features that come in batches, in float64, without keeping them (Chan,
    Golub and LeVeque 1979).
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean = self._scatter = torch.zeros(0, dtype=torch.float64)

    def add(self, features: Tensor) -> None:
        """Take in features (B, F). InvalidInput where one is not finite."""
        batch, size = _double(features), len(features)
        if not size:
            return
        if not torch.isfinite(batch).all():
            raise InvalidInput(
                "features hold a number that is not finite; the network or an image may be damaged"
            )
        mean = batch.mean(0)
        apart = batch - mean
        scatter = apart.T @ apart
        if self.count:
            step, whole = mean - self._mean, self.count + size
            self._scatter += scatter + torch.outer(step, step) * (self.count * size / whole)
            self._mean = self._mean + step * (size / whole)
        else:
            self._mean, self._scatter = mean, scatter
        self.count += size

    def statistics(self) -> Statistics:
        """Of all so far. InvalidInput for fewer than two, which have no covariance."""
        if self.count < 2:
            raise InvalidInput(
                f"a covariance needs at least 2 images, and there is {self.count}; take more"
            )
        return Statistics(self._mean.cpu(), (self._scatter / (self.count - 1)).cpu(), self.count)


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """The Fréchet distance of two normal distributions, ``|m - m'|^2 + tr(S + S' - 2 (S S')^1/2)``
    (Heusel et al. 2017).

    The trace of the root is the sum of the roots of the eigenvalues of ``S^1/2 S' S^1/2``, which is
    symmetric, so that singular covariances need no care. InvalidInput for statistics of different
    widths or numbers that are not finite.
    """
    if a.mean.shape != b.mean.shape or a.covariance.shape != b.covariance.shape:
        raise InvalidInput(
            f"features have {len(a.mean)} and {len(b.mean)} numbers; both sets must be seen by the "
            "same network"
        )
    if not all(torch.isfinite(part).all() for part in (a.mean, a.covariance, b.mean, b.covariance)):
        raise InvalidInput("statistics hold a number that is not finite; compute them again")
    first, second = a.covariance.double(), b.covariance.double()
    values, vectors = torch.linalg.eigh(first)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    product = root @ second @ root
    trace = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt().sum()
    apart = a.mean.double() - b.mean.double()
    return max(0.0, (apart @ apart + first.trace() + second.trace() - 2 * trace).item())


def inception_score(probabilities: Tensor, split: int = SPLIT) -> tuple[float, float]:
    """``exp E KL(p(y|x) || p(y))`` (Salimans et al. 2016) of class probabilities (N, C): mean and
    spread over parts of ``split``.

    Parts are taken in order, as in ADM's evaluator, so each must hold every class. InvalidInput for
    no image.
    """
    if not len(probabilities):
        raise InvalidInput("an inception score needs at least one image")
    scores = []
    for part in probabilities.split(split):
        p = _double(part)
        divergence = torch.xlogy(p, p) - torch.xlogy(p, p.mean(0, keepdim=True))
        scores.append(divergence.sum(1).mean().exp())
    values = torch.stack(scores)
    return values.mean().item(), values.std(correction=0).item()


def nearest_distances(features: Tensor, others: Tensor, k: int = 1, block: int = BLOCK) -> Tensor:
    """Euclidean distances (N, k) float64 from each of ``features`` (N, F) to its k nearest of
    ``others`` (M, F), ascending.

    InvalidInput where there are fewer than k others.
    """
    if len(others) < k:
        raise InvalidInput(
            f"{k} nearest are asked for, and there are {len(others)} images; take more"
        )
    found = []
    for rows in features.split(block):
        best = torch.empty(len(rows), 0, dtype=torch.float64, device=_double(rows[:0]).device)
        for columns in others.split(block):
            both = torch.cat([best, _squared(rows, columns)], 1)
            best = both.topk(min(k, both.shape[1]), largest=False).values
        found.append(best)
    return torch.cat(found).sqrt()


def precision_recall(
    real: Tensor, drawn: Tensor, k: int = NEIGHBOUR, block: int = BLOCK
) -> tuple[float, float]:
    """Improved precision and recall (Kynkäänniemi et al. 2019) of features (N, F) and (M, F).

    Precision is the share of drawn images within a real image's distance to its k-th nearest other
    real image, for any real image; recall is the same with the sets swapped. InvalidInput for sets
    of k images or fewer.
    """
    if min(len(real), len(drawn)) <= k:
        raise InvalidInput(
            f"precision and recall need more than {k} images in each set; there are {len(real)} "
            f"and {len(drawn)}"
        )
    inside = []
    for centres, points in ((real, drawn), (drawn, real)):
        # the nearest is the image itself
        radii = nearest_distances(centres, centres, k + 1, block)[:, k]
        inside.append(_covered(points, centres, radii, block).double().mean().item())
    return inside[0], inside[1]


def kernel_distance(real: Tensor, drawn: Tensor, block: int = BLOCK) -> float:
    """Kernel inception distance (Bińkowski et al. 2018) of features (N, F) and (M, F): the unbiased
    squared maximum mean discrepancy with the kernel ``(x y / F + 1)^3``, of all images rather than
    of random subsets. InvalidInput for sets of one image.
    """
    if min(len(real), len(drawn)) < 2:
        raise InvalidInput(
            f"KID needs at least 2 images in each set; there are {len(real)} and {len(drawn)}"
        )

    def total(a: Tensor, b: Tensor) -> float:
        kernels = (
            ((_double(rows) @ _double(columns).T / a.shape[1] + 1) ** 3).sum().item()
            for rows in a.split(block)
            for columns in b.split(block)
        )
        return sum(kernels)

    def apart(a: Tensor) -> float:
        """The mean over pairs of different images."""
        same = sum(((_double(x).square().sum(1) / a.shape[1] + 1) ** 3).sum().item()
                   for x in a.split(block))  # fmt: skip
        return (total(a, a) - same) / (len(a) * (len(a) - 1))

    between = total(real, drawn) / (len(real) * len(drawn))
    return apart(real) + apart(drawn) - 2 * between


def ssim(made: Tensor, images: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004) of uint8 images (N, 3, H, W) each, (N,): 11x11
    Gaussian windows of 1.5 pixels that lie inside, each channel by itself. InvalidInput for images
    smaller than a window.
    """
    if min(images.shape[2:]) < WINDOW:
        raise InvalidInput(
            f"images are {images.shape[3]}x{images.shape[2]}; SSIM needs at least {WINDOW} pixels"
        )
    at = torch.arange(WINDOW, dtype=torch.float32, device=images.device) - WINDOW // 2
    line = torch.exp(-at.square() / (2 * 1.5**2))
    line = line / line.sum()

    def blurred(values: Tensor) -> Tensor:
        flat = values.flatten(0, 1)[:, None]
        return F.conv2d(F.conv2d(flat, line.view(1, 1, -1, 1)), line.view(1, 1, 1, -1))

    x, y = made.float(), images.float()
    mx, my = blurred(x), blurred(y)
    vx, vy = blurred(x * x) - mx * mx, blurred(y * y) - my * my
    both = blurred(x * y) - mx * my
    a, b = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    alike = (2 * mx * my + a) * (2 * both + b) / ((mx * mx + my * my + a) * (vx + vy + b))
    return alike.view(len(images), -1).mean(1)


def _covered(points: Tensor, centres: Tensor, radii: Tensor, block: int) -> Tensor:
    """Whether each of the points (N, F) is in the ball around any of the centres (M, F) with radii
    (M,).
    """
    found = []
    for rows in points.split(block):
        pairs = zip(centres.split(block), radii.split(block), strict=True)
        inside = [(_squared(rows, columns).sqrt() <= radius).any(1) for columns, radius in pairs]
        found.append(torch.stack(inside).any(0))
    return torch.cat(found)


def _squared(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances (A, B) of vectors (A, F) and (B, F), exactly 0 between equal ones."""
    a, b = _double(a), _double(b)
    lengths = (a * a).sum(1)[:, None] + (b * b).sum(1)
    apart = lengths - 2 * (a @ b.T)
    return torch.where(apart > NOISE * lengths, apart, 0.0)


def _double(values: Tensor) -> Tensor:
    """float64 where the device has it, else on the CPU."""
    return values.detach().to(
        "cpu" if values.device.type == "mps" else values.device, torch.float64
    )
