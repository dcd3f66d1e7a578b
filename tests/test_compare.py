"""Sweeps over two settings, and the way between two classes."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from aim.compare import Axis, blend, sweep
from aim.config import SamplingParams
from aim.errors import InvalidInput
from aim.images import write
from aim.models.gpt.model import GPT
from aim.models.vq.model import VQ
from aim.pipeline import Pipeline
from tests.tiny import TINY_GPT


def cells(grid: Image.Image, images: list[Image.Image], columns: int, left: bool) -> None:
    """Each image, enlarged, is where it belongs; titles are drawn above and, if so, at the left."""
    scale = 128 // images[0].width
    rows = len(images) // columns
    pixels = np.asarray(grid)
    # of the titles
    height, width = pixels.shape[0] - 4 - rows * 132, pixels.shape[1] - 4 - columns * 132
    assert (width > 12) == left
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        x, y = width + 4 + column * 132, height + 4 + row * 132
        big = np.asarray(image.resize((image.width * scale,) * 2, Image.Resampling.NEAREST))
        assert (pixels[y : y + 128, x : x + 128] == big).all()
    assert (pixels[:height] < 128).any(), "titles above"
    assert not left or (pixels[height:, :width] < 128).any()


def test_a_sweep_is_the_pictures_drawn_alone(tiny_pipeline: Pipeline) -> None:
    told: list[tuple[int, int]] = []
    grid = sweep(
        tiny_pipeline,
        Axis.parse("cfg_scale", "1, 4"),
        Axis.parse("top_k", "0,3,9"),
        "goldfish",
        5,
    ).draw(tiny_pipeline, lambda *t: told.append(t))
    alone = [
        tiny_pipeline.generate("goldfish", 5, cfg_scale=scale, top_k=k)[0]
        for k in (0, 3, 9)
        for scale in (1, 4)
    ]
    cells(grid, alone, 2, left=True)
    assert told[-1] == (96, 96)
    assert told == sorted(told)


def test_seeds_and_classes_are_axes_too(tiny_pipeline: Pipeline) -> None:
    params = SamplingParams(2.0, 0.7)
    grid = sweep(
        tiny_pipeline,
        Axis("seed", (3, 4)),
        Axis.parse("class", "goldfish, 281"),
        "goldfish",
        params=params,
    ).draw(tiny_pipeline)
    alone = [
        tiny_pipeline.generate(label, seed, cfg_scale=2.0, temperature=0.7)[0]
        for label in (1, 281)
        for seed in (3, 4)
    ]
    cells(grid, alone, 2, left=True)


@pytest.mark.parametrize(
    ("across", "down", "message"),
    [
        (("cfg_scale", "1"), ("cfg_scale", "2"), "both axes are cfg_scale; choose two settings"),
        (
            ("colour", "1"),
            ("seed", "2"),
            "there is no setting 'colour' to vary; take one of cfg_scale",
        ),
        (
            ("cfg_scale", "1,x"),
            ("seed", "2"),
            "values of cfg_scale are '1,x'; they must be numbers",
        ),
        (
            ("seed", "1.5"),
            ("cfg_scale", "2"),
            "values of seed are '1.5'; they must be whole numbers",
        ),
        (("cfg_scale", ""), ("seed", "2"), "cfg_scale has 0 values; give 1 to 8"),
        (("seed", "1,2,3,4,5,6,7,8,9"), ("cfg_scale", "2"), "seed has 9 values"),
        (("cfg_scale", "99"), ("seed", "2"), "cfg_scale is 99"),
        (("class", "unicorn"), ("seed", "2"), "there is no class 'unicorn'"),
        (("seed", "-1"), ("cfg_scale", "2"), "seed is -1"),
    ],
)
def test_what_cannot_be_swept(
    tiny_pipeline: Pipeline, across: tuple[str, str], down: tuple[str, str], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        sweep(tiny_pipeline, Axis.parse(*across), Axis.parse(*down), "goldfish")


@pytest.fixture
def gpt_pipeline(tiny_vq: VQ) -> Pipeline:
    torch.manual_seed(2)
    model = GPT(dataclasses.replace(TINY_GPT)).eval().requires_grad_(False)
    for name, weight in model.named_parameters():
        weight.mul_(8.0 if "embedding" in name or "output" in name else 1.0)
    return Pipeline(model, tiny_vq, "tiny-gpt", "0123456789ab")


@pytest.mark.parametrize("name", ["tiny_pipeline", "gpt_pipeline"])
def test_the_ends_of_a_blend_are_the_classes(name: str, request: pytest.FixtureRequest) -> None:
    pipe: Pipeline = request.getfixturevalue(name)
    planned = blend(pipe, "goldfish", 281, 3, seed=4)
    assert planned.across == ["goldfish (1)", "50% / 50%", "tabby (281)"]
    assert [one.mix for one in planned.requests] == [
        ((pipe.row(1), 1.0),),
        ((pipe.row(1), 0.5), (pipe.row(281), 0.5)),
        ((pipe.row(281), 1.0),),
    ]
    drawn = list(pipe.draw_all(planned.requests))
    ends = [next(pipe.draw(label, seed=4)) for label in (1, 281)]
    assert (drawn[0] == ends[0]).all() and (drawn[2] == ends[1]).all()
    assert not any((drawn[1] == end).all() for end in ends)


def test_a_blend_waits_in_line_like_everybody(tiny_pipeline: Pipeline) -> None:
    engines = threading.active_count()
    before = tiny_pipeline.server.tally.requests
    waited: list[int] = []
    blend(tiny_pipeline, 1, 281, 8).draw(
        tiny_pipeline, lambda *_: waited.append(threading.active_count())
    )
    assert tiny_pipeline.server.tally.requests == before + 8
    assert max(waited) <= engines + 1, "it has no engine of its own"


def test_the_way_is_one_picture(tiny_pipeline: Pipeline) -> None:
    grid = blend(tiny_pipeline, "goldfish", "tabby", 4, seed=6).draw(tiny_pipeline)
    ends = [tiny_pipeline.generate(label, 6)[0] for label in (1, 281)]
    pixels = np.asarray(grid)
    top = pixels.shape[0] - 4 - 132
    for image, column in zip(ends, (0, 3), strict=True):
        big = np.asarray(image.resize((128, 128), Image.Resampling.NEAREST))
        assert (pixels[top + 4 : top + 132, 4 + 132 * column : 132 + 132 * column] == big).all()


@pytest.mark.parametrize("steps", [1, 9, 2.5, True])
def test_steps_out_of_range(tiny_pipeline: Pipeline, steps: Any) -> None:
    with pytest.raises(InvalidInput, match=r"steps is .*; it must be a whole number in \[2, 8\]"):
        blend(tiny_pipeline, 1, 281, steps)


def test_a_grid_needs_as_many_images_as_places() -> None:
    with pytest.raises(
        InvalidInput, match="a grid of 2 columns and 2 rows needs as many images; got 3"
    ):
        write.labelled_grid([Image.new("RGB", (4, 4))] * 3, ["a", "b"], ["c", "d"])
