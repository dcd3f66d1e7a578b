"""Named models with random weights, for timing: nothing is downloaded, and a step costs what it costs with trained ones."""

from __future__ import annotations

import difflib

import torch

from aim.checkpoint.load import Loaded
from aim.config import MODELS
from aim.device import prepare
from aim.errors import InvalidInput
from aim.models.aim import AiM
from aim.models.vq import VQ
from aim.pipeline import Pipeline
from aim.settings import Settings

VERSION = "random"
SEED = 0


def random_model(name: str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Loaded:
    """The model called ``name`` and its tokenizer as ``load_model`` gives them, but freshly initialised, on ``device`` itself.

    The same weights every time on the same kind of device; PyTorch's random state is left as it was. InvalidInput: no such name.
    """
    if name not in MODELS:
        nearest = ", ".join(difflib.get_close_matches(name.lower(), MODELS, n=3, cutoff=0.0))
        raise InvalidInput(f"no model is called {name!r}, and random weights are for named ones; the nearest are {nearest}")
    spec, device = MODELS[name], torch.device(device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.device(device):
        torch.manual_seed(SEED)
        model = AiM(spec.config).to_dtype(dtype)
        tokenizer = VQ(spec.tokenizer).to_dtype(dtype)
    return Loaded(model.eval().requires_grad_(False), tokenizer.eval().requires_grad_(False), name, VERSION)


def random_pipeline(name: str, device: str = "auto", dtype: str = "auto") -> Pipeline:
    """As ``aim.load``, of a ``random_model``."""
    return Pipeline(*random_model(name, *prepare(device, dtype, Settings.from_env().threads)))
