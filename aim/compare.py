"""Pictures to compare: a grid over two settings with one seed, and the way from one class to
another.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from aim.checkpoint.tensors import blank
from aim.checks import whole
from aim.config import SAMPLING, SamplingParams, check_seed
from aim.engine import Request
from aim.errors import InvalidInput
from aim.images import write
from aim.models.prior import build
from aim.pipeline import Pipeline

AXES = {**{p.name: p.title for p in SAMPLING}, "seed": "seed", "class": "class"}
KINDS: dict[str, type] = {**{p.name: p.kind for p in SAMPLING}, "seed": int, "class": str}
MOST = 8  # values an axis, and steps of a way


@dataclass(frozen=True)
class Axis:
    """A setting, one of AXES, and the values it takes; classes by index or name."""

    name: str
    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if self.name not in AXES:
            raise InvalidInput(
                f"there is no setting {self.name!r} to vary; take one of {', '.join(AXES)}"
            )
        if not 1 <= len(self.values) <= MOST:
            raise InvalidInput(f"{self.name} has {len(self.values)} values; give 1 to {MOST}")

    @classmethod
    def parse(cls, name: str, text: str) -> Axis:
        """From values with commas between them: "1, 2, 4". InvalidInput for what is no number where
        one is needed.
        """
        parts = [part.strip() for part in text.split(",") if part.strip()]
        kind = KINDS.get(name, str)
        try:
            values = tuple(map(kind, parts))
        except ValueError:
            wanted = "whole numbers" if kind is int else "numbers"
            raise InvalidInput(
                f"values of {name} are {text[:80]!r}; they must be {wanted} with commas between them"
            ) from None
        return cls(name, values)


def sweep(
    pipe: Pipeline,
    across: Axis,
    down: Axis,
    label: int | str,
    seed: int = 0,
    params: SamplingParams | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Image.Image:
    """One labelled picture of every combination of two settings, drawn together; the rest is the
    same in all.

    InvalidInput for one setting twice and for values that will not do; other errors as of
    ``Pipeline.generate``.
    """
    if across.name == down.name:
        raise InvalidInput(f"both axes are {across.name}; choose two settings")
    requests = []
    for second in down.values:
        for first in across.values:
            settings: dict[str, Any] = {across.name: first, down.name: second}
            row = pipe.row(pipe.resolve(settings.pop("class", label)))
            own_seed = check_seed(settings.pop("seed", seed))
            requests.append(
                Request(
                    row,
                    (params or pipe.sampling).replace(**settings),
                    own_seed,
                    16 if progress else 0,
                )
            )
    images = pipe.pictures(pipe.draw_all(requests, progress))
    return write.labelled_grid(images, _titles(pipe, across), _titles(pipe, down))


def _titles(pipe: Pipeline, axis: Axis) -> list[str]:
    if axis.name == "class":
        return [pipe.labels.name(pipe.resolve(value)) for value in axis.values]
    return [
        f"{AXES[axis.name]} {format(value, 'g') if isinstance(value, float) else value}"
        for value in axis.values
    ]


def blended(
    pipe: Pipeline, first: int | str, second: int | str, shares: Sequence[float]
) -> Pipeline:
    """A pipeline whose classes lie between two of ``pipe``'s: class i has ``shares[i]`` of the
    second, in the table of class vectors.

    Its weights and its tokenizer are those of ``pipe``, in the same memory. Close it when it is not
    needed any more.
    """
    if not 1 <= len(shares) <= MOST or not all(0 <= share <= 1 for share in shares):
        raise InvalidInput(f"shares are {list(shares)}; give 1 to {MOST} numbers in [0, 1]")
    ends = [pipe.resolve(label) for label in (first, second)]
    weights = pipe.model.state_dict()
    [table] = [name for name in weights if name.endswith("embedding_table.weight")]
    rows = weights[table]
    a, b = (rows[pipe.row(end)].float() for end in ends)
    between = torch.stack([a + share * (b - a) for share in shares]).to(rows.dtype)
    one, other = (pipe.labels.name(end) for end in ends)
    names = tuple(f"{100 * (1 - share):.0f}% {one}, {100 * share:.0f}% {other}" for share in shares)
    config = dataclasses.replace(
        pipe.model.config, num_classes=len(shares), classes=(), class_names=names
    )
    model = blank(lambda: build(config), pipe.dtype)
    model.load_state_dict({**weights, table: torch.cat([between, rows[-1:]])}, assign=True)
    backend = "eager" if pipe.backend == "eager" else "auto"
    return Pipeline(
        model.eval().requires_grad_(False), pipe.tokenizer, pipe.name, pipe.version, backend
    )


def blend(
    pipe: Pipeline,
    first: int | str,
    second: int | str,
    steps: int = 5,
    seed: int = 0,
    params: SamplingParams | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Image.Image:
    """One labelled picture of the way from one class to another in ``steps`` pictures with one
    seed, both ends included.

    InvalidInput for steps outside [2, 8]; other errors as of ``Pipeline.generate``.
    """
    steps = whole("steps", steps, 2, MOST)
    check_seed(seed)
    shares = [i / (steps - 1) for i in range(steps)]
    between = blended(pipe, first, second, shares)
    try:
        requests = [
            Request(row, params or pipe.sampling, seed, 16 if progress else 0)
            for row in range(steps)
        ]
        images = list(pipe.pictures(between.draw_all(requests, progress)))
    finally:
        between.close()
    ends = [pipe.labels.name(pipe.resolve(label)) for label in (first, second)]
    titles = [
        ends[0],
        *(f"{100 * (1 - share):.0f}% / {100 * share:.0f}%" for share in shares[1:-1]),
        ends[1],
    ]
    return write.labelled_grid(images, titles, [])


def parameters(pipe: Pipeline, kind: str, **settings: Any) -> dict[str, Any]:
    """What a PNG of a comparison carries."""
    about = pipe.parameters(pipe.classes[0], 0, pipe.sampling)
    kept = {name: about[name] for name in ("model", "version", "device", "dtype", "package")}
    return {"kind": kind, **settings, **kept}
