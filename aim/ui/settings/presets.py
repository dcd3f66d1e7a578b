"""Sampling settings to start from, by name."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

from aim.config import NEUTRAL
from aim.evaluation.run import PAPER
from aim.pipeline import Pipeline

OWN = "The model's own"
PAPERS = "The paper's: every code kept"
PRESETS: dict[str, dict[str, float]] = {  # what is not named changes nothing
    OWN: {},
    PAPERS: {},
    "Vivid: strong guidance, few risks": {"cfg_scale": 6.0, "temperature": 0.9, "top_p": 0.95},
    "Diverse: little guidance": {"cfg_scale": 1.75},
}


def preset_values(name: str, pipe: Pipeline) -> list[Any]:
    """Of every sampling parameter, in their order, its value in one of PRESETS, the model's own in
    none.
    """
    own = pipe.sampling
    if name == OWN or name not in PRESETS:
        return list(astuple(own))
    paper = {"cfg_scale": PAPER.get(pipe.name, own.cfg_scale)}
    return list(astuple(NEUTRAL.replace(**(paper if name == PAPERS else PRESETS[name]))))
