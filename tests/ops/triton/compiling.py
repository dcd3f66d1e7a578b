"""Run as a program, without ``TRITON_INTERPRET``: every kernel is launched as on a GPU, by Triton's
own launcher, and compiled for two generations of them, but not run.

Operands are in the CPU's memory and what comes out is never written, so that a step runs as fast as
its launches compile. Prints what was launched.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction, KernelInterface

from aim.ahead import Guesses
from aim.config import VQConfig
from aim.models.aim.gpu import GPUAiM
from aim.models.gpt.gpu import GPUGPT
from aim.models.vq.gpu import decode_vectors
from aim.models.vq.model import VQ
from aim.ops.triton import draw
from aim.ops.triton.conv import convolve
from aim.ops.triton.draw_ahead import draw_window_fused, read_window
from aim.ops.triton.scan import scan_mixing
from aim.sampling import Rows
from tests.tiny import random_gpt, random_model

SHARED = {80: 163 * 1024, 90: 227 * 1024}  # bytes that a program can have to itself
now = SimpleNamespace(capability=90)
seen: list[str] = []


def launch(kernel: JITFunction[Any], grid: tuple[int, ...]) -> Callable[..., None]:
    def run(*args: object, **options: object) -> None:
        made = kernel.run(*args, grid=grid, warmup=True, **options)
        assert all(0 < size < 65536 for size in grid[1:]) and grid[0] > 0, (kernel.__name__, grid)
        assert made.metadata.shared <= SHARED[now.capability], (kernel.__name__, made.metadata)
        seen.append(f"{kernel.__module__}.{kernel.__name__} sm_{now.capability}")

    return run


KernelInterface.__getitem__ = launch  # type: ignore[method-assign,assignment]
triton.runtime.driver.set_active(  # a device for each target: launchers are kept by device
    SimpleNamespace(
        get_current_device=lambda: now.capability,
        get_current_stream=lambda device: 0,
        get_current_target=lambda: GPUTarget("cuda", now.capability, 32),
    )
)
draw.overlaps = lambda device: now.capability >= 90

# rows of a step: each choice that ``decode.rows`` makes; 1 is a constant to the launcher
ROWS = {
    (90, torch.bfloat16): (1, 2, 8, 64, 144),
    (90, torch.float32): (144,),
    (80, torch.bfloat16): (2, 64, 144),
}
# and of passes of several items each
AHEAD = {
    (90, torch.bfloat16): ((1, 2), (2, 16), (32, 2)),
    (90, torch.float32): ((2, 4),),
    (80, torch.bfloat16): ((2, 16),),
}


def steps(dtype: torch.dtype) -> None:
    for prior, model in (
        (GPUAiM, random_model(d_model=128, headdim=64, d_state=128, num_tokens=128)),
        (GPUGPT, random_gpt(d_model=256, num_tokens=256)),
    ):
        fast = prior(model.to(dtype))
        fast._overlap = now.capability >= 90
        for rows in ROWS[now.capability, dtype]:
            codes = torch.zeros(rows, dtype=torch.int64)
            fast.step(codes, codes, fast.condition(codes), fast.new_state(rows))
        for rows, width in AHEAD[now.capability, dtype]:
            codes, guesses = torch.zeros(rows, dtype=torch.int64), torch.zeros(rows, width).long()
            state = fast.new_state(rows, width)
            fast.advance(guesses, codes, fast.condition(codes), state)
            fast.settle(codes, codes, state)


def draws(dtype: torch.dtype) -> None:
    rows = Rows.new(4, 256)
    draw.draw_fused(torch.zeros(4, 500, dtype=dtype), **vars(rows))
    guesses = Guesses.new(4, 16, 256, 500)
    for width in (2, 16):
        draw_window_fused(
            torch.zeros(4, width, 500),
            *read_window(rows.last, guesses.codes, rows.positions, 256, 4, width),
            guesses.codes,
            guesses.line,
            guesses.since,
            **vars(rows),
        )


def decodes(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    vq = VQ(VQConfig(codebook_size=64, z_channels=64, ch=32, ch_mult=(1, 1))).to(dtype).eval()
    decode_vectors(vq.decoder, vq.post_quant_conv, torch.zeros(1, 8, 16, 16))


def trains(dtype: torch.dtype) -> None:
    def leaf(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype, requires_grad=True)

    mixed = convolve(leaf(2, 70, 256, dtype=dtype), leaf(256, 4), leaf(256))
    x, B, C = mixed.split([128, 64, 64], -1)
    y = scan_mixing(x.unflatten(-1, (2, 64)), leaf(2, 70, 2), leaf(2), B, C, leaf(2))
    y.sum().backward()


if __name__ == "__main__":
    for now.capability, dtype in ROWS:
        for work in (steps, draws, decodes, trains):
            work(dtype)
    print(*sorted(set(seen)), sep="\n")
