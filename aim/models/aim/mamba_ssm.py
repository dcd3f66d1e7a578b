"""AiM's decoding step with the kernels of mamba-ssm and causal-conv1d."""

from __future__ import annotations

from torch import Tensor

from aim.models.aim.model import AiM
from aim.models.aim.state import MambaState
from aim.ops import mixer


class MambaSSMAiM:
    """``model`` with the same interface, state and results, its step by mamba-ssm's and
    causal-conv1d's kernels as far as they import.

    ``missing`` says which package does not, and why. InvalidInput if neither imports.
    """

    def __init__(self, model: AiM) -> None:
        self.model, self.config = model, model.config
        self.device, self.dtype = model.device, model.dtype
        self.class_table = model.class_table
        self.condition, self.new_state = model.condition, model.new_state
        self.prefill, self.traffic = model.prefill, model.traffic
        self.missing = mixer.missing()
        self._steps = mixer.steps()

    def step(self, codes: Tensor, positions: Tensor, cond: Tensor, state: MambaState) -> Tensor:
        """As ``AiM.step``: codes (R,), positions (R,), cond and state pooled by slot -> logits (R,
        V) float32.
        """
        return self.model.step(codes, positions, cond, state, self._steps)
