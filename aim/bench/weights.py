"""Named models with random weights, for timing: nothing is downloaded, and a step costs what it
costs with trained ones.
"""

from __future__ import annotations

import difflib

import torch

from aim.checkpoint.load import Loaded
from aim.checkpoint.weights import blank
from aim.config import MODELS, ModelSpec, PriorConfig
from aim.device import free_memory, prepare, threads
from aim.engine.backend import check
from aim.engine.memory import RESERVE
from aim.errors import InvalidInput
from aim.models.prior import Prior, build
from aim.models.vq.model import VQ
from aim.pipeline import Pipeline
from aim.settings import Settings

VERSION = "random"
SEED = 0


def random_prior(config: PriorConfig, device: torch.device, dtype: torch.dtype) -> Prior:
    """A freshly initialised model of ``config``, on ``device`` itself; PyTorch's random state is
    left as it was.
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.device(device):
        torch.manual_seed(SEED)
        return build(config).to_dtype(dtype).eval().requires_grad_(False)


def spec_of(name: str) -> ModelSpec:
    """What ``MODELS`` says of ``name``; InvalidInput: no such name."""
    if name not in MODELS:
        nearest = ", ".join(difflib.get_close_matches(name.lower(), MODELS, n=3, cutoff=0.0))
        raise InvalidInput(
            f"no model is called {name!r}, and random weights are for named ones; the nearest are "
            f"{nearest}"
        )
    return MODELS[name]


def random_model(
    name: str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Loaded:
    """The model called ``name`` and its tokenizer as ``load_model`` gives them, but freshly
    initialised, on ``device`` itself.

    The same weights every time on the same kind of device; PyTorch's random state is left as it
    was. InvalidInput: no such name, or no room for it in the memory that is free.
    """
    spec, device = spec_of(name), torch.device(device)
    _check_room(spec, device, dtype)
    model = random_prior(spec.config, device, dtype)
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.device(device):
        torch.manual_seed(SEED)
        tokenizer = VQ(spec.tokenizer).to_dtype(dtype)
    return Loaded(model, tokenizer.eval().requires_grad_(False), name, VERSION)


def _check_room(spec: ModelSpec, device: torch.device, dtype: torch.dtype) -> None:
    free = free_memory(device)
    parts = blank(lambda: build(spec.config), dtype), blank(lambda: VQ(spec.tokenizer), dtype)
    needed = sum(weight.nbytes for part in parts for weight in part.state_dict().values())
    needed *= 2 if device.type == "cpu" else 1  # a backend there packs them anew
    if free is not None and needed > (1 - RESERVE) * free:
        raise InvalidInput(
            f"{spec.name} needs {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free "
            f"on {device}; take a smaller model, or wait until others are done"
        )


def random_pipeline(
    name: str,
    device: str = "auto",
    dtype: str = "auto",
    backend: str = "auto",
    max_requests: int = 16,
    ahead: str | int = "auto",
) -> Pipeline:
    """As ``aim.load``, of a ``random_model``."""
    where, what = prepare(device, dtype, Settings.from_env().threads)
    check(backend, where)
    with threads(1):
        return Pipeline(*random_model(name, where, what), backend, max_requests, ahead)
