"""Drawings taken back to a row and pictures drawn to their end, through the pipeline."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from aim.errors import InvalidInput
from aim.models.vq.model import VQ
from aim.pipeline import Pipeline
from tests.tiny import random_gpt, random_model


@pytest.fixture(scope="module", params=[random_model, random_gpt], ids=["aim", "gpt"])
def pipe(request: pytest.FixtureRequest, tiny_vq: VQ) -> Iterator[Pipeline]:
    pipe = Pipeline(request.param(), tiny_vq, "tiny", "1")
    yield pipe
    pipe.close()


def codes(pipe: Pipeline, **settings: object) -> list[int]:
    *_, last = pipe.stream("goldfish", seed=3, preview_every=0, **settings)  # type: ignore[arg-type]
    return last.codes.tolist()


def test_branching_with_nothing_changed_ends_as_before(pipe: Pipeline) -> None:
    whole = codes(pipe)
    for row in range(1, pipe.tokenizer.config.grid):
        assert codes(pipe, prefix=whole[: row * pipe.tokenizer.config.grid]) == whole


def test_branching_under_another_guidance_keeps_the_rows_and_goes_another_way(
    pipe: Pipeline,
) -> None:
    whole, kept = codes(pipe), 2 * pipe.tokenizer.config.grid
    other = codes(pipe, prefix=whole[:kept], cfg_scale=9.0)
    assert other[:kept] == whole[:kept]
    assert other != whole


def test_frames_begin_behind_the_prefix(pipe: Pipeline) -> None:
    frames = list(pipe.stream("goldfish", preview_every=4, prefix=range(6)))
    steps = [frame.step for frame in frames if frame.step]
    assert steps[-1] == 16
    assert set(steps) <= {8, 12, 16}, "a slow client misses some"
    assert frames[-1].image is not None


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "CMYK"])
def test_completion_keeps_the_given_rows_exactly(pipe: Pipeline, mode: str) -> None:
    image = Image.effect_noise((50, 30), 80).convert("RGB").convert(mode)
    given, grid = pipe.encode(image), pipe.tokenizer.config.grid
    assert given.shape == (grid**2,)
    assert given.dtype == np.int64
    *_, last = pipe.complete(image, 3, "goldfish", seed=1, preview_every=0)
    assert last.codes[: 3 * grid].tolist() == given[: 3 * grid].tolist()
    assert last.image is not None and last.image.size == (pipe.tokenizer.config.image_size,) * 2


def test_what_the_tokenizer_keeps_of_its_own_picture_encodes_again(pipe: Pipeline) -> None:
    picture = pipe.picture(np.arange(pipe.tokenizer.config.grid**2))
    assert pipe.encode(picture).shape == (pipe.tokenizer.config.grid**2,)


@pytest.mark.parametrize("rows", [0, -1, 2.5, True, "3", 99])
def test_rows_that_leave_nothing_to_keep_or_to_draw(pipe: Pipeline, rows: object) -> None:
    with pytest.raises(InvalidInput, match=r"rows is .*; it must be a whole number in \[1, "):
        pipe.complete(Image.new("RGB", (9, 9)), rows, "goldfish")  # type: ignore[arg-type]


def test_a_file_that_is_no_picture(pipe: Pipeline) -> None:
    with pytest.raises(InvalidInput, match="cannot be read as an image"):
        pipe.complete(b"text", 1, "goldfish")
