"""Matrices in 8 bits, symmetric: ``<name>`` in int8 and ``<name>.scale``, a float32 for each row of
outputs; a weight is their product.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from aim.errors import CheckpointError, InvalidInput

SCALE = ".scale"
MOST = 127  # -128 has no opposite


def rounded(name: str, weight: Tensor) -> dict[str, Tensor]:
    """What is stored of a matrix, table or convolution (rows, ...): int8 of the same shape, and
    scales (rows,), the largest of a row over 127. InvalidInput for weights that are not finite.
    """
    rows = weight.float().flatten(1)
    scale = rows.abs().amax(1) / MOST
    if not scale.isfinite().all():
        raise InvalidInput(f"{name} holds weights that are not finite; 8 bits cannot hold them")
    # a row of zeros has the scale 0; that of the smallest numbers is rounded itself
    steps = (rows / torch.where(scale > 0, scale, 1)[:, None]).round().clamp(-MOST, MOST)
    return {name: steps.to(torch.int8).view_as(weight), name + SCALE: scale}


def restored(path: Path, name: str, steps: Tensor, scale: Tensor) -> Tensor:
    """The float32 weights of ``rounded``'s two tensors, the same on every machine: each is one
    product, rounded once. CheckpointError for a scale that is negative or not finite.
    """
    wrong = scale[~(scale.isfinite() & (scale >= 0))]
    if len(wrong):
        raise CheckpointError(
            f"{path}: {name}{SCALE} holds {wrong[0].item()}; a scale must be finite and at least 0"
        )
    return steps.float() * scale.view(-1, *[1] * (steps.dim() - 1))
