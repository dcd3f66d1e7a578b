"""From logits to codes: guidance, temperature, top-k, top-p, min-p, the draw. Pure functions of
float32 tensors, one row a request.

A row's code depends on that row alone: the same logits, parameters, seed and position give the same
code in any batch. So there are no sums over rows, and no fused multiply-adds, whose rounding may
differ between the body and the tail of a loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aim.config import INDEX, NEUTRAL, SamplingParams
from aim.ops.draw import gumbel, pieces
from aim.ops.notes import BROKEN, NOTES, explain
from aim.ops.triton import TRITON
from aim.schedules import weights

__all__ = [
    "BROKEN",
    "NOTES",
    "RowParams",
    "Rows",
    "active",
    "draw_guided",
    "draw_rows",
    "explain",
    "guide",
    "pick",
    "sample",
]

TRUNCATION = ("top_k", "top_p", "min_p")


@dataclass
class Rows:
    """What ``draw_rows`` reads and writes: static buffers of a pool of S slots with T codes each,
    all on one device.

    A request owns its conditional row and, with guidance, an unconditional one; ``partner`` and the
    parameters are those of its conditional row. Requests of any age and any parameters share a
    batch.
    """

    positions: Tensor  # (S,) int64, the position whose code is drawn next, -1 where idle
    # (S,) int64, of a conditional row its unconditional one, itself without guidance; -1 on every
    # other row
    partner: Tensor
    params: Tensor  # (F, S) float32, a row for each of ``config.SAMPLING``
    weights: Tensor  # (C, T) float32, of guidance, by schedule and position
    seed: Tensor  # (S,) int64 in [0, 2^32)
    explain: Tensor  # (S,) bool, fill in ``notes``
    last: Tensor  # (S,) int64, the code drawn last
    drawn: Tensor  # (S, T) int64
    notes: Tensor  # (S, T, 13) float32, as ``explain`` has them

    @classmethod
    def new(cls, slots: int, tokens: int, device: torch.device | str = "cpu") -> Rows:
        """Buffers in which every row is idle."""

        def full(value: float, dtype: torch.dtype, *shape: int) -> Tensor:
            return torch.full((slots, *shape), value, dtype=dtype, device=device)

        i64, f32 = torch.int64, torch.float32
        return cls(
            positions=full(-1, i64),
            partner=full(-1, i64),
            params=torch.tensor(NEUTRAL.numbers, device=device).unsqueeze(1).repeat(1, slots),
            weights=torch.tensor(weights(tokens), device=device),
            seed=full(0, i64),
            explain=full(0, torch.bool),
            last=full(0, i64),
            drawn=full(0, i64, tokens),
            notes=full(0, f32, tokens, NOTES),
        )


@dataclass(frozen=True)
class RowParams:
    """Sampling parameters of K rows on the device, and what is known about all of them on the
    host.
    """

    values: Tensor  # (F, K) float32, a row for each of ``config.SAMPLING``
    weights: Tensor  # (C, T) float32, of guidance, by schedule and position
    seed: Tensor  # (K,) int64 in [0, 2^32)
    # those that change something in some row, so that ``sample`` can leave out the work of others;
    # all is always right
    active: frozenset[str] = frozenset(INDEX)

    @classmethod
    def of(
        cls,
        params: Sequence[SamplingParams],
        seeds: Sequence[int],
        tokens: int,
        device: torch.device | str = "cpu",
    ) -> RowParams:
        """Rows for these parameters and seeds, which pair up, of pictures of ``tokens`` codes."""
        pairs = list(zip(params, seeds, strict=True))
        values = torch.tensor([p.numbers for p, _ in pairs]).view(-1, len(INDEX)).T.contiguous()
        seed = torch.tensor([s for _, s in pairs], dtype=torch.int64)
        table = torch.tensor(weights(tokens), device=device)
        return cls(values.to(device), table, seed.to(device), active(values.numpy()))

    def __getitem__(self, name: str) -> Tensor:
        """Of one parameter (K,)."""
        return self.values[INDEX[name]]


def active(values: np.ndarray) -> frozenset[str]:
    """The parameters (F, K) that change something in some row."""
    changed = (values != np.array(NEUTRAL.numbers, np.float32)[:, None]).any(1)
    return frozenset(name for name, i in INDEX.items() if changed[i])


def guidance(params: RowParams, positions: Tensor) -> Tensor:
    """The scale in force at positions (K,) int64, as ``aim.schedules`` has it -> (K,) float32;
    exactly ``cfg_scale`` where its weight is 1.
    """
    tokens = params.weights.shape[1]
    at, schedule = positions.clamp(0, tokens - 1), params["cfg_schedule"].long()
    on = (at >= params["cfg_from"] * tokens) & (at < params["cfg_to"] * tokens)
    weight = torch.where(on, params.weights[schedule, at], 0.0)
    return params["cfg_scale"] * weight + (1 - weight)


def guide(cond: Tensor, uncond: Tensor, cfg_scale: Tensor) -> Tensor:
    """Classifier-free guidance ``uncond + (cond - uncond) * cfg_scale``: (K, V), (K, V), (K,) ->
    (K, V) float32.

    A code at -inf in either is at -inf, whatever the scale; +inf becomes the largest float, so that
    something can be drawn.
    """
    uncond = uncond.float()
    guided = (cond.float() - uncond).mul_(cfg_scale.unsqueeze(1)).add_(uncond)
    return guided.nan_to_num_(nan=-torch.inf, neginf=-torch.inf)


def sample(
    cond_logits: Tensor, uncond_logits: Tensor, params: RowParams, positions: Tensor
) -> Tensor:
    """Draw one code a row: logits (K, V) twice, positions (K,) int64 -> codes (K,) int64.

    A row without guidance passes the same logits as both. Temperature 0 takes the most likely code,
    of several the lowest. The draw is Gumbel-max: the argmax over kept codes of ``logit /
    temperature - log(E)``, E exponential noise.
    """
    return pick(guide(cond_logits, uncond_logits, guidance(params, positions)), params, positions)


def draw_rows(logits: Tensor, rows: Rows) -> None:
    """Draw the next code of every request whose rows are among the first R: logits (R, V) float32
    or bfloat16, of slots 0 ... R-1.

    For every row i < R with ``partner[i] >= 0`` this writes the code at ``drawn[i, positions[i]]``
    and to ``last`` of both rows, its ``notes`` where ``explain[i]``, and adds 1 to ``positions`` of
    both rows. The code is that of ``sample``, or BROKEN where a logit of either row, or the
    difference of the two, is not finite. A row whose position is outside [0, T) is left alone, as
    are those that belong to nobody. Away from the CPU nothing waits for the device, and a CUDA
    graph can hold the call.
    """
    if logits.device.type == "cpu":
        return _draw_live(logits, rows)
    if TRITON and logits.device.type == "cuda":
        from aim.ops.triton import draw as drawing

        if drawing.supports(logits):
            return drawing.draw_fused(logits, **vars(rows))
    return _draw_all(logits, rows)


def pick(logits: Tensor, params: RowParams, positions: Tensor) -> Tensor:
    """The draw from guided logits (K, V), which are overwritten -> (K,) int64."""
    logits.sub_(logits.amax(-1, keepdim=True))
    noise = gumbel(params.seed, positions, logits.shape[-1])
    if "temperature" in params.active:
        temperature = params["temperature"].unsqueeze(1)
        logits.div_(torch.where(temperature > 0, temperature, 1.0))
        noise.mul_(temperature > 0)
    if not params.active.isdisjoint(TRUNCATION):
        logits.masked_fill_(logits < _threshold(logits, params).unsqueeze(1), -torch.inf)
    return logits.add_(noise).argmax(-1)


def _threshold(logits: Tensor, params: RowParams) -> Tensor:
    """The smallest logit that top-k, then top-p, then min-p keep: logits (K, V) with maximum 0 ->
    (K,). Min-p keeps what has at least that share of the likeliest code's probability, so it looks
    at neither of the others (as transformers order them; vLLM lets top-p count what min-p kept).
    """
    codes = logits.shape[-1]
    top_k, top_p = params["top_k"], params["top_p"].unsqueeze(1)
    ordered = _descending(logits)
    last = torch.where(top_k > 0, top_k, codes).clamp(max=codes).long() - 1
    kth = ordered.gather(1, last.unsqueeze(1))  # fewer than top_k codes are greater than it
    weight = ordered.masked_fill(ordered < kth, -torch.inf)
    for piece in pieces(weight):
        piece.exp_()
    mass = weight.cumsum(-1)
    # the first place where the mass is enough
    reached = (mass < top_p * mass[:, -1:]).sum(-1, keepdim=True)
    nucleus = ordered.gather(1, reached.clamp(max=codes - 1))
    # rounding must not cut the tail of a row that keeps all
    nucleus = torch.where(top_p < 1, nucleus, -torch.inf)
    return torch.maximum(kth, nucleus).squeeze(1).maximum(params["min_p"])


def _descending(logits: Tensor) -> Tensor:
    """Values of each row in descending order."""
    # NumPy sorts with vector instructions: about thirty times as fast here
    if logits.device.type == "cpu":
        return torch.from_numpy(np.sort(logits.detach().neg().numpy(), axis=-1)).neg_()
    return logits.sort(-1, descending=True).values


def _draw_live(logits: Tensor, rows: Rows) -> None:
    """``draw_rows`` on a CPU, where looking at values costs nothing: the work of the requests there
    are, and no more.

    Indexing is NumPy's, which takes a quarter of the time for a few rows.
    """
    count = len(logits)
    partner, positions, last = (t.numpy() for t in (rows.partner, rows.positions, rows.last))
    one = np.flatnonzero(
        (partner[:count] >= 0)
        & (positions[:count] >= 0)
        & (positions[:count] < rows.drawn.shape[1])
    )
    if not len(one):
        return
    two, at = partner[one], positions[one]
    values, seed = rows.params.numpy()[:, one], rows.seed.numpy()[one]
    params = RowParams(
        torch.from_numpy(values), rows.weights, torch.from_numpy(seed), active(values)
    )
    told = rows.explain.numpy()[one]
    cond, uncond = (logits.index_select(0, torch.from_numpy(v)) for v in (one, two))
    codes, notes = _draw(cond, uncond, params, torch.from_numpy(at), bool(told.any()))

    last[one] = last[two] = rows.drawn.numpy()[one, at] = codes.numpy()
    if notes is not None:
        rows.notes.numpy()[one[told], at[told]] = notes.numpy()[told]
    positions[one], positions[two] = at + 1, positions[two] + 1


def _draw_all(logits: Tensor, rows: Rows) -> None:
    """``draw_rows`` without looking at values: draws for every row, and drops what belongs to
    nobody.
    """
    count = len(logits)
    itself = torch.arange(count, device=logits.device)
    partner, positions = rows.partner[:count], rows.positions[:count]
    live = (partner >= 0) & (positions >= 0) & (positions < rows.drawn.shape[1])
    two, at = torch.where(live, partner, itself), torch.where(live, positions, 0)
    params = RowParams(rows.params[:, :count], rows.weights, rows.seed[:count])
    codes, notes = _draw(logits, logits[two], params, at, True)

    rows.drawn[itself, at] = torch.where(live, codes, rows.drawn[itself, at])
    noted = (live & rows.explain[:count]).unsqueeze(1)
    rows.notes[itself, at] = torch.where(noted, notes, rows.notes[itself, at])  # type: ignore[arg-type]
    # 1 + the request's conditional row
    owner = torch.zeros_like(itself).scatter_add_(0, two, torch.where(live, itself + 1, 0))
    owner = torch.where(live, itself + 1, owner)
    rows.last[:count] = torch.where(owner > 0, codes[owner.sub(1).clamp_(min=0)], rows.last[:count])
    rows.positions[:count] += owner > 0


def _draw(
    cond: Tensor, uncond: Tensor, params: RowParams, at: Tensor, noted: bool
) -> tuple[Tensor, Tensor | None]:
    """Codes (K,) of logits (K, V) twice, and their notes (K, 13) if asked for."""
    codes, guided = draw_guided(cond, uncond, params, at, noted)
    return codes, explain(cond, uncond, guided, codes) if noted else None


def draw_guided(
    cond: Tensor, uncond: Tensor, params: RowParams, at: Tensor, keep: bool = True
) -> tuple[Tensor, Tensor]:
    """Codes (K,) of logits (K, V) twice, BROKEN ones included, and the guided logits (K, V), which
    mean nothing unless ``keep``.
    """
    guided = guide(cond, uncond, guidance(params, at))
    codes = pick(guided.clone() if keep else guided, params, at)
    # a NaN or an infinity in either survives
    apart = (cond.float() - uncond.float()).abs_().amax(-1)
    return torch.where(apart < torch.inf, codes, BROKEN), guided
