"""What a declared parameter is: which values it may have, which one changes nothing, what it is
called. ``config.SamplingParams`` declares those of sampling; command line, page, checks, API,
links, PNGs, captions, tables and the rows of a batch read that declaration.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, Self, TypeVar

from aim import checks
from aim.errors import InvalidInput

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Parameter:
    """A number within [low, high], or (low, high] with ``open_low``; ``whole`` or not. Or one of
    ``choices``.
    """

    title: str  # as in "guidance 4"
    help: str  # a few words
    neutral: Any  # the value that changes nothing
    low: float = 0.0
    high: float = 1.0
    open_low: bool = False
    whole: bool = False
    choices: tuple[str, ...] = ()
    # least, most and step of what is useful, which is not all that is allowed; None: no slider
    slider: tuple[float, float, float] | None = None
    captioned: bool = False  # told of a picture even where it changes nothing
    stored: Callable[[Any], float] = float  # of a value, the number that draws compute with
    name: str = ""

    @property
    def kind(self) -> type:
        """Of its values: str, int or float."""
        return str if self.choices else int if self.whole else float

    def check(self, value: Any) -> Any:
        """``value`` as one that is allowed; InvalidInput names it and what is."""
        if self.choices:
            if value not in self.choices:
                allowed = ", ".join(self.choices)
                raise InvalidInput(
                    f"{self.name} is {checks.quoted(value)}; it must be one of {allowed}"
                )
            return value
        if self.whole:
            return checks.whole(self.name, value, int(self.low), int(self.high))
        return checks.number(self.name, value, self.low, self.high, open_low=self.open_low)

    def number(self, value: Any) -> float:
        """What a row of a batch holds of a value; of a choice its index."""
        return float(self.choices.index(value)) if self.choices else self.stored(value)

    def describe(self, value: Any) -> str:
        """As in "guidance 4"."""
        return f"{self.title} {value if self.kind is not float else format(value, 'g')}"


def declare(default: Any, title: str, help: str, neutral: Any, **more: Any) -> Any:
    """The field of a dataclass, with what a ``Parameter`` says of it."""
    return field(default=default, metadata={"": Parameter(title, help, neutral, **more)})


@cache
def declared(kind: type) -> tuple[Parameter, ...]:
    """The parameters that a dataclass declares, in their order."""
    return tuple(dataclasses.replace(f.metadata[""], name=f.name) for f in dataclasses.fields(kind))


@dataclass(frozen=True)
class Declared:
    """What every frozen dataclass of parameters can do."""

    @property
    def _parameters(self) -> tuple[Parameter, ...]:
        kind: Any = type(self)
        return declared(kind)

    def __post_init__(self) -> None:
        for p in self._parameters:
            object.__setattr__(self, p.name, p.check(getattr(self, p.name)))

    def replace(self, **changes: Any) -> Self:
        """A copy with the given fields changed; fields given as None stay."""
        given = {name: value for name, value in changes.items() if value is not None}
        return dataclasses.replace(self, **given)

    @cached_property
    def numbers(self) -> tuple[float, ...]:
        """What a row of a batch holds of it: a number for each parameter."""
        return tuple(p.number(getattr(self, p.name)) for p in self._parameters)

    def describe(self) -> str:
        """In words, without what changes nothing: "guidance 4, temperature 1, top-k 50"."""
        values = [(p, getattr(self, p.name)) for p in self._parameters]
        return ", ".join(p.describe(v) for p, v in values if p.captioned or v != p.neutral)


def named(
    parameters: Sequence[Parameter], annotate: Callable[[Parameter], Any] = lambda p: p.kind | None
) -> Callable[[F], F]:
    """A decorator for a function whose last argument is ``**settings``: its signature then names
    every parameter, None by default, for help, notebooks and Typer.
    """
    return keywords({p.name: annotate(p) for p in parameters})


def keywords(kinds: Mapping[str, Any]) -> Callable[[F], F]:
    """As ``named``, of these names and annotations."""

    def decorate(function: F) -> F:
        signature = inspect.signature(function, eval_str=True)
        *others, _ = signature.parameters.values()
        last = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
            for name, kind in kinds.items()
        ]
        told: Any = function
        told.__signature__ = signature.replace(parameters=[*others, *last])
        return function

    return decorate
