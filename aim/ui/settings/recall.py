"""Parameters of a picture that come back, in a PNG or a link: read, checked, and compared with what
is here.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlencode

from aim.checks import quoted
from aim.config import INDEX, MAX_SEED, NEUTRAL, SAMPLING, check_seed
from aim.errors import InvalidInput
from aim.pipeline import Pipeline
from aim.ui.models import Models

COUNTS, COUNT = (1, 4, 9), 4  # pictures at once; what the page begins with
NAMES = ("model", "version", "class", "seed", *INDEX, "count")  # in a link
SAME = {
    "version": "the model's version",
    "device": "the device",
    "dtype": "the number format",
    "package": "the program's version",
}


@dataclass(frozen=True)
class Recalled:
    """What is to be set on the page. None where nothing was said."""

    model: str | None = None
    label: Any = None  # index or name, as its model resolves it
    seed: int | None = None
    count: int | None = None
    sampling: dict[str, Any] = field(default_factory=dict)  # those that were said, by name


def recall(values: Mapping[str, Any], models: Models) -> Recalled:
    """Check parameters from outside: of ``NAMES`` those that are there, numbers also as text.
    InvalidInput names the first bad one.
    """
    found: dict[str, Any] = {}
    if values.get("model") is not None:
        found["model"] = models.check(values["model"])
    if values.get("class") is not None:
        found["label"] = (
            _number("class", values["class"], int)
            if _is_number(values["class"])
            else values["class"]
        )
        if not isinstance(found["label"], (int, str)):
            raise InvalidInput(f"class is {quoted(found['label'])}; it must be a name or an index")
    if values.get("seed") is not None:
        found["seed"] = check_seed(_number("seed", values["seed"], int))
    if "package" in values:  # of a picture: what it does not name was not there when it was drawn
        values = {**asdict(NEUTRAL), **values}
    sampling = {
        p.name: p.check(_number(p.name, values[p.name], p.kind))
        for p in SAMPLING
        if values.get(p.name) is not None
    }
    if values.get("count") is not None:
        found["count"] = check_count(_number("count", values["count"], int))
    return Recalled(**found, sampling=sampling)


def query(values: Mapping[str, Any]) -> str:
    """Parameters as the part of a link behind the question mark."""
    return urlencode({name: values[name] for name in NAMES if values.get(name) is not None})


def check_count(count: Any) -> int:
    """``count`` if so many pictures can be drawn at once, else InvalidInput."""
    if isinstance(count, bool) or count not in COUNTS:
        raise InvalidInput(
            f"count is {quoted(count)}; it must be one of {', '.join(map(str, COUNTS))}"
        )
    return int(count)


def check_typed(seed: Any) -> int:
    """``seed`` if it is one; InvalidInput in words also for a box that was emptied."""
    if seed is None:
        raise InvalidInput("there is no seed; type a whole number, or tick Random")
    return check_seed(seed)


def seed_to_draw(seed: Any, random_seed: bool, pictures: int = 1) -> int:
    """The seed of the first of so many pictures, each with the next one: what was typed, or any."""
    if random_seed:
        return random.randrange(MAX_SEED + 2 - pictures)
    check_seed(check_typed(seed) + pictures - 1)
    return int(seed)


def differences(values: Mapping[str, Any], pipe: Pipeline) -> str:
    """In words, where a picture with these parameters was made by something else than ``pipe``;
    empty if it was not.
    """
    ours = pipe.parameters(pipe.classes[0], 0, pipe.sampling)
    other = [
        f"{what} ({str(values[name])[:40]} there, {ours[name]} here)"
        for name, what in SAME.items()
        if name in values and values[name] != ours[name]
    ]
    return f"The picture may come out otherwise: it differs in {', '.join(other)}." if other else ""


def _is_number(value: Any) -> bool:
    return not isinstance(value, str) or value.strip().isdigit()


def _number(name: str, value: Any, kind: type) -> Any:
    """A number, or a text that is one; of ``str`` whatever it is."""
    if kind is str:
        return value
    if isinstance(value, str):
        try:
            return kind(value[:40])
        except ValueError:
            raise InvalidInput(
                f"{name} is {value[:40]!r}; it must be a {'whole ' if kind is int else ''}number"
            ) from None
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidInput(
            f"{name} is {quoted(value)}; it must be a {'whole ' if kind is int else ''}number"
        )
    return value
