"""Training over several processes: which of them this is, and a model wrapped for all (DDP, or FSDP
of PyTorch's ``fully_shard``).

Processes are started by ``torchrun`` or ``accelerate launch``; accelerate's ``Accelerator`` finds
them and the device.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from aim.models.aim.model import AiM

CPU = torch.device("cpu")


class Processes:
    """This process among ``world``, as accelerate sees it; ``rank`` 0 is the first, which writes
    files. Without an accelerator it is alone, on ``device``.
    """

    def __init__(self, accelerator: Any = None, device: torch.device | None = None) -> None:
        self._accelerator = accelerator
        self.rank: int = accelerator.process_index if accelerator else 0
        self.world: int = accelerator.num_processes if accelerator else 1
        self.device: torch.device = accelerator.device if accelerator else device or CPU

    @property
    def first(self) -> bool:
        """Whether this one writes."""
        return self.rank == 0

    def share(self, batch: Tensor) -> Tensor:
        """This process's part of a batch (B, ...) that is the same on all."""
        return batch[self.rank :: self.world]

    def most(self, values: Sequence[float]) -> list[float]:
        """The largest over all processes, of each value."""
        mine = torch.tensor([values], dtype=torch.float64, device=self.device)
        return (self._accelerator.gather(mine) if self.world > 1 else mine).amax(0).tolist()

    def mean(self, value: Tensor) -> Tensor:
        """The mean over all processes."""
        return self._accelerator.reduce(value.detach(), "mean") if self.world > 1 else value

    def total(self, value: Tensor) -> Tensor:
        """The sum over all processes."""
        return self._accelerator.reduce(value, "sum") if self.world > 1 else value

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
            from accelerate.utils import broadcast

            broadcast(value)


ALONE = Processes()


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
