"""One AiM as another with the same function: plain adaLN, adaLN-group, adaLN-single."""

from __future__ import annotations

import dataclasses
from typing import cast

import torch
from torch import nn

from aim.models.aim.model import AiM


def as_plain_adaln(model: AiM) -> AiM:
    """The same function with one modulation a layer: exact from any adaLN-group or adaLN-single, at
    more parameters.
    """
    if not model.config.adaln_group:
        return model
    out = AiM(dataclasses.replace(model.config, adaln_group=False, num_groups=1))
    shared = cast(nn.Linear, model.adaln_group[1])
    width = 3 * model.config.d_model
    weights = {
        k: v
        for k, v in model.state_dict().items()
        if not k.startswith("adaln_group") and "scale_shift" not in k
    }
    for i, layer in enumerate(model._layers()):
        rows = slice(
            (i % model.config.num_groups) * width, (i % model.config.num_groups + 1) * width
        )
        weights[f"layers.{i}.adaLN_modulation.1.weight"] = shared.weight[rows]
        weights[f"layers.{i}.adaLN_modulation.1.bias"] = (
            shared.bias[rows] + layer.scale_shift_table.flatten()
        )
    out.load_state_dict(weights)
    return out


def as_adaln_group(model: AiM) -> AiM:
    """Plain adaLN as adaLN-group with a group a layer and empty tables: exact. Fewer groups are a
    different model.
    """
    if model.config.adaln_group:
        return model
    out = AiM(dataclasses.replace(model.config, adaln_group=True, num_groups=model.config.n_layer))
    weights = {
        k: v
        for k, v in model.state_dict().items()
        if "adaLN_modulation" not in k or k.startswith("final_layer")
    }
    own = [cast(nn.Linear, layer.adaLN_modulation[1]) for layer in model._layers()]
    weights["adaln_group.1.weight"] = torch.cat([linear.weight for linear in own])
    weights["adaln_group.1.bias"] = torch.cat([linear.bias for linear in own])
    for i in range(model.config.n_layer):
        weights[f"layers.{i}.scale_shift_table"] = torch.zeros(1, 3, model.config.d_model)
    out.load_state_dict(weights)
    return out
