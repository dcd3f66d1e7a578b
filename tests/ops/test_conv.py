"""The causal convolution: steps equal the sequence, and both equal the plain sum in float64."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from aim.ops.conv import causal_conv, conv_step


def inputs(rows: int, length: int, channels: int, taps: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows * 1000 + length)
    x = torch.randn(rows, length, channels, generator=generator)
    return (
        x,
        torch.randn(channels, taps, generator=generator),
        torch.randn(channels, generator=generator),
    )


def oracle(x: Tensor, weight: Tensor, bias: Tensor) -> np.ndarray:
    x, weight, bias = (t.double().numpy() for t in (x, weight, bias))
    taps = weight.shape[1]
    out = np.zeros(x.shape)
    for t in range(x.shape[1]):
        out[:, t] = bias
        for k in range(taps):
            if t - k >= 0:
                out[:, t] += x[:, t - k] * weight[:, taps - 1 - k]
    return out / (1 + np.exp(-out))


@pytest.mark.parametrize("taps", [1, 2, 4])
@pytest.mark.parametrize("rows, length, channels", [(1, 1, 1), (2, 3, 5), (1, 4, 8), (3, 11, 37)])
def test_sequence_and_steps_equal_the_plain_sum(rows: int, length: int, channels: int, taps: int):
    x, weight, bias = inputs(rows, length, channels, taps)
    want = oracle(x, weight, bias)
    got = causal_conv(x, weight, bias)
    assert got.shape == x.shape
    assert np.abs(got.double().numpy() - want).max() < 1e-5
    past = torch.zeros(rows, taps - 1, channels)
    for t in range(length):
        step = conv_step(x[:, t], past, weight, bias)
        assert np.abs(step.double().numpy() - want[:, t]).max() < 1e-5
        past = torch.cat([past, x[:, t : t + 1]], 1)[:, 1:]


def test_equals_torchs_convolution():
    x, weight, bias = inputs(2, 9, 6, 4)
    want = F.silu(
        F.conv1d(x.transpose(1, 2), weight.unsqueeze(1), bias, padding=3, groups=6)[
            ..., :9
        ].transpose(1, 2)
    )
    torch.testing.assert_close(causal_conv(x, weight, bias), want)


def test_the_future_does_not_matter():
    x, weight, bias = inputs(1, 10, 4, 4)
    changed = x.clone()
    changed[:, 6:] = 100
    assert torch.equal(
        causal_conv(x, weight, bias)[:, :6], causal_conv(changed, weight, bias)[:, :6]
    )


def test_dtype_of_the_input_and_arguments_left_alone():
    x, weight, bias = inputs(2, 5, 3, 4)
    past = x[:, :3].clone()
    assert causal_conv(x.bfloat16(), weight.bfloat16(), bias.bfloat16()).dtype == torch.bfloat16
    assert (
        conv_step(x[:, 3].bfloat16(), past.bfloat16(), weight.bfloat16(), bias.bfloat16()).dtype
        == torch.bfloat16
    )
    conv_step(x[:, 3], past, weight, bias)
    assert torch.equal(past, x[:, :3])
