"""What can be said about a code that was drawn: how likely it was, and what else was."""

from __future__ import annotations

import torch
from torch import Tensor

from aim.ops.draw import pieces

# drawn where the logits are not finite, so that nobody has to ask the device at every step
BROKEN = -1
NOTES = 13
LIKELIEST = 5
LOWEST = torch.finfo(torch.float32).min


def explain(cond: Tensor, uncond: Tensor, guided: Tensor, codes: Tensor) -> Tensor:
    """What can be said about drawn codes: logits (K, V) three times, codes (K,) int64 -> notes (K,
    13) float32.

    0 log-probability of the code, 1 entropy, 2 KL(conditional || unconditional), 3-7 the largest
    log-probabilities, descending, 8-12 their codes, of equal ones the lower first (-1 where fewer
    than five codes are possible). In nats; of the guided distribution at temperature 1 before
    truncation, but KL of the unguided two. All NaN where the code is BROKEN.
    """
    likely, p = _normalised(guided)
    notes = likely.new_empty(len(codes), NOTES)
    notes[:, 0] = likely.gather(1, codes.clamp(min=0).unsqueeze(1)).squeeze(1)
    notes[:, 1] = -_total(p.mul_(likely))
    (left, p), (right, _) = _normalised(cond.float()), _normalised(uncond.float())
    notes[:, 2] = _total(p.mul_(left - right)).clamp_(min=0)  # rounding goes below
    for i in range(3, 3 + LIKELIEST):
        best = likely.argmax(-1, keepdim=True)
        value = likely.gather(1, best)
        possible = value > LOWEST
        notes[:, i, None] = torch.where(possible, value, -torch.inf)
        notes[:, i + LIKELIEST, None] = torch.where(possible, best, -1).float()
        likely.scatter_(1, best, LOWEST)
    return notes.masked_fill_((codes == BROKEN).unsqueeze(1), torch.nan)


def _normalised(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities and probabilities, (K, V) each; what has no probability is at LOWEST, so
    that products are finite.
    """
    likely = logits - logits.amax(-1, keepdim=True)
    p = likely.clone()
    for piece in pieces(p):
        piece.exp_()
    mass = _total(p).unsqueeze(1)
    return likely.sub_(mass.log()).clamp_(min=LOWEST), p.div_(mass)


def _total(values: Tensor) -> Tensor:
    """Sum of each row (K, V) -> (K,). A running sum adds in the same order in any batch, which
    ``sum`` does not promise.
    """
    return values.cumsum(-1)[:, -1]
