"""How many requests fit into memory."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from aim.device import free_memory
from aim.models.interface import Decoder, State
from aim.sampling import NOTES

log = logging.getLogger("aim")

# of the memory, on a CPU of what is free: for the image decoder, the kernels' own and others
RESERVE = 0.1
ROW = 8 + 4 * NOTES  # bytes of one code and its notes in ``Rows``
LOGITS = 4  # tensors of the size of the logits that a step may hold at once


class _Unallocated(TorchFunctionMode):
    """New tensors have a shape and no memory."""

    _MADE = (
        torch.zeros,
        torch.empty,
        torch.full,
        torch.ones,
        Tensor.new_zeros,
        Tensor.new_empty,
        Tensor.new_full,
        Tensor.new_ones,
    )

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        return func(*args, **({**kwargs, "device": "meta"} if func in self._MADE else kwargs))


def state_shapes(model: Decoder, slots: int) -> State:
    """``model.new_state(slots)`` without memory behind it: shapes and dtypes alone."""
    with _Unallocated():
        return model.new_state(slots)


def pool_bytes(model: Decoder, slots: int) -> int:
    """About how much memory ``slots`` rows of ``model`` take, of which this allocates one row's
    condition.
    """
    with torch.inference_mode():
        condition = model.condition(torch.zeros(1, dtype=torch.int64, device=model.device)).nbytes
    row = condition + model.config.num_tokens * ROW + 4 * LOGITS * model.config.vocab_size
    return sum(part.nbytes for part in state_shapes(model, slots)) + slots * row


def fitting(max_requests: int, needed: Callable[[int], int], free: int) -> int:
    """``max_requests``, halved until the rows of those, ``needed(slots)`` bytes, fit into ``free``;
    1 at the least.
    """
    fits = max_requests
    while fits > 1 and needed(2 * fits) > free:
        fits //= 2
    if fits < max_requests:
        wanted, there = needed(2 * max_requests) / 1e9, max(0, free) / 1e9
        log.warning(
            "%d images at once need %.1f GB of memory, and %.1f are free: %d at once",
            max_requests,
            wanted,
            there,
            fits,
        )
    return fits


def limit(model: Decoder, max_requests: int) -> int:
    """How many requests, up to ``max_requests``, ``model`` can run at once on its device."""
    free = free_memory(model.device)
    if free is None:
        return max_requests
    cuda = model.device.type == "cuda"
    total = torch.cuda.mem_get_info(model.device)[1] if cuda else free
    return fitting(
        max_requests, lambda slots: pool_bytes(model, slots), free - int(RESERVE * total)
    )
