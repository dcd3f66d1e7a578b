"""What AiM is built of around its mixers: embeddings, and layers that the class modulates."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aim.config import AiMConfig, PriorConfig
from aim.models.aim.mamba2 import Mamba2, RMSNorm
from aim.ops.linear import Linear
from aim.ops.mixer import Steps


def modulation(d_model: int, parts: int) -> nn.Sequential:
    """From a class embedding (R, D) to shifts, scales and gates (R, parts D)."""
    return nn.Sequential(nn.SiLU(), Linear(d_model, parts * d_model))


class Embeddings(nn.Module):
    """Code and position embeddings."""

    def __init__(self, config: AiMConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.d_model)
        self.position_embeddings = nn.Embedding(config.num_tokens + 1, config.d_model)


class ClassEmbedding(nn.Module):
    """One row a class, and one more for no class (classifier-free guidance)."""

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(config.num_classes + 1, config.d_model)


class Layer(nn.Module):
    """Norm, modulation, mixer, gate. Plain adaLN has its own modulation; adaLN-group adds a table
    to a shared one.
    """

    def __init__(self, config: AiMConfig) -> None:
        super().__init__()
        if config.adaln_group:
            self.scale_shift_table = nn.Parameter(torch.empty(1, 3, config.d_model))
            nn.init.normal_(self.scale_shift_table, std=config.d_model**-0.5)
        else:
            self.adaLN_modulation = modulation(config.d_model, 3)
        self.norm = RMSNorm(config.d_model, config.norm_eps)
        self.mixer = Mamba2(config)
        self.drop = nn.Dropout(config.mixer_drop)

    def forward(self, residual: Tensor, modulation: Tensor) -> Tensor:
        """residual (B, T, D) float32, modulation (B, 3, D) -> the next residual."""
        shift, scale, gate = modulation.unsqueeze(2).unbind(1)  # (B, 1, D) each
        x = self.norm(residual) * (1 + scale) + shift
        return residual + gate * self.drop(self.mixer(x))

    def prefill(self, residual: Tensor, modulation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``forward``, and the mixer's state after the last item; see ``Mamba2.prefill``."""
        shift, scale, gate = modulation.unsqueeze(2).unbind(1)
        update, conv, ssm = self.mixer.prefill(self.norm(residual) * (1 + scale) + shift)
        return residual + gate * update, conv, ssm

    def step(
        self,
        residual: Tensor,
        modulation: Tensor,
        conv: Tensor,
        ssm: Tensor,
        idle: Tensor,
        steps: Steps,
    ) -> Tensor:
        """One item a row: residual (R, D), modulation (R, 3, D) -> (R, D); see ``Mamba2.step``."""
        shift, scale, gate = modulation.unbind(1)
        x = torch.addcmul(shift, self.norm(residual), 1 + scale)
        return torch.addcmul(residual, gate, self.mixer.step(x, conv, ssm, idle, steps).float())

    def advance(
        self,
        residual: Tensor,
        modulation: Tensor,
        conv: Tensor,
        ssm: Tensor,
        idle: Tensor,
        read: Tensor,
    ) -> Tensor:
        """W items a row: residual (R, W, D), modulation (R, 3, D) -> (R, W, D); see
        ``Mamba2.advance``.
        """
        shift, scale, gate = modulation.unsqueeze(2).unbind(1)  # (R, 1, D) each
        x = torch.addcmul(shift, self.norm(residual), 1 + scale)
        return torch.addcmul(residual, gate, self.mixer.advance(x, conv, ssm, idle, read).float())


class FinalLayer(nn.Module):
    """The last modulated norm."""

    def __init__(self, config: AiMConfig) -> None:
        super().__init__()
        self.norm_final = RMSNorm(config.d_model, config.norm_eps)
        self.adaLN_modulation = modulation(config.d_model, 2)
