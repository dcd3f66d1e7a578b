"""Models with the interface of a prior, and what they are asked in the tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from aim.models.aim.cpu import CPUAiM
from aim.models.aim.mamba_ssm import MambaSSMAiM
from aim.models.gpt.cpu import CPUGPT
from aim.models.prior import Prior
from tests.tiny import random_gpt, random_model

Decoder: TypeAlias = Prior | CPUAiM | CPUGPT | MambaSSMAiM
FAR = 1e-4  # of float32 logits, whose size is about 1 to 10
KINDS = {
    "plain": {"adaln_group": False, "num_groups": 1},
    "group": {"adaln_group": True, "num_groups": 2},
    "single": {"adaln_group": True, "num_groups": 1},
}


class Case(NamedTuple):
    """A prior, and a form of its step."""

    make: Callable[..., Any]  # a random tiny model, with changes to its configuration
    prepare: Callable[[Any], Any]

    def __repr__(self) -> str:
        return f"{self.make.__name__} {self.prepare.__name__}"


def eager(model: Prior) -> Prior:
    return model


PACKED = [Case(random_model, CPUAiM), Case(random_gpt, CPUGPT)]
CASES = [
    Case(random_model, eager),
    Case(random_gpt, eager),
    *PACKED,
    Case(random_model, MambaSSMAiM),
]


def codes_of(model: Decoder, rows: int, seed: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(
        model.config.vocab_size, (rows, model.config.num_tokens), generator=generator
    )


def labels_of(model: Decoder, rows: int) -> Tensor:
    return torch.arange(rows) % (model.config.num_classes + 1)


def play(model: Any, codes: Tensor, labels: Tensor, steps: int = 0) -> tuple[Tensor, Any]:
    """All logits (R, T, V) step by step, and the last state; or of the first ``steps``."""
    cond, state = model.condition(labels), model.new_state(len(labels))
    steps = steps or model.config.num_tokens
    made = [
        model.step(codes[:, max(i - 1, 0)], torch.full((len(labels),), i), cond, state)
        for i in range(steps)
    ]
    return torch.stack(made, 1), state


def step_at(
    model: Any, slots: Tensor, codes: Tensor, positions: Tensor, cond: Tensor, state: Any
) -> Tensor:
    """One step in which slots (R,) are at these positions, behind these codes, and all others
    idle -> logits (R, V).
    """
    last, places = torch.zeros(state.slots, dtype=torch.long), torch.full((state.slots,), -1)
    last[slots], places[slots] = codes, positions
    return model.step(last, places, cond, state)[slots]


def apart(a: Tensor, b: Tensor) -> float:
    """Relative error of a."""
    return ((a - b).norm() / b.norm()).item()
