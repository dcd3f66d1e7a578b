"""Configurations to and from JSON values, checked field by field: a file is input from outside."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from aim.config import MODELS, SAMPLING, PriorConfig, SamplingParams, VQConfig
from aim.errors import CheckpointError, InvalidInput

# of a whole number; the bound keeps a damaged configuration from building for hours
USUAL = (1, 2**20)
RANGES = {
    **{"position_offset": (0, 1), "classes": (0, 2**20)},
    **{p.name: (int(p.low), int(p.high)) for p in SAMPLING if p.whole},
}
FRACTIONS = ("token_drop", "mixer_drop", "resid_drop", "ffn_drop")

C = TypeVar("C", bound=PriorConfig | VQConfig | SamplingParams)


def to_values(config: PriorConfig | VQConfig) -> dict[str, Any]:
    """The fields of ``config`` as JSON values."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return values


def parse_json(text: str, where: str | Path) -> dict[str, Any]:
    """A JSON object; CheckpointError names ``where`` it was otherwise."""
    try:
        values = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"{where}: the configuration is not JSON ({error})") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{where}: the configuration is not a JSON object")
    return values


def from_values(kind: type[C], values: Any, where: str | Path) -> C:
    """A configuration of class ``kind`` from JSON values; fields left out take their defaults.

    CheckpointError names the field that is unknown, missing or of a wrong value, and ``where`` it
    was.
    """
    if not isinstance(values, Mapping):
        raise CheckpointError(f"{where}: {kind.__name__} is {values!r}; it must be a JSON object")
    hints = get_type_hints(kind)
    needed = [
        f.name
        for f in dataclasses.fields(kind)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    for problem, names in (
        ("unknown", values.keys() - hints.keys()),
        ("missing", set(needed) - values.keys()),
    ):
        if names:
            raise CheckpointError(
                f"{where}: {problem} in the configuration: {', '.join(sorted(names))}"
            )
    try:
        return kind(
            **{name: _field(name, hints[name], value, where) for name, value in values.items()}
        )
    except InvalidInput as error:
        raise CheckpointError(f"{where}: {error}") from error


def usual_sampling(config: PriorConfig) -> SamplingParams:
    """The defaults of the named model that ``config`` is but for its sampling, else ``config``'s
    own: official files have none.
    """
    same = (
        spec.config.sampling
        for spec in MODELS.values()
        if dataclasses.replace(spec.config, sampling=config.sampling) == config
    )
    return next(same, config.sampling)


def _field(name: str, hint: Any, value: Any, where: str | Path) -> Any:
    if hint is SamplingParams:
        return from_values(SamplingParams, value, where)
    if hint is bool:
        good = isinstance(value, bool)
    elif hint is float:
        good = (
            isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        )
        good = good and (0 <= value <= 1 or name not in FRACTIONS)
    elif hint is int:
        good = _whole(name, value)
    elif hint == tuple[str, ...]:
        good = isinstance(value, list) and all(isinstance(item, str) and item for item in value)
        value = tuple(value) if good else value
    else:  # tuple[int, ...]
        good = isinstance(value, list) and all(_whole(name, item) for item in value)
        value = tuple(value) if good else value
    if not good:
        number = "a number in [0, 1]" if name in FRACTIONS else "a number"
        wanted = {
            bool: "true or false",
            float: number,
            int: _range(name),
            tuple[str, ...]: "a list of texts",
        }.get(hint, f"a list, each entry {_range(name)}")
        raise CheckpointError(f"{where}: {name} is {value!r}; it must be {wanted}")
    return value


def _range(name: str) -> str:
    low, high = RANGES.get(name, USUAL)
    return f"a whole number in [{low}, {high}]"


def _whole(name: str, value: Any) -> bool:
    low, high = RANGES.get(name, USUAL)
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
