"""Every setting that may vary begins with values that can be drawn."""

from __future__ import annotations

import pytest

from aim.compare import AXES, MOST, Axis, sweep
from aim.pipeline import Pipeline
from aim.ui.compare.axes import examples


@pytest.mark.parametrize("name", AXES)
def test_examples_are_drawn_as_they_stand(tiny_pipeline: Pipeline, name: str) -> None:
    axis = Axis.parse(name, examples(tiny_pipeline)[name])
    other = Axis("seed", (1,)) if name != "seed" else Axis("temperature", (1.0,))
    planned = sweep(tiny_pipeline, axis, other, tiny_pipeline.classes[0])
    assert 1 < len({str(request) for request in planned.requests}) <= MOST
