"""Checks of single values, which say what is wrong and what would be right, and the types of a
configuration's fields, whose bounds hold for one that is read: a damaged one must not build for
hours.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from annotated_types import Interval, Len, MaxLen

from aim.errors import InvalidInput

Count = Annotated[int, Interval(ge=1, le=2**20)]  # of what a table has rows for
Width = Annotated[int, Interval(ge=1, le=2**15)]  # channels
Layers = Annotated[int, Interval(ge=1, le=512)]  # heads, too
Few = Annotated[int, Interval(ge=1, le=64)]  # blocks, taps, what widths are multiplied by
Side = Annotated[int, Interval(ge=1, le=4096)]  # pixels
Levels = Annotated[tuple[Few, ...], MaxLen(8)]  # each halves a picture
ZeroOrOne = Annotated[int, Interval(ge=0, le=1)]
Share = Annotated[float, Interval(ge=0, le=1)]
Positive = Annotated[float, Interval(ge=1e-9, le=2**30)]
ClassIndices = tuple[Annotated[int, Interval(ge=0, le=2**20)], ...]
ClassNames = tuple[Annotated[str, Len(1, 1000)], ...]
WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def quoted(value: Any, most: int = 80) -> str:
    """``repr(value)`` for a message, cut where it has over ``most`` characters: a message stays a
    line, whatever was sent.
    """
    if isinstance(value, (str, bytes)):
        value = value[: most + 1]  # before it is written out
    try:
        text = repr(value)
    except Exception:  # nested too deeply, or what writes itself wrongly
        text = f"a {type(value).__name__}"
    return text if len(text) <= most else f"{text[: most - 1]}…"


def number(name: str, value: Any, low: float, high: float, *, open_low: bool = False) -> float:
    """``value`` as a float within [low, high], or (low, high] with ``open_low``; else
    InvalidInput.
    """
    bracket = "(" if open_low else "["
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if isinstance(value, bool) or not low <= found <= high or (open_low and found == low):
        raise InvalidInput(
            f"{name} is {quoted(value)}; it must be a number in {bracket}{low:g}, {high:g}]"
        )
    return found


def whole(name: str, value: Any, low: int, high: int | None = None) -> int:
    """``value``, of any kind of number, as an int within [low, high], or of at least ``low``; else
    InvalidInput.
    """
    try:
        found = low - 1 if isinstance(value, bool) else int(value)
        good = found == value and low <= found and (high is None or found <= high)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last: a tensor of several
        good = False
    if not good:
        allowed = f"of at least {low}" if high is None else f"in [{low}, {high}]"
        raise InvalidInput(f"{name} is {quoted(value)}; it must be a whole number {allowed}")
    return found


def problem(kind: type, values: Any, errors: list[Any]) -> str:
    """The first of pydantic's ``errors`` about ``values`` of the dataclass ``kind``, in our
    words.
    """
    for problem, code in ("unknown", "unexpected_keyword_argument"), ("missing", "missing"):
        if names := sorted(str(e["loc"][-1]) for e in errors if e["type"] == code):
            return f"{problem} in the configuration: {', '.join(names)}"
    first = errors[0]
    if first["type"] == "value_error":  # what the class itself refuses
        return str(first["ctx"]["error"])
    name, hint = kind.__name__, kind
    for field in (key for key in first["loc"] if isinstance(key, str)):  # others: list entries
        name, hint = field, get_type_hints(hint, include_extras=True)[field]
        values = values[field]
    return f"{name} is {quoted(values)}; it must be {wanted(hint)}"


def wanted(hint: Any) -> str:
    """What a field declared as ``hint`` takes, in words; texts beside its type are about it."""
    if dataclasses.is_dataclass(hint):
        return "a JSON object"
    of, *others = (hint,) if get_origin(hint) is Literal else get_args(hint) or (hint,)
    limits: list[Any] = [limit for limit in others if not isinstance(limit, str)]
    if get_origin(of) is Literal:
        return f"one of {', '.join(map(str, get_args(of)))}"
    if Ellipsis in limits:
        return f"a list, each entry {wanted(of)}"
    if of is str and limits:
        return f"a text of {limits[0].min_length} to {limits[0].max_length} characters"
    if of not in WORDS:  # of a list, how long it may be
        return f"{wanted(of)}, of at most {limits[0].max_length}"
    return WORDS[of] + "".join(f" in {_range(x)}" for x in limits)


def _range(limit: Interval) -> str:
    low = f"[{limit.ge:.10g}" if limit.gt is None else f"({limit.gt:.10g}"
    return f"{low}, {limit.le:.10g}]" if limit.lt is None else f"{low}, {limit.lt:.10g})"
