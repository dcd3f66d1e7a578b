"""Checks of single values, which say what is wrong and what would be right, and the types of a
configuration's fields, whose bounds hold for one that is read: a damaged one must not build for
hours.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

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
