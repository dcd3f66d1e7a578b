"""Pictures to compare: a grid over two settings with one seed, and the way from one class to
another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from aim.checks import quoted, whole
from aim.config import SAMPLING, SamplingParams
from aim.engine import Request
from aim.errors import InvalidInput
from aim.images import write
from aim.pipeline import Pipeline

AXES = {**{p.name: p.title for p in SAMPLING}, "seed": "seed", "class": "class"}
KINDS: dict[str, type] = {**{p.name: p.kind for p in SAMPLING}, "seed": int, "class": str}
MOST = 8  # values an axis, and steps of a way
PREVIEW_EVERY = 16  # codes between two counts
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Axis:
    """A setting, one of AXES, and the values it takes; classes by index or name."""

    name: str
    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if self.name not in AXES:
            raise InvalidInput(
                f"there is no setting {quoted(self.name)} to vary; take one of {', '.join(AXES)}"
            )
        if not 1 <= len(self.values) <= MOST:
            raise InvalidInput(f"{self.name} has {len(self.values)} values; give 1 to {MOST}")

    @classmethod
    def parse(cls, name: str, text: str) -> Axis:
        """From values with commas between them: "1, 2, 4". InvalidInput for what is no number where
        one is needed.
        """
        if not isinstance(name, str) or not isinstance(text, str):
            raise InvalidInput(
                f"{quoted(name)} with the values {quoted(text)} is no setting with values; give "
                'its name and a text such as "1, 2, 4"'
            )
        parts = [part.strip() for part in text.split(",") if part.strip()]
        kind = KINDS.get(name, str)
        try:
            values = tuple(map(kind, parts))
        except ValueError:
            wanted = "whole numbers" if kind is int else "numbers"
            raise InvalidInput(
                f"values of {name} are {quoted(text)}; they must be {wanted} with commas between "
                "them"
            ) from None
        return cls(name, values)


@dataclass(frozen=True)
class Comparison:
    """Pictures to be drawn together, and the titles over and beside them."""

    requests: tuple[Request, ...]
    across: list[str]
    down: list[str]

    def grid(self, images: Sequence[Image.Image]) -> Image.Image:
        """One labelled picture of all, in the order of the requests."""
        return write.labelled_grid(images, self.across, self.down)

    def draw(self, pipe: Pipeline, progress: Progress | None = None) -> Image.Image:
        """The labelled picture, drawn; errors as of ``Pipeline.generate``."""
        return self.grid(pipe.pictures(pipe.draw_all(self.requests, progress)))


def sweep(
    pipe: Pipeline,
    across: Axis,
    down: Axis,
    label: int | str,
    seed: int = 0,
    params: SamplingParams | None = None,
) -> Comparison:
    """Every combination of two settings; the rest is the same in all.

    InvalidInput for one setting twice and for values that will not do.
    """
    if across.name == down.name:
        raise InvalidInput(f"both axes are {across.name}; choose two settings")
    requests = []
    for second in down.values:
        for first in across.values:
            settings: dict[str, Any] = {across.name: first, down.name: second}
            row = pipe.row(pipe.resolve(settings.pop("class", label)))
            own_seed = settings.pop("seed", seed)
            own_params = (params or pipe.sampling).replace(**settings)
            requests.append(Request(row, own_params, own_seed, PREVIEW_EVERY))
    return Comparison(tuple(requests), _titles(pipe, across), _titles(pipe, down))


def _titles(pipe: Pipeline, axis: Axis) -> list[str]:
    if axis.name == "class":
        return [pipe.title(pipe.resolve(value)) for value in axis.values]
    return [
        f"{AXES[axis.name]} {format(value, 'g') if isinstance(value, float) else value}"
        for value in axis.values
    ]


def blend(
    pipe: Pipeline,
    first: int | str,
    second: int | str,
    steps: int = 5,
    seed: int = 0,
    params: SamplingParams | None = None,
) -> Comparison:
    """The way from one class to another in ``steps`` pictures with one seed, both ends included:
    the vectors that stand for the classes are mixed.

    InvalidInput for steps outside [2, 8] and for classes that the model does not know.
    """
    steps = whole("steps", steps, 2, MOST)
    ends = [pipe.resolve(label) for label in (first, second)]
    a, b = (pipe.row(end) for end in ends)
    shares = [i / (steps - 1) for i in range(steps)]
    requests = tuple(
        Request([(a, 1 - share), (b, share)], params or pipe.sampling, seed, PREVIEW_EVERY)
        for share in shares
    )
    between = [f"{100 * (1 - share):.0f}% / {100 * share:.0f}%" for share in shares[1:-1]]
    one, other = map(pipe.title, ends)
    return Comparison(requests, [one, *between, other], [])


def parameters(pipe: Pipeline, kind: str, **settings: Any) -> dict[str, Any]:
    """What a PNG of a comparison carries."""
    about = pipe.parameters(pipe.classes[0], 0, pipe.sampling)
    kept = {name: about[name] for name in ("model", "version", "device", "dtype", "package")}
    return {"kind": kind, **settings, **kept}
