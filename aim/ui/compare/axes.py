"""Values to begin with for every setting that a sweep may vary."""

from __future__ import annotations

from aim.compare import AXES
from aim.config import SAMPLING
from aim.parameters import Parameter
from aim.pipeline import Pipeline

_TELLING = {  # where a setting shows what it does, which is seldom evenly over its range
    "cfg_scale": "1, 2, 4, 8",
    "temperature": "0.6, 0.8, 1",
    "top_k": "10, 100, 1000, 0",
    "top_p": "0.5, 0.8, 0.95, 1",
    "min_p": "0, 0.05, 0.2",
    "seed": "0, 1, 2, 3",
}
_CLASSES = 4


def examples(pipe: Pipeline) -> dict[str, str]:
    """By a setting's name, values with commas between them that ``pipe`` can draw."""
    own = {p.name: _spread(p) for p in SAMPLING}
    step = max(1, len(pipe.classes) // _CLASSES)
    some = ", ".join(map(str, pipe.classes[::step][:_CLASSES]))
    return {name: {**own, **_TELLING, "class": some}[name] for name in AXES}


def _spread(p: Parameter) -> str:
    if p.choices:
        return ", ".join(p.choices)
    least, most, _ = p.slider or (p.low, p.high, 0)
    values = [least + (most - least) * share for share in (0, 1 / 3, 2 / 3, 1)]
    return ", ".join(f"{round(value) if p.whole else round(value, 2):g}" for value in values)
