"""Either prior, which to everything above are the same thing: AiM or the Transformer."""

from __future__ import annotations

from aim.config import AiMConfig, PriorConfig, VQConfig
from aim.models.aim.model import AiM
from aim.models.gpt.model import GPT

Prior = AiM | GPT


def build(config: PriorConfig) -> Prior:
    """A freshly initialised model of ``config``."""
    return AiM(config) if isinstance(config, AiMConfig) else GPT(config)


def misfit(prior: PriorConfig, tokenizer: VQConfig) -> str:
    """Why a prior cannot draw with a tokenizer, in words; empty if it can. A prior has one grid of
    codes, which its positions were trained for; no other size or shape comes of it.
    """
    if prior.vocab_size != tokenizer.codebook_size:
        return (
            f"the model draws {prior.vocab_size} codes, its tokenizer knows "
            f"{tokenizer.codebook_size}"
        )
    if prior.num_tokens != tokenizer.grid**2:
        return (
            f"the model draws {prior.num_tokens} codes an image, its tokenizer reads a grid of "
            f"{tokenizer.grid}x{tokenizer.grid}"
        )
    return ""
