"""Configurations to and from JSON values, checked by pydantic: a file is input from outside."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, TypeVar

from aim.checks import problem
from aim.config import MODELS, PriorConfig, SamplingParams, VQConfig
from aim.errors import CheckpointError

C = TypeVar("C", bound=PriorConfig | VQConfig)

MOST_TEXT = 2**24  # characters, which the names of a million classes take


def to_values(config: PriorConfig | VQConfig) -> dict[str, Any]:
    """The fields of ``config`` as JSON values."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return values


def parse_json(text: str, where: str | Path) -> dict[str, Any]:
    """A JSON object; CheckpointError names ``where`` it was otherwise."""
    if len(text) > MOST_TEXT:
        raise CheckpointError(
            f"{where}: the configuration has {len(text)} characters; at most {MOST_TEXT} are read"
        )
    try:
        values = json.loads(text)
    except RecursionError as error:
        raise CheckpointError(f"{where}: the configuration is nested too deeply") from error
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
    from pydantic import TypeAdapter, ValidationError

    try:
        text = json.dumps(values)  # what is strict of JSON takes a list for a tuple
        return TypeAdapter(kind).validate_json(text, strict=True, extra="forbid")
    except ValidationError as error:
        raise CheckpointError(f"{where}: {problem(kind, values, error.errors())}") from error


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
