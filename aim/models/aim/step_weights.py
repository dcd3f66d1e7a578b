"""What the prepared forms of AiM's step have in common: weights and modulations as a step wants
them, made once.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from aim.models.aim.layer import Layer
from aim.models.aim.model import AiM
from aim.ops.window import MixWeights


def norm_weights(model: AiM) -> Tensor:
    """Weights of the norms that are modulated (1 + L, D) float32: the final one, then each
    layer's.
    """
    layers = cast(list[Layer], list(model.layers))
    return torch.stack(
        [model.final_layer.norm_final.weight, *(layer.norm.weight for layer in layers)]
    ).detach()


def gained_condition(model: AiM, labels: Tensor, norms: Tensor) -> Tensor:
    """``AiM.condition`` with the weight of the norm before it, one of ``norm_weights``, times (1 +
    scale) in place of each scale.
    """
    cond = model.condition(labels)  # (R, 3 + 3L, D)
    cond[:, 2] = (1 + cond[:, 2]) * norms[0]
    cond[:, 4::3] = (1 + cond[:, 4::3]) * norms[1:]
    return cond


@torch.no_grad()
def mix_weights(layer: Layer) -> MixWeights:
    """The small weights of a layer's mixer."""
    m = layer.mixer
    taps, bias = (
        m.conv1d.weight.squeeze(1).float().T.contiguous(),
        cast(Tensor, m.conv1d.bias).float(),
    )
    return MixWeights(
        taps, bias, m.dt_bias.detach(), -torch.exp(m.A_log), m.D.detach(), m.norm.weight.detach()
    )
