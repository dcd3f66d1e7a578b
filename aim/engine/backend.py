"""How a model is stepped: picked once, by what the model and the machine can do."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass, replace
from typing import TypeGuard, cast

import torch

from aim.config import GPTConfig
from aim.device import all_threads, has_tiles
from aim.engine.engine import Engine
from aim.engine.passes import OFF, Passes, Widths, up_to, widest
from aim.engine.requests import Request
from aim.engine.runner import Runner
from aim.engine.scheduler import Running
from aim.errors import GenerationError, InvalidInput
from aim.models.aim.cpu import CPUAiM
from aim.models.aim.mamba_ssm import MambaSSMAiM
from aim.models.aim.model import AiM
from aim.models.gpt.cpu import CPUGPT
from aim.models.gpt.model import GPT
from aim.models.interface import Decoder
from aim.models.prior import Prior
from aim.ops import mixer
from aim.ops.triton import CAPABILITY
from aim.settings import AHEAD, BACKEND_ALIASES, BACKENDS

log = logging.getLogger("aim")

WINDOWED = ("gpu", "cpu", "eager")  # those whose step may read several codes of a picture
# how many, where measured to be faster; in bfloat16 alone, as float32 has its shapes of products.
# On a GPU ((4, 16), (8, 8)) would be, once a pass of one item is measured to cost what a step does
AUTO: dict[str, Widths] = {
    "gpu": OFF,
    "cpu": ((2, 4),),  # see ``_pays``
    "mamba-ssm": OFF,
    "eager": OFF,
}


@dataclass(frozen=True)
class Backend:
    """``model`` is what an engine runs: our kernels or mamba-ssm's as captured graphs, packed
    products on a CPU, or PyTorch's operations one by one.

    ``reason`` says why it is not ours on a GPU, where nobody asked for it not to be, or not all
    mamba-ssm's where that was asked for.
    """

    name: str  # one of ``BACKENDS``, but for auto
    model: Decoder
    reason: str = ""
    widths: Widths = OFF  # items of a row in one step, where it is more than one

    def describe(self) -> str:
        """In words, with the reason."""
        return describe(self.name, self.reason)

    def engine(self, max_requests: int = 16, max_waiting: int = 64) -> Engine:
        """An engine on it; arguments as of ``Engine``."""
        captured = self.name != "eager"
        return Engine(self.model, max_requests, max_waiting, captured, self.widths)


def describe(name: str, reason: str = "") -> str:
    """A backend in words, and why it is not another."""
    way = {
        "gpu": "fused kernels",
        "cpu": "packed products",
        "mamba-ssm": "mamba-ssm's kernels",
        "eager": "eager PyTorch",
    }[name]
    return f"{way} ({reason})" if reason else way


def looked(ahead: str | int, backend: str, dtype: torch.dtype) -> Widths:
    """How many items of a row a step of ``backend`` may read: for "auto" what ``AUTO`` says, one
    for "off". InvalidInput for what is none of ``AHEAD``, and for a number where a step reads one.
    """
    wanted = str(ahead)
    if wanted not in AHEAD:
        raise InvalidInput(f"ahead is {ahead!r}; it must be one of {', '.join(AHEAD)}")
    if wanted == "off" or (wanted == "auto" and dtype == torch.float32):
        return OFF
    if wanted == "auto":
        return AUTO[backend] if backend != "cpu" or _pays() else OFF
    if backend not in WINDOWED:
        raise InvalidInput(
            f"ahead is {ahead!r}, but the backend is {backend!r}, whose step reads one code a "
            f"picture; take auto or off, or the backend {' or '.join(WINDOWED)}"
        )
    return up_to(int(wanted))


def _pays() -> bool:
    """Whether looking ahead does on this CPU: a few rows cost little more than one where it has
    tiles, and of its operations those that cores do not share are few where it has two.
    """
    return has_tiles() and all_threads() <= 2


def check(wanted: str, device: torch.device) -> str:
    """Why our kernels do not run on ``device``, empty if they may; before a model is there.

    InvalidInput for a name that is none, or for one that cannot run there.
    """
    wanted = BACKEND_ALIASES.get(wanted, wanted)
    if wanted not in BACKENDS:
        raise InvalidInput(f"backend is {wanted!r}; it must be one of {', '.join(BACKENDS)}")
    if wanted == "mamba-ssm":
        if device.type != "cuda":
            raise _refusal(wanted, f"it needs an NVIDIA GPU, and the device is {device}")
        mixer.missing()
    if wanted == "cpu" and device.type != "cpu":
        raise _refusal(wanted, f"the device is {device}")
    reason = _obstacle(device)
    if reason and wanted == "gpu":
        raise _refusal(wanted, reason)
    return reason


def pick(model: Prior, wanted: str = "auto", ahead: str | int = "auto") -> Backend:
    """The backend for ``model``, an ``aim.models.prior.Prior``: for "auto" ours for a GPU where it
    runs, for a CPU on one, else eager, with a line in the log on a GPU.

    On a GPU it tries a few steps, which compiles kernels. InvalidInput for a name that is none, for
    one that does not run here, and for "mamba-ssm" with a Transformer; ``ahead`` as of ``looked``.
    """
    looked(ahead, "cpu", model.dtype)  # before anything is compiled
    backend = _pick(model, wanted, looked(ahead, "gpu", model.dtype))
    return replace(backend, widths=looked(ahead, backend.name, model.dtype))


def _pick(model: Prior, wanted: str, widths: Widths) -> Backend:
    reason = check(wanted, model.device)
    wanted = BACKEND_ALIASES.get(wanted, wanted)
    if wanted == "eager":
        return Backend("eager", model)
    if wanted == "mamba-ssm":
        if _is_gpt(model):
            raise _refusal(
                wanted, "its kernels are for a state space model, and this one is a Transformer"
            )
        return _mamba_ssm(cast(AiM, model))
    if model.device.type == "cpu":
        return Backend("cpu", CPUGPT(model) if _is_gpt(model) else CPUAiM(cast(AiM, model)))
    if not reason:
        try:
            return Backend("gpu", _gpu(model, widths))
        except (
            Exception
        ) as error:  # whatever is wrong with the installation, eager PyTorch does not need it
            reason = _why(error, "the fused kernels")
    if wanted == "gpu":
        raise _refusal(wanted, reason)
    if model.device.type != "cuda":
        return Backend("eager", model)
    log.warning("Decoding with eager PyTorch, which is slower: %s", reason)
    return Backend("eager", model, reason)


def _is_gpt(model: Prior) -> TypeGuard[GPT]:
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
        name = torch.cuda.get_device_name(device)
        return f"it needs a GPU of compute capability {need} or more, and {name} has {have}"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    return ""


def _gpu(model: Prior, widths: Widths) -> Decoder:
    """The model with fused kernels, tried out. Raises whatever goes wrong."""
    if _is_gpt(model):  # imported here, as both import Triton
        from aim.models.gpt.gpu import GPUGPT

        ours: Decoder = GPUGPT(model)
    else:
        from aim.models.aim.gpu import GPUAiM

        ours = GPUAiM(cast(AiM, model))
    if not _try(ours, widths):
        raise GenerationError("the step cannot be captured")
    return ours


def _mamba_ssm(model: AiM) -> Backend:
    """mamba-ssm's kernels, tried out. InvalidInput if they do not run."""
    theirs = MambaSSMAiM(model)
    try:
        _try(theirs)
    except Exception as error:  # an extension for another GPU, a size that the kernels do not take
        raise _refusal("mamba-ssm", _why(error, "mamba-ssm's kernels")) from error
    reason = "".join(
        f"{package} does not import ({why})" for package, why in theirs.missing.items()
    )
    if reason:
        log.warning("PyTorch does its part of a step: %s", reason)
    return Backend("mamba-ssm", theirs, reason)


def _try(model: Decoder, widths: Widths = OFF) -> bool:
    """Two steps of ``model`` in an engine of one request; whether they were captured."""
    entry = Running(Request(0), [0, 1])
    runner = Runner(model, 2, widest=widest(widths))
    rows, passes = runner.sizes[-1], Passes(runner, widths)
    runner.admit([entry])
    runner.arrange([entry])
    for _ in range(2):
        runner.step(rows, passes.width(rows))
    runner.fetch([entry]).wait()
    return runner.graphs.captures > 0
