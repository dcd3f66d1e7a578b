"""What a network says of images, and of a whole set of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from aim.errors import InvalidInput
from aim.evaluation.metrics import Moments, Statistics


class Seen(NamedTuple):
    """What a network says of images, float32 on its device."""

    features: Tensor  # (B, F)
    probabilities: Tensor | None = None  # (B, C), of classes
    spatial: Tensor | None = None  # (B, P), features that keep where things are


class Features(Protocol):
    """A network for the figures. Figures and cached statistics of features with the same ``name``
    may be compared.
    """

    # of its probabilities; 1000 are ImageNet's, in order
    classes: int
    # larger images it reduces to so many pixels, by area; 0: it sees them as they are
    side: int

    @property
    def name(self) -> str:
        """A file name's worth of text that changes with the weights."""

    def __call__(self, images: Tensor) -> Seen:
        """Of images (B, 3, H, W) uint8."""


class Observed(NamedTuple):
    """Everything the figures need of a set of images."""

    statistics: Statistics | None  # of two images or more
    spatial: Statistics | None
    features: Tensor  # (N, F) float32 on the CPU
    probabilities: Tensor | None  # (N, C) float32 on the CPU


def observe(features: Features, batches: Iterable[Tensor]) -> Observed:
    """Show all images, in batches (B, 3, H, W) uint8, to the network. InvalidInput for none."""
    moments, spatial_moments = Moments(), Moments()
    vectors: list[Tensor] = []
    probabilities: list[Tensor] = []
    for images in batches:
        seen = features(images)
        moments.add(seen.features)
        vectors.append(seen.features.cpu())
        if seen.spatial is not None:
            spatial_moments.add(seen.spatial)
        if seen.probabilities is not None:
            probabilities.append(seen.probabilities.cpu())
    if not vectors:
        raise InvalidInput("there is no image to look at; take some")
    statistics, spatial = (
        some.statistics() if some.count > 1 else None for some in (moments, spatial_moments)
    )
    return Observed(
        statistics, spatial, torch.cat(vectors), torch.cat(probabilities) if probabilities else None
    )


def likeliest(
    probabilities: Tensor | None, columns: Sequence[int], asked: Sequence[int]
) -> float | None:
    """The share of images whose likeliest class among ``columns`` of ``probabilities`` (N, C) is
    the asked one, a place (N,) in ``columns``. None where there is nothing to compare.
    """
    if probabilities is None or not columns or not len(probabilities):
        return None
    found = probabilities[:, list(columns)].argmax(1)
    return (found == torch.tensor(asked)).double().mean().item()
