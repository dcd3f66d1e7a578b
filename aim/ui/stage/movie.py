"""A drawing as a film: the finished pictures, uncovered code by code on the page's paper."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from aim.images import write

SIZE = 512  # pixels each way
FRAMES = 32  # at least, one for every few codes
FPS, HOLD = 12.0, 2.0  # frames a second, and seconds that the last one is held
GAP = 6  # pixels between two pictures
PAPER, DOT = (233, 238, 240), (180, 193, 201)  # as in page.css


def frames(images: Sequence[Image.Image], grid: int) -> list[Image.Image]:
    """RGB images of one size -> frames of SIZE x SIZE pixels, the last one with all of them.

    All pictures grow at the same time, ``grid`` codes each way.
    """
    columns = math.isqrt(len(images) - 1) + 1
    side = (SIZE - GAP * (columns - 1)) // columns
    large = [np.asarray(write.enlarge(image, side)) for image in images]
    dots = _dots(side, grid)
    codes = grid * grid
    count = min(codes, max(FRAMES, grid * 2))
    made = []
    for k in range(1, count + 1):
        shown = _uncovered(side, grid, round(k * codes / count))
        frame = np.full((SIZE, SIZE, 3), PAPER, np.uint8)
        for i, picture in enumerate(large):
            top, left = (side + GAP) * (i // columns), (side + GAP) * (i % columns)
            frame[top : top + side, left : left + side] = np.where(shown, picture, dots)
        made.append(Image.fromarray(frame))
    return made


def _edges(side: int, grid: int) -> np.ndarray:
    """Of which line or column (side,) each pixel is."""
    return (np.arange(side) * grid // side).astype(np.int64)


def _uncovered(side: int, grid: int, codes: int) -> np.ndarray:
    """(side, side, 1) bool: pixels of the first ``codes`` codes."""
    at = _edges(side, grid)
    return (at[:, None] * grid + at[None, :] < codes)[..., None]


def _dots(side: int, grid: int) -> np.ndarray:
    """(side, side, 3) paper with a dot for each code."""
    at = (np.arange(side) * grid % side) / side - 0.5  # place within a code
    near = at[:, None] ** 2 + at[None, :] ** 2 < 0.07**2
    return np.where(near[..., None], np.array(DOT, np.uint8), np.array(PAPER, np.uint8))
