"""Sets of images to evaluate, and real ones to compare them with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from eyes import pixels
from PIL import Image

from aim.evaluation.samples import SampleSet
from aim.pipeline import Pipeline


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """30 pictures, some in a folder of their own."""
    (tmp_path / "real" / "more").mkdir(parents=True)
    for i, image in enumerate(pixels(30)):
        Image.fromarray(image).save(tmp_path / "real" / ("more" if i % 3 else ".") / f"{i:02d}.png")
    return tmp_path / "real"


@pytest.fixture
def make_set(tiny_pipeline: Pipeline, tmp_path: Path) -> Callable[..., SampleSet]:
    """A set of 12 images, in batches of 4, none drawn yet."""
    return lambda name="set", count=12: SampleSet(
        tiny_pipeline, tmp_path / name, count, seed=5, batch=4
    )
