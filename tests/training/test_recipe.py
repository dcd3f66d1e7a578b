"""Settings are declared once: their ranges and what --help says come from there."""

from __future__ import annotations

import dataclasses
from typing import get_args, get_type_hints

import pytest

from aim.checks import wanted
from aim.training.recipe import ClassifierRecipe, PriorRecipe, TokenizerRecipe, help_of, settle

RECIPES = (PriorRecipe, TokenizerRecipe, ClassifierRecipe)


@pytest.mark.parametrize("kind", RECIPES)
def test_every_setting_has_a_default_in_its_range_and_a_line_of_help(kind: type) -> None:
    assert settle(kind(), {}) == kind()
    told = help_of(kind)
    hints = get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        number = get_args(hints[field.name])[0] in (int, float)
        assert not number or " in " in wanted(hints[field.name]), field.name
        assert f"\n\n{field.name}=" in told


def test_help_says_default_and_range() -> None:
    told = help_of(PriorRecipe)
    assert "lr=0.0012  The highest learning rate. It is a number in [0, 100]." in told
    assert "compile=false  Compile" in told and "It is true or false." in told
    assert "It is one of auto, torch, mamba-ssm." in told
