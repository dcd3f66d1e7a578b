"""Codes drawn before ``min_p`` and the schedule of guidance were there: what changes nothing must
leave them alone.
"""

import math

import torch
from torch import Tensor

from aim.config import SamplingParams
from aim.ops.draw import uniform
from aim.sampling import Rows

VOCABULARY = 300
PARAMS = [
    SamplingParams(cfg_scale, temperature, top_k, top_p)
    for cfg_scale in (0.0, 1.0, 2.5, 4.0)
    for temperature, top_k, top_p in (
        (1.0, 0, 1.0),
        (0.7, 40, 1.0),
        (1.3, 0, 0.9),
        (1.0, 2**31 - 1, 0.5),
        (0.0, 3, 0.5),
        (0.9, 7, 0.8),
    )
]
CODES = [  # of each of PARAMS
    [189, 151, 270, 97, 112],
    [226, 177, 165, 166, 47],
    [271, 230, 214, 10, 85],
    [5, 195, 31, 255, 178],
    [235, 96, 223, 249, 173],
    [234, 40, 0, 90, 71],
    [79, 282, 159, 167, 265],
    [190, 8, 231, 149, 161],
    [269, 36, 1, 71, 294],
    [96, 106, 124, 287, 261],
    [191, 14, 271, 254, 106],
    [104, 179, 83, 157, 175],
    [223, 233, 96, 146, 292],
    [59, 18, 272, 277, 59],
    [211, 101, 4, 96, 213],
    [47, 57, 142, 100, 253],
    [250, 117, 252, 49, 169],
    [27, 8, 107, 78, 94],
    [136, 209, 166, 244, 23],
    [290, 31, 282, 5, 79],
    [168, 274, 21, 112, 126],
    [42, 77, 297, 188, 234],
    [168, 90, 71, 38, 57],
    [12, 150, 12, 25, 219],
]

# logits, min_p, other parameters, the codes that are kept
MIN_P = [
    ([0.0, math.log(0.5), math.log(0.25)], 0.4, {}, {0, 1}),
    ([0.0, math.log(0.5), math.log(0.25)], 0.2, {}, {0, 1, 2}),
    ([0.0, math.log(0.5), math.log(0.25)], 1.0, {}, {0}),
    ([1.0, 1.0, 0.0, 1.0], 1.0, {}, {0, 1, 3}),  # ties stay together
    ([0.0, -2.0, -4.0], math.exp(-1.5), {"temperature": 2.0}, {0, 1}),  # after the temperature
    ([0.0, -1.0, -2.0, -3.0], math.exp(-2.5), {"top_k": 2}, {0, 1}),
    ([0.0, -1.0, -2.0, -3.0], math.exp(-1.5), {"top_k": 3}, {0, 1}),
    # of masses above 0, 0.5, 0.75, 0.875: top-p counts what min-p leaves out, too
    ([0.0, math.log(0.5), math.log(0.25), math.log(0.25)], 0.4, {"top_p": 0.6}, {0, 1}),
    ([0.0, math.log(0.5), math.log(0.25), math.log(0.25)], 0.2, {"top_p": 0.6}, {0, 1}),
]


def golden_draws() -> tuple[Rows, list[Tensor], list[list[int]]]:
    """Rows at position 0, the logits (R, V) of each position, and what is to be drawn in the first
    rows.
    """
    count, steps = len(PARAMS), len(CODES[0])
    rows = Rows.new(2 * count, steps)
    for i, params in enumerate(PARAMS):
        rows.partner[i] = i if params.cfg_scale == 1 else count + i
        rows.positions[[i, int(rows.partner[i])]] = 0
        rows.params[:, i] = torch.tensor(params.numbers)
        rows.seed[i] = 977 * i
    seeds = torch.arange(2 * count) * 31 + 7
    logits = [
        (uniform(seeds, torch.full_like(seeds, step), VOCABULARY) - 0.5) * 16
        for step in range(steps)
    ]
    return rows, logits, CODES
