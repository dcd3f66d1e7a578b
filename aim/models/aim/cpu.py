"""AiM's decoding step prepared for a CPU: the same interface and the same results as ``AiM``, in
fewer and faster calls.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from aim.errors import InvalidInput
from aim.models.aim.layer import Layer
from aim.models.aim.model import AiM
from aim.models.aim.state import MambaState
from aim.models.aim.step_weights import gained_condition, mix_weights, norm_weights
from aim.models.pool import window_items
from aim.models.traffic import FLOAT32, Traffic, aim_traffic
from aim.ops.activation import silu, softplus
from aim.ops.linear import Product, fixed_product
from aim.ops.scan import state_step
from aim.ops.window import MixWeights


class _Mixer(NamedTuple):
    """A mixer's weights as a step wants them."""

    into: Product  # to z, x, B, C, dt
    small: MixWeights  # its norm's weight times what ``_lengths`` leaves out
    out: Product


class CPUAiM:
    """``AiM.condition``, ``new_state``, ``prefill`` and ``step`` of ``model`` on a CPU; its weights
    must not change any more.

    It holds a second copy of the matrices, packed as ``ops.linear`` wants them.
    """

    def __init__(self, model: AiM) -> None:
        if model.device.type != "cpu":
            raise InvalidInput(f"the model is on {model.device}; CPUAiM is for a CPU")
        self.model, self.config = model, model.config
        self.device, self.dtype = model.device, model.dtype
        self.class_table, self.prefill = model.class_table, model.prefill
        self._layers = cast(list[Layer], list(model.layers))
        with torch.no_grad():
            self._mixers = [_prepare(layer, self.config.d_inner**0.5) for layer in self._layers]
            self._norms = norm_weights(model)
            self._head = fixed_product(model.embeddings.word_embeddings.weight)

    def condition(self, labels: Tensor) -> Tensor:
        """Everything that depends on the class alone: labels (R,) or class embeddings (R, D) -> (R,
        3 + 3 n_layer, D) float32.

        As ``AiM.condition``, with the weight of the norm before it times (1 + scale), times the
        root of D, in place of each scale.
        """
        return gained_condition(self.model, labels, self._norms * self.config.d_model**0.5)

    def new_state(self, slots: int, window: int = 1) -> MambaState:
        """A zero state for ``slots`` rows, all of it float32: a step then converts the projection
        once.
        """
        state, c = self.model.new_state(slots), self.config
        # of an item: what is convolved, dt x, B, and what the state is multiplied by
        item = c.conv_dim + c.d_inner + c.d_state + c.nheads
        read = torch.zeros(c.n_layer, slots, window, item)
        return MambaState(state.conv.float(), state.ssm.float(), read)

    def traffic(self, rows: int) -> Traffic:
        """Bytes that a step of ``rows`` rows has to move."""
        return aim_traffic(self.config, rows, self.dtype.itemsize, FLOAT32)

    def step(self, codes: Tensor, positions: Tensor, cond: Tensor, state: MambaState) -> Tensor:
        """As ``AiM.step``: codes (R,), positions (R,), cond and state pooled by slot -> logits (R,
        V) float32.
        """
        c, count = self.config, codes.shape[0]
        rows, parts = state.rows(count), cond[:count].unbind(1)  # (R, D) each
        lowest = int(positions.min())  # most steps have neither a new nor an idle row
        if lowest <= 0:
            rows.clear(positions == 0)
        idle = positions < 0 if lowest < 0 else None
        padded = _padded(self._items(codes, positions, parts[0], lowest), c.norm_eps)
        residual, gated = padded[:, :-1], _padded(padded.new_empty(count, c.d_inner), c.norm_eps)
        for i, (mixer, conv, ssm) in enumerate(
            zip(self._mixers, rows.conv.unbind(), rows.ssm.unbind(), strict=True)
        ):
            shift, gain, gate = parts[3 + 3 * i : 6 + 3 * i]
            residual.addcmul_(
                gate,
                self._mix(mixer, _modulate(padded, shift, gain), conv, ssm, idle, gated).float(),
            )
        return self._logits(residual, parts[1], parts[2])

    def advance(
        self, guesses: Tensor, positions: Tensor, cond: Tensor, state: MambaState
    ) -> Tensor:
        """As ``AiM.advance``: guesses (R, W), positions (R,) -> logits (R, W, V) float32."""
        c, (count, width) = self.config, guesses.shape
        rows, parts = state.rows(count), cond[:count].unsqueeze(2).unbind(1)  # (R, 1, D) each
        at, off = window_items(positions, width, c.num_tokens)
        lowest = int(positions.min())
        if lowest <= 0:
            rows.clear(positions == 0)
        idle = off if bool(off.any()) else None
        padded = _padded(self._items(guesses, at, parts[0], lowest), c.norm_eps)
        residual = padded[..., :-1]
        gated = _padded(residual.new_empty(count, width, c.d_inner), c.norm_eps)
        ahead = torch.empty_like(rows.ssm[0])
        for i, (mixer, conv, ssm) in enumerate(
            zip(self._mixers, rows.conv.unbind(), rows.ssm.unbind(), strict=True)
        ):
            shift, gain, gate = parts[3 + 3 * i : 6 + 3 * i]
            read = state.read[i, :count, :width]
            x = _modulate(padded, shift, gain)
            mixed = self._mix_window(mixer, x, conv, ssm, idle, gated, read, ahead)
            residual.addcmul_(gate, mixed.float())
        return self._logits(residual, parts[1], parts[2])

    def settle(self, counts: Tensor, positions: Tensor, state: MambaState) -> None:
        """As ``AiM.settle``: keep the first ``counts (R,)`` items that ``advance`` has read."""
        c, kept = self.config, counts.tolist()
        rows, past = state.rows(len(kept)), c.d_conv - 1
        raw, dtx, B, decay = state.read[:, : len(kept)].split(
            [c.conv_dim, c.d_inner, c.d_state, c.nheads], -1
        )
        items = torch.cat([rows.conv, raw], 2)
        at = counts.unsqueeze(1) + torch.arange(past)
        rows.conv.copy_(items[:, torch.arange(len(kept)).unsqueeze(1), at])
        for ssm, *parts in zip(rows.ssm, dtx, B, decay, strict=True):  # of a layer
            for row, count in enumerate(kept):
                one = ssm[row]  # (H, P, N)
                for i in range(1, count):
                    x, b, share = (part[row, i] for part in parts)
                    one.mul_(share[:, None, None])
                    one.view(c.d_inner, -1).addcmul_(x.unsqueeze(1), b.unsqueeze(0))

    def _items(self, codes: Tensor, positions: Tensor, start: Tensor, lowest: int) -> Tensor:
        """As ``AiM._items``, where ``lowest`` is the least of ``positions``."""
        c, embeddings = self.config, self.model.embeddings
        word = embeddings.word_embeddings(codes.clamp(0, c.vocab_size - 1)).float()
        at = (positions - 1 + c.position_offset).clamp_(0, c.num_tokens)
        items = word.add_(embeddings.position_embeddings(at))
        return items if lowest > 0 else torch.where((positions == 0).unsqueeze(-1), start, items)

    def _mix_window(
        self,
        mixer: _Mixer,
        x: Tensor,
        conv: Tensor,
        ssm: Tensor,
        idle: Tensor | None,
        gated: Tensor,
        read: Tensor,
        ahead: Tensor,
    ) -> Tensor:
        """``_mix`` of W items a row, (R, W, D), which leaves conv alone and takes ssm to the first
        of them; ``read`` (R, W, ...) is what ``settle`` wants, ``ahead`` has room for a state.
        """
        c, m = self.config, mixer.small
        inner, end, width = c.d_inner, c.d_inner + c.conv_dim, x.shape[1]
        projected = mixer.into(x.to(self.dtype).flatten(0, 1)).float().view(*x.shape[:2], -1)
        xbc = projected[..., inner:end]
        raw, dtx, keys, decay = read.split([c.conv_dim, inner, c.d_state, c.nheads], -1)
        raw.copy_(xbc)
        dt = softplus(projected[..., end:] + m.dt_bias)
        if idle is not None:
            dt.masked_fill_(idle.unsqueeze(2), 0.0)
        items = torch.cat([conv, xbc], 1)  # (R, K - 1 + W, conv_dim)
        for i in range(width):
            window = items[:, i : i + c.d_conv]
            torch.add((window * m.taps).sum(1), m.tap_bias, out=xbc[:, i])
        gate, heads, B, C = silu(projected[..., :end]).split(
            [inner, inner, c.d_state, c.d_state], -1
        )
        heads = heads.unflatten(-1, (c.nheads, c.headdim))
        keys.copy_(B)
        torch.mul(heads, dt.unsqueeze(-1), out=dtx.unflatten(-1, heads.shape[-2:]))
        torch.exp(dt * m.A, out=decay)
        for i in range(width):
            # the first is no guess: it is kept
            before, after = ahead if i > 1 else ssm, ahead if i else ssm
            y = state_step(before, heads[:, i], dt[:, i], m.A, B[:, i], C[:, i], m.D, after)
            torch.mul(y.flatten(-2), gate[:, i], out=gated[:, i, :-1])
        made = (gated[..., :-1] * m.norm).div_(_lengths(gated)).to(self.dtype)
        return mixer.out(made.flatten(0, 1)).view(*x.shape[:2], -1)

    def _mix(
        self,
        mixer: _Mixer,
        x: Tensor,
        conv: Tensor,
        ssm: Tensor,
        idle: Tensor | None,
        gated: Tensor,
    ) -> Tensor:
        """``Mamba2.step``; ``idle`` is None where no row is, ``gated`` (R, d_inner + 1) is written
        over but for its last column.
        """
        c, m = self.config, mixer.small
        inner, end = c.d_inner, c.d_inner + c.conv_dim
        projected = mixer.into(x.to(self.dtype)).float()  # (R, inner + conv_dim + H)
        xbc = projected[:, inner:end]
        window = torch.cat([conv, xbc.unsqueeze(1)], 1)  # (R, K, conv_dim)
        dt = softplus(projected[:, end:] + m.dt_bias)
        if idle is None:
            conv.copy_(window[:, 1:])
        else:
            conv.copy_(torch.where(idle[:, None, None], conv, window[:, 1:]))
            dt.masked_fill_(idle[:, None], 0.0)
        # in place: one silu for z and for what the convolution made
        torch.add((window * m.taps).sum(1), m.tap_bias, out=xbc)
        gate, heads, B, C = silu(projected[:, :end]).split([inner, inner, c.d_state, c.d_state], -1)
        y = state_step(ssm, heads.unflatten(-1, (c.nheads, c.headdim)), dt, m.A, B, C, m.D).flatten(
            -2
        )
        y = torch.mul(y, gate, out=gated[:, :-1])
        return mixer.out((y * m.norm).div_(_lengths(gated)).to(self.dtype))

    def _logits(self, residual: Tensor, shift: Tensor, gain: Tensor) -> Tensor:
        """residual (..., D) -> (..., V) float32."""
        x = _modulate(_padded(self.model.norm_f(residual), self.config.norm_eps), shift, gain)
        return self._head(x.to(self.dtype)).float()


def _padded(x: Tensor, eps: float) -> Tensor:
    """x (..., D) with one column more (..., D + 1), so that a row's length is the root of D
    (mean(x^2) + eps).
    """
    return F.pad(x, (0, 1), value=(x.shape[-1] * eps) ** 0.5)


def _lengths(padded: Tensor) -> Tensor:
    """What a norm divides by, times the root of D: (..., D + 1) -> (..., 1), in one call instead of
    four.
    """
    return torch.linalg.vector_norm(padded, dim=-1, keepdim=True)


def _modulate(padded: Tensor, shift: Tensor, gain: Tensor) -> Tensor:
    """The norm of x (..., D), which lies in padded (..., D + 1), times ``gain`` but for the root of
    D, plus ``shift``.
    """
    return torch.addcdiv(shift, padded[..., :-1] * gain, _lengths(padded))


def _prepare(layer: Layer, root: float) -> _Mixer:
    small = mix_weights(layer)
    return _Mixer(
        fixed_product(layer.mixer.in_proj.weight),
        small._replace(norm=small.norm * root),
        fixed_product(layer.mixer.out_proj.weight),
    )
