"""Single values: what counts as a number, and what is said of what does not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from aim.checks import number, whole
from aim.errors import InvalidInput


@pytest.mark.parametrize("value", [3, 3.0, np.int64(3), np.float32(3), torch.tensor(3)])
def test_any_kind_of_number_may_be_whole(value: object) -> None:
    found = whole("rows", value, 1, 3)
    assert type(found) is int
    assert found == 3


@pytest.mark.parametrize(
    "value",
    [0, 4, 2.5, True, "3", None, math.nan, math.inf, 10**400, [3], torch.ones(2), np.ones(2), {}],
)
def test_what_is_no_whole_number_in_range(value: object) -> None:
    with pytest.raises(InvalidInput, match=r"^rows is .*; it must be a whole number in \[1, 3\]"):
        whole("rows", value, 1, 3)


def test_a_range_may_have_no_end() -> None:
    assert whole("count", 10**30, 1) == 10**30
    with pytest.raises(InvalidInput, match="count is 0; it must be a whole number of at least 1"):
        whole("count", 0, 1)


@pytest.mark.parametrize("value", ["0.5", 0.5, np.float64(0.5), torch.tensor(0.5)])
def test_numbers_may_be_texts(value: object) -> None:
    assert number("top_p", value, 0, 1) == 0.5


@pytest.mark.parametrize("value", [0, -1, 1.1, math.nan, True, "many", None, []])
def test_what_is_no_number_in_range(value: object) -> None:
    with pytest.raises(InvalidInput, match=r"top_p is .*; it must be a number in \(0, 1\]"):
        number("top_p", value, 0, 1, open_low=True)


def test_the_end_of_a_range_may_be_open() -> None:
    assert number("scale", 0, 0, 1) == 0.0
    with pytest.raises(InvalidInput, match="scale is 0"):
        number("scale", 0, 0, 1, open_low=True)
