"""The tokenizer for inference on a GPU: the same modules, walked pixel by pixel through fused
kernels.

Activations are (B, h, w, C) contiguous, which is what cuDNN's fastest convolutions and
``ops.triton.group_norm`` read. Biases are left out of 3x3 convolutions, where they would cost a
pass of their own, and added in the next pass. ``VQ.features`` and ``VQ.decode_vectors`` have the
plain twins. Imports Triton.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aim.models.vq.blocks import AttnBlock, Decoder, Encoder, GroupNorm, Level, ResBlock
from aim.ops.triton.group_norm import Moments, group_norm, join, join_enlarged, moments

CHANNELS = 8  # of a convolution's output at the least, for tensor cores


class Pixels(NamedTuple):
    """Activations with their moments, for the norm that reads them."""

    x: Tensor  # (B, h, w, C)
    moments: Moments


def decode_vectors(decoder: Decoder, post_quant_conv: nn.Conv2d, vectors: Tensor) -> Tensor:
    """``VQ.decode_vectors``: code vectors (B, codebook_dim, h, w) -> images (B, 3, H, W)
    float32.
    """
    pixels = vectors.permute(0, 2, 3, 1).to(post_quant_conv.weight.dtype).contiguous()
    return _decoder(decoder, _linear(post_quant_conv, pixels)).permute(0, 3, 1, 2)


def features(encoder: Encoder, quant_conv: nn.Conv2d, images: Tensor) -> Tensor:
    """Images (B, 3, H, W) -> (B, codebook_dim, h, w), not yet of unit length."""
    x = images.permute(0, 2, 3, 1).to(quant_conv.weight.dtype).contiguous()
    at = Pixels(*join(_conv(encoder.conv_in, x), encoder.conv_in.bias))
    for level in encoder.conv_blocks:
        at = _level(cast(Level, level), at)
    for part in encoder.mid:
        at = Pixels(*join(*_branch(part, at)))
    last = encoder.conv_out
    h = _conv(last, _norm(encoder.norm_out, at, silu=True)) + cast(Tensor, last.bias)
    return _linear(quant_conv, h).permute(0, 3, 1, 2)


def _decoder(decoder: Decoder, x: Tensor) -> Tensor:
    at = Pixels(*join(_conv(decoder.conv_in, x), decoder.conv_in.bias))
    for part in decoder.mid:
        at = Pixels(*join(*_branch(part, at)))
    for level in decoder.conv_blocks:
        at = _level(cast(Level, level), at)
    h = _norm(decoder.norm_out, at, silu=True)
    last = decoder.conv_out
    weight = F.pad(last.weight, (0, 0) * 3 + (0, CHANNELS - last.out_channels)).contiguous(
        memory_format=torch.channels_last
    )
    return (
        _convolve(h, weight, last)[..., : last.out_channels].float()
        + cast(Tensor, last.bias).float()
    )


def _level(level: Level, at: Pixels) -> Pixels:
    parts = (
        [part for pair in zip(level.res, level.attn, strict=True) for part in pair]
        if len(level.attn)
        else list(level.res)
    )
    for part in parts[:-1]:
        at = Pixels(*join(*_branch(part, at)))
    if not level.resize:
        return Pixels(*join(*_branch(parts[-1], at)))
    conv = cast(nn.Conv2d, getattr(level, level.resize).conv)
    if level.resize == "upsample":
        x = join_enlarged(*_branch(parts[-1], at))
    else:
        x = F.pad(join(*_branch(parts[-1], at))[0], (0, 0, 0, 1, 0, 1))
    return Pixels(*join(_conv(conv, x), conv.bias))


def _branch(part: nn.Module, at: Pixels) -> tuple[Tensor, Tensor | None, Tensor]:
    """What a block adds, a bias that is still to be added, and what it is added to."""
    return _res(part, at) if isinstance(part, ResBlock) else _attention(cast(AttnBlock, part), at)


def _res(block: ResBlock, at: Pixels) -> tuple[Tensor, Tensor | None, Tensor]:
    h = _conv(block.conv1, _norm(block.norm1, at, silu=True))
    h = _norm(
        block.norm2, Pixels(h, moments(h, block.conv1.bias)), silu=True, bias=block.conv1.bias
    )
    return (
        _conv(block.conv2, h),
        block.conv2.bias,
        _linear(block.nin_shortcut, at.x) if block.changes else at.x,
    )


def _attention(block: AttnBlock, at: Pixels) -> tuple[Tensor, Tensor | None, Tensor]:
    h = _norm(block.norm, at, silu=False)
    # of shape (B, 1, h * w, C)
    q, k, v = (_linear(part, h).flatten(1, 2).unsqueeze(1) for part in (block.q, block.k, block.v))
    out = F.scaled_dot_product_attention(q, k, v).reshape(h.shape)
    return _linear(block.proj_out, out), None, at.x


def _norm(norm: GroupNorm, at: Pixels, silu: bool, bias: Tensor | None = None) -> Tensor:
    return group_norm(at.x, at.moments, norm.weight, norm.bias, norm.eps, silu, bias)


def _conv(conv: nn.Conv2d, x: Tensor) -> Tensor:
    return _convolve(x, conv.weight, conv)


def _convolve(x: Tensor, weight: Tensor, conv: nn.Conv2d) -> Tensor:
    """Without the bias."""
    y = F.conv2d(
        x.permute(0, 3, 1, 2), weight, None, conv.stride, cast(tuple[int, int], conv.padding)
    )
    return y.permute(0, 2, 3, 1).contiguous()


def _linear(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A 1x1 convolution with its bias."""
    return F.linear(x, conv.weight.flatten(1), conv.bias)
