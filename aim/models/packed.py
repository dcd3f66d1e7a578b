"""AiM's decoding step prepared for a CPU: the same interface and the same results as ``AiM``, in fewer and faster calls."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor

from aim.errors import InvalidInput
from aim.models.aim import AiM, Layer
from aim.models.prepared import gained_condition, mix_weights, norm_weights
from aim.models.state import MambaState
from aim.ops.activation import silu, softplus
from aim.ops.decode.window import MixWeights
from aim.ops.linear import Product, fixed_product
from aim.ops.norm import root_mean_square
from aim.ops.scan import state_step


class _Mixer(NamedTuple):
    """A mixer's weights as a step wants them."""

    into: Product  # to z, x, B, C, dt
    small: MixWeights
    out: Product


class PackedAiM:
    """``AiM.condition``, ``new_state``, ``prefill`` and ``step`` of ``model`` on a CPU; its weights must not change any more.

    It holds a second copy of the matrices, packed as ``ops.linear`` wants them.
    """

    def __init__(self, model: AiM) -> None:
        if model.device.type != "cpu":
            raise InvalidInput(f"the model is on {model.device}; PackedAiM is for a CPU")
        self.model, self.config = model, model.config
        self.device, self.dtype = model.device, model.dtype
        self._layers = cast(list[Layer], list(model.layers))
        with torch.no_grad():
            self._mixers = [_prepare(layer) for layer in self._layers]
            self._norms = norm_weights(model)
            self._head = fixed_product(model.embeddings.word_embeddings.weight)

    def condition(self, labels: Tensor) -> Tensor:
        """Everything that depends on the class alone: labels (R,) or class embeddings (R, D) -> (R, 3 + 3 n_layer, D) float32.

        As ``AiM.condition``, with the weight of the norm before it times (1 + scale) in place of each scale.
        """
        return gained_condition(self.model, labels, self._norms)

    def new_state(self, slots: int) -> MambaState:
        """A zero state for ``slots`` rows, all of it float32: a step then converts the projection once."""
        return MambaState(*(part.float() for part in self.model.new_state(slots)))

    def prefill(self, codes: Tensor, cond: Tensor, state: MambaState, slots: Tensor) -> Tensor:
        """As ``AiM.prefill``: codes (R, K), cond and state pooled by slot, slots (R,) -> logits (R, K + 1, V) float32."""
        c = self.config
        if codes.shape[1] >= c.num_tokens:
            raise InvalidInput(f"prefill got {codes.shape[1]} codes; it must be fewer than num_tokens = {c.num_tokens}")
        cond, rows = cond[slots], state.gather(slots)
        residual = self.model._embed(codes, cond, c.position_offset)
        parts = cond.unsqueeze(2).unbind(1)  # (R, 1, D) each
        for i, layer in enumerate(self._layers):
            x = _modulate(residual, parts[3 + 3 * i], parts[4 + 3 * i], c.norm_eps)
            residual = residual + parts[5 + 3 * i] * layer.mixer(x, last=(rows.conv[i], rows.ssm[i]))
        state.scatter(slots, rows)
        return self._logits(residual, parts[1], parts[2])

    def step(self, codes: Tensor, positions: Tensor, cond: Tensor, state: MambaState, slots: Tensor | None = None) -> Tensor:
        """As ``AiM.step``: codes (R,), positions (R,), cond and state pooled by slot -> logits (R, V) float32."""
        c, count = self.config, codes.shape[0]
        rows = state.rows(count) if slots is None else state.gather(slots)
        parts = (cond[:count] if slots is None else cond[slots]).unbind(1)  # (R, D) each
        lowest = int(positions.min())  # most steps have neither a new nor an idle row
        embeddings = self.model.embeddings
        word = embeddings.word_embeddings(codes.clamp(0, c.vocab_size - 1)).float()
        at = (positions - 1 + c.position_offset).clamp_(0, c.num_tokens)
        residual = word.add_(embeddings.position_embeddings(at))
        if lowest <= 0:
            fresh = positions == 0
            rows.clear(fresh)
            residual = torch.where(fresh.unsqueeze(1), parts[0], residual)
        idle = positions < 0 if lowest < 0 else None
        for i, (mixer, conv, ssm) in enumerate(zip(self._mixers, rows.conv.unbind(), rows.ssm.unbind(), strict=True)):
            shift, gain, gate = parts[3 + 3 * i : 6 + 3 * i]
            x = _modulate(residual, shift, gain, c.norm_eps)
            residual = torch.addcmul(residual, gate, self._mix(mixer, x, conv, ssm, idle).float())
        if slots is not None:
            state.scatter(slots, rows)
        return self._logits(residual, parts[1], parts[2])

    def _mix(self, mixer: _Mixer, x: Tensor, conv: Tensor, ssm: Tensor, idle: Tensor | None) -> Tensor:
        """``Mamba2.step``; ``idle`` is None where no row is."""
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
        torch.add((window * m.taps).sum(1), m.tap_bias, out=xbc)  # in place: one silu for z and for what the convolution made
        gate, heads, B, C = silu(projected[:, :end]).split([inner, inner, c.d_state, c.d_state], -1)
        y = state_step(ssm, heads.unflatten(-1, (c.nheads, c.headdim)), dt, m.A, B, C, m.D).flatten(-2) * gate
        return mixer.out((y * m.norm).div_(root_mean_square(y, c.norm_eps)).to(self.dtype))

    def _logits(self, residual: Tensor, shift: Tensor, gain: Tensor) -> Tensor:
        """residual (..., D) -> (..., V) float32."""
        x = _modulate(self.model.norm_f(residual), shift, gain, self.config.norm_eps)
        return self._head(x.to(self.dtype)).float()


def _modulate(x: Tensor, shift: Tensor, gain: Tensor, eps: float) -> Tensor:
    """The norm of x (..., D) times ``gain``, plus ``shift``."""
    return torch.addcdiv(shift, x * gain, root_mean_square(x, eps))


def _prepare(layer: Layer) -> _Mixer:
    return _Mixer(fixed_product(layer.mixer.in_proj.weight), mix_weights(layer), fixed_product(layer.mixer.out_proj.weight))
