"""How the pull of guidance grows over a picture: the weight of each position, by a schedule's name.

At position t of T codes a weight w(t) makes guidance ``1 + (cfg_scale - 1) * w(t)``, so that 1 is
all of it and 0 none::

    constant  w = 1
    linear    w = t / (T - 1)                      as Muse and MAR (arXiv 2301.00704, 2406.11838)
    cosine    w = (1 - cos(pi * t / (T - 1))) / 2  as RAR, power 1 (arXiv 2411.00776)

``cfg_from`` and ``cfg_to``, shares of the codes, say where guidance is on at all: w = 0 unless
cfg_from * T <= t < cfg_to * T (an interval, as in arXiv 2404.07724).
"""

from __future__ import annotations

import math
from collections.abc import Callable

SCHEDULES: dict[str, Callable[[float], float]] = {  # of the share t / (T - 1) that lies behind
    "constant": lambda share: 1.0,
    "linear": lambda share: share,
    "cosine": lambda share: (1 - math.cos(math.pi * share)) / 2,
}


def weights(tokens: int) -> list[list[float]]:
    """Of each of SCHEDULES, in their order, the weight at each of ``tokens`` positions."""
    shares = [t / max(tokens - 1, 1) for t in range(tokens)]
    return [[weight(share) for share in shares] for weight in SCHEDULES.values()]
