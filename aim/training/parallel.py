"""Training over several processes: which of them this is, and a model wrapped for all (DDP, or FSDP
of PyTorch's ``fully_shard``).

Processes are started by ``torchrun`` or ``accelerate launch``; accelerate's ``Accelerator`` finds
them and the device.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from aim.errors import AimError, InvalidInput
from aim.models.aim.model import AiM


class Processes:
    """This process among ``world``; ``rank`` 0 is the first, which writes files."""

    def __init__(self, rank: int = 0, world: int = 1, device: torch.device | None = None) -> None:
        self.rank, self.world, self.device = rank, world, device or torch.device("cpu")

    @property
    def first(self) -> bool:
        """Whether this one writes."""
        return self.rank == 0

    def most(self, values: Sequence[float]) -> list[float]:
        """The largest over all processes, of each value."""
        if self.world == 1:
            return list(values)
        t = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(t, dist.ReduceOp.MAX)
        return t.tolist()

    def mean(self, value: Tensor) -> Tensor:
        """The mean over all processes."""
        if self.world > 1:
            value = value.detach().clone()
            dist.all_reduce(value)
            value /= self.world
        return value

    def total(self, value: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.world > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def average_gradients(self, model: nn.Module) -> None:
        """Replace every gradient by its mean over all processes: for a step that has more than one
        backward pass.
        """
        if self.world == 1:
            return
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        flat = self.mean(torch.cat([grad.flatten() for grad in grads]))
        for grad, part in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(part.view_as(grad))

    def from_first(self, value: Tensor) -> None:
        """Overwrite ``value`` by what the first process has."""
        if self.world > 1:
            dist.broadcast(value, 0)


ALONE = Processes()


def accelerator_on(device: str, tracker: str, out: Path) -> Any:
    """accelerate's view of the processes and the device, auto, cpu or cuda. InvalidInput for
    another device or tracker.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise InvalidInput(f"device is {device!r}; it must be auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise InvalidInput("device is 'cuda', but PyTorch finds no CUDA device; take auto or cpu")
    try:
        from accelerate import Accelerator
    except ImportError as error:
        raise AimError('training needs accelerate: pip install "aim-mamba[train]"') from error
    try:
        trackers = None if tracker == "none" else tracker
        return Accelerator(cpu=device == "cpu", log_with=trackers, project_dir=str(out))
    except ValueError as error:
        raise InvalidInput(
            f"tracker is {tracker!r}, which accelerate refuses ({error}); take tensorboard or none"
        ) from error


def shard(model: nn.Module) -> None:
    """FSDP in place: what is large in a layer is gathered when that layer runs, the rest with the
    model.

    Of AiM that is the mixer: a layer's table is read before the layer runs, when every modulation
    is computed.
    """
    from torch.distributed.fsdp import fully_shard

    for layer in model.layers:  # type: ignore[union-attr]
        fully_shard(layer.mixer if isinstance(model, AiM) else layer)
    fully_shard(model)


def local(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The parts of ``tensors`` that are on this process."""
    return [t.to_local() if isinstance(t, DTensor) else t for t in tensors]


def whole(value: Tensor) -> Tensor:
    """A tensor of all processes as an ordinary one."""
    return value.full_tensor() if isinstance(value, DTensor) else value


@contextlib.contextmanager
def synchronised(model: nn.Module, last: bool) -> Any:
    """Gradients computed inside meet over all processes only if ``last``: the other parts of a
    batch wait for it.
    """
    from torch.distributed.fsdp import FSDPModule

    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(last)
        yield
    elif isinstance(model, nn.parallel.DistributedDataParallel) and not last:
        with model.no_sync():
            yield
    else:
        yield


class Sharded:
    """State of a sharded model, or of its optimiser, as one file for any number of processes; every
    process must ask for it.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
        self._model, self._optimizer = model, optimizer

    def state_dict(self) -> dict[str, Any]:
        """Whole tensors on the CPU of the first process, nothing on the others."""
        from torch.distributed.checkpoint.state_dict import (
            StateDictOptions,
            get_model_state_dict,
            get_optimizer_state_dict,
        )

        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        if self._optimizer is None:
            return get_model_state_dict(self._model, options=options)
        return get_optimizer_state_dict(self._model, self._optimizer, options=options)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From what any number of processes saved."""
        from torch.distributed.checkpoint.state_dict import (
            StateDictOptions,
            set_model_state_dict,
            set_optimizer_state_dict,
        )

        options = StateDictOptions(full_state_dict=True)
        if self._optimizer is None:
            set_model_state_dict(self._model, state, options=options)
        else:
            set_optimizer_state_dict(self._model, self._optimizer, state, options=options)
