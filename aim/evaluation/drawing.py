"""Images of given class rows, drawn through the engine without a pipeline."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from aim.config import SamplingParams
from aim.engine import Failed, Finished, Request
from aim.engine.backend import pick
from aim.images.write import to_bytes
from aim.models.prior import Prior
from aim.models.vq.model import VQ


def balanced_rows(count: int, num_classes: int) -> list[int]:
    """``count`` class rows, every class as often as any other give or take one."""
    return [
        i * num_classes // count if count < num_classes else i % num_classes for i in range(count)
    ]


def sample_codes(
    model: Prior, rows: Sequence[int], params: SamplingParams, seed: int = 0, batch: int = 256
) -> Tensor:
    """Codes (N, T) for class rows (N,), image i drawn with seed ``seed + i``, through the
    engine.
    """
    engine = pick(model).engine(max_requests=batch, max_waiting=len(rows))
    requests = [Request(row, params, seed + i) for i, row in enumerate(rows)]
    place = {request.id: i for i, request in enumerate(requests)}
    codes = torch.empty(len(rows), model.config.num_tokens, dtype=torch.long)
    for event in engine.run(requests):
        if isinstance(event, Finished):
            codes[place[event.request_id]] = torch.from_numpy(event.codes).long()
        elif isinstance(event, Failed):
            raise event.error
    return codes


@torch.inference_mode()
def sample_images(
    model: Prior,
    tokenizer: VQ,
    rows: Sequence[int],
    params: SamplingParams,
    seed: int = 0,
    batch: int = 256,
) -> Tensor:
    """Images (N, 3, H, W) uint8 for class rows (N,)."""
    codes = sample_codes(model, rows, params, seed, batch).to(model.device)
    images = torch.cat([tokenizer.decode(part) for part in codes.split(batch)])
    return to_bytes(images)
