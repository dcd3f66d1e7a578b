"""Either prior, which to everything above are the same thing: AiM or the Transformer."""

from __future__ import annotations

from aim.config import AiMConfig, PriorConfig
from aim.models.aim.model import AiM
from aim.models.gpt.model import GPT

Prior = AiM | GPT


def build(config: PriorConfig) -> Prior:
    """A freshly initialised model of ``config``."""
    return AiM(config) if isinstance(config, AiMConfig) else GPT(config)
