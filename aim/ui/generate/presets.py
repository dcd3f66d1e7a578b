"""Sampling settings to start from, by name."""

from __future__ import annotations

from typing import Any, NamedTuple

from aim.evaluation.run import PAPER
from aim.pipeline import Pipeline

PAPERS = "The paper's: every code kept"


class Preset(NamedTuple):
    """Sampling settings; None is the model's own."""

    cfg_scale: float | None = None
    temperature: float | None = None
    top_k: int = 0
    top_p: float = 1.0


PRESETS = {
    "The model's own": Preset(),
    PAPERS: Preset(None, 1.0),
    "Vivid: strong guidance, few risks": Preset(6.0, 0.9, 0, 0.95),
    "Diverse: little guidance": Preset(1.75, 1.0),
}


def preset_values(name: str, pipe: Pipeline) -> list[Any]:
    """Guidance, temperature, top-k and top-p of one of PRESETS; None where the model's own
    stays.
    """
    own, chosen = pipe.sampling, PRESETS[name]
    guidance = PAPER.get(pipe.name, own.cfg_scale) if name == PAPERS else chosen.cfg_scale
    return [
        guidance or own.cfg_scale,
        *(chosen[1:] if chosen.temperature else (own.temperature, own.top_k, own.top_p)),
    ]
