"""How a model is stepped: picked once, by what the model and the machine can do."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass
from typing import Any

import torch

from aim.config import GPTConfig
from aim.engine.engine import Engine
from aim.engine.requests import Request
from aim.engine.runner import Runner
from aim.engine.scheduler import Running
from aim.errors import GenerationError, InvalidInput
from aim.models.aim.cpu import PackedAiM
from aim.models.aim.mamba_ssm import ExternalAiM
from aim.models.gpt.cpu import PackedGPT
from aim.ops import kernels
from aim.ops.fused import CAPABILITY
from aim.settings import BACKENDS

log = logging.getLogger("aim")


@dataclass(frozen=True)
class Backend:
    """``model`` is what an engine runs: fused kernels or mamba-ssm's as captured graphs, PyTorch's
    operations one by one, or those prepared for a CPU.

    ``reason`` says why it is not fused on a GPU, where nobody asked for it not to be, or not all
    mamba-ssm's where that was asked for.
    """

    name: str  # fused, mamba-ssm, packed or eager
    model: Any
    reason: str = ""

    def engine(self, max_requests: int = 16, max_waiting: int = 64) -> Engine:
        """An engine on it; arguments as of ``Engine``."""
        return Engine(self.model, max_requests, max_waiting, captured=self.name != "eager")


def check(wanted: str, device: torch.device) -> str:
    """Why nothing is fused on ``device``, empty if that may run; before a model is there.

    InvalidInput for a name that is none, or for "fused" or "mamba-ssm" where it cannot run.
    """
    if wanted not in BACKENDS:
        raise InvalidInput(f"backend is {wanted!r}; it must be one of {', '.join(BACKENDS)}")
    if wanted == "mamba-ssm":
        if device.type != "cuda":
            raise _refusal(wanted, f"it needs an NVIDIA GPU, and the device is {device}")
        kernels.missing()
    reason = _obstacle(device)
    if reason and wanted == "fused":
        raise _refusal(wanted, reason)
    return reason


def pick(model: Any, wanted: str = "auto") -> Backend:
    """The backend for ``model``, an ``aim.models.prior.Prior``: for "auto" the fused one where it
    runs, packed on a CPU, else eager, with a line in the log on a GPU.

    On a GPU it tries a few steps, which compiles kernels. InvalidInput for a name that is none, for
    "fused" or "mamba-ssm" where it does not run, and for "mamba-ssm" with a Transformer.
    """
    reason = check(wanted, model.device)
    if wanted == "eager":
        return Backend("eager", model)
    if wanted == "mamba-ssm":
        if _is_gpt(model):
            raise _refusal(
                wanted, "its kernels are for a state space model, and this one is a Transformer"
            )
        return _external(model)
    if not reason:
        try:
            return Backend("fused", _fused(model))
        except (
            Exception
        ) as error:  # whatever is wrong with the installation, eager PyTorch does not need it
            reason = _why(error, "the fused kernels")
    if wanted == "fused":
        raise _refusal(wanted, reason)
    if model.device.type == "cpu":
        return Backend("packed", PackedGPT(model) if _is_gpt(model) else PackedAiM(model))
    if model.device.type != "cuda":
        return Backend("eager", model)
    log.warning("Decoding with eager PyTorch, which is slower: %s", reason)
    return Backend("eager", model, reason)


def _is_gpt(model: Any) -> bool:
    return isinstance(model.config, GPTConfig)


def _refusal(wanted: str, reason: str) -> InvalidInput:
    return InvalidInput(f"backend is {wanted!r}, but {reason}; take auto or eager")


def _why(error: Exception, what: str) -> str:
    text = str(error).strip().partition("\n")[0]
    return (
        text
        if isinstance(error, InvalidInput)
        else f"{what} do not run here ({type(error).__name__}: {text})"
    )


def _obstacle(device: torch.device) -> str:
    """Why the fused kernels cannot run on ``device``; empty if they may."""
    if device.type != "cuda":
        return f"it needs an NVIDIA GPU, and the device is {device}"
    capability = torch.cuda.get_device_capability(device)
    if capability < CAPABILITY:
        have, need = (".".join(map(str, version)) for version in (capability, CAPABILITY))
        return f"it needs a GPU of compute capability {need} or more, and {torch.cuda.get_device_name(device)} has {have}"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    return ""


def _fused(model: Any) -> Any:
    """The model with fused kernels, tried out. Raises whatever goes wrong."""
    if _is_gpt(model):  # imported here, as both import Triton
        from aim.models.gpt.gpu import FastGPT

        fast: Any = FastGPT(model)
    else:
        from aim.models.aim.gpu import FastAiM

        fast = FastAiM(model)
    if not _try(fast):
        raise GenerationError("the step cannot be captured")
    return fast


def _external(model: Any) -> Backend:
    """mamba-ssm's kernels, tried out. InvalidInput if they do not run."""
    external = ExternalAiM(model)
    try:
        _try(external)
    except Exception as error:  # an extension for another GPU, a size that the kernels do not take
        raise _refusal("mamba-ssm", _why(error, "mamba-ssm's kernels")) from error
    reason = "".join(
        f"{package} does not import ({why})" for package, why in external.missing.items()
    )
    if reason:
        log.warning("PyTorch does its part of a step: %s", reason)
    return Backend("mamba-ssm", external, reason)


def _try(model: Any) -> bool:
    """Two steps of ``model`` in an engine of one request; whether they were captured."""
    entry = Running(Request(0), [0, 1])
    runner = Runner(model, 2)
    runner.admit([entry])
    runner.arrange([entry])
    for _ in range(2):
        runner.step(runner.sizes[-1])
        entry.step += 1
    runner.fetch([entry]).wait()
    return runner.graphs.captures > 0
