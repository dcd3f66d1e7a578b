"""How many requests fit into memory."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from aim.device import free_memory
from aim.models.interface import Decoder, State, WindowDecoder
from aim.ops.linear import MOST
from aim.sampling import NOTES

log = logging.getLogger("aim")

# of the memory, on a CPU of what is free: for the image decoder, the kernels' own and others
RESERVE = 0.1
ROW = 8 + 4 * NOTES  # bytes of one code and its notes in ``Rows``
LOGITS = 4  # tensors of the size of the logits that a step may hold at once
HALF = 2  # bytes of a logit in ``aim.ahead.Guesses``


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


def state_shapes(model: Decoder, slots: int, widest: int = 1) -> State:
    """``model.new_state(slots)``, of a ``WindowDecoder`` for passes of ``widest`` items, without
    memory behind it: shapes and dtypes alone.
    """
    with _Unallocated():
        if widest > 1:
            return cast(WindowDecoder, model).new_state(slots, widest)
        return model.new_state(slots)


def pool_bytes(model: Decoder, slots: int, widest: int = 1) -> int:
    """About how much memory ``slots`` rows of ``model`` take, in passes of up to ``widest`` items,
    of which this allocates one row's condition.
    """
    c = model.config
    with torch.inference_mode():
        condition = model.condition(torch.zeros(1, dtype=torch.int64, device=model.device)).nbytes
    row = condition + c.num_tokens * ROW
    if widest > 1:
        row += HALF * math.isqrt(c.num_tokens) * c.vocab_size
    lines = max(slots, min(widest * slots, MOST))  # of logits in one pass
    state = sum(part.nbytes for part in state_shapes(model, slots, widest))
    return state + slots * row + 4 * LOGITS * lines * c.vocab_size


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


def limit(model: Decoder, max_requests: int, widest: int = 1) -> int:
    """How many requests, up to ``max_requests``, ``model`` can run at once on its device, in passes
    of up to ``widest`` items.
    """
    free = free_memory(model.device)
    if free is None:
        return max_requests
    cuda = model.device.type == "cuda"
    total = torch.cuda.mem_get_info(model.device)[1] if cuda else free
    return fitting(
        max_requests, lambda slots: pool_bytes(model, slots, widest), free - int(RESERVE * total)
    )
