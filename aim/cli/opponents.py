"""Whom a model is measured against."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from aim.cli.options import load
from aim.config import MODELS
from aim.errors import InvalidInput

if TYPE_CHECKING:
    from aim.bench.diffusion import Diffusion
    from aim.pipeline import Pipeline
    from aim.settings import Settings


def opponents(
    chosen: Settings, first: Pipeline, names: Sequence[str], random_weights: bool
) -> Iterator[Pipeline | Diffusion]:
    """The models of ``names``, where and as precise as ``first``; diffusion models with the same
    weights share them.
    """
    from aim.bench.diffusion import load_diffusion, named, sampled_as

    loaded: dict[str, Diffusion] = {}
    for name in names:
        found = named(name)
        if found is None:
            yield load(replace(chosen, model=name), random_weights)
        elif found[1] in loaded:
            yield sampled_as(loaded[found[1]], name)
        else:
            where = str(first.device), str(first.dtype).removeprefix("torch.")
            loaded[found[1]] = load_diffusion(name, *where, chosen.backend, random_weights)
            yield loaded[found[1]]


def other_of(name: str, against: str | None) -> str:
    """Whom ``name`` is measured against."""
    if against is not None:
        return against
    family, _, size = name.partition("-")
    other = f"{'gpt' if family == 'aim' else 'aim'}-{size}"
    if name not in MODELS or other not in MODELS:
        raise InvalidInput(
            f"nothing is said of whom {name!r} is measured against; name a model with --against"
        )
    return other


def others_of(name: str, against: str | None) -> list[str]:
    """As ``other_of``, of several with commas between; a diffusion model must be one there is."""
    from aim.bench.diffusion import named

    found = other_of(name, against).split(",")
    for one in found:
        named(one)
    return found
