"""A grid of 24x24 codes from end to end, pictures that are kept smaller than they were drawn, and
sizes and shapes that no model draws.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from aim.config import VQConfig
from aim.engine import Request
from aim.errors import InvalidInput
from aim.evaluation.check import check
from aim.evaluation.samples import SampleSet
from aim.images import read
from aim.models.image_decoder import kept_size
from aim.models.vq.model import VQ
from aim.pipeline import Pipeline
from tests.conftest import TINY_VQ
from tests.tiny import random_gpt

LARGE = dataclasses.replace(TINY_VQ, image_size=96)  # a grid of 24x24


@pytest.fixture(scope="module")
def large() -> Iterator[Pipeline]:
    torch.manual_seed(1)
    vq = VQ(LARGE).eval().requires_grad_(False)
    pipe = Pipeline(random_gpt(num_tokens=576), vq, "large", "1")
    yield pipe
    pipe.close()


def test_576_codes_make_a_picture(large: Pipeline) -> None:
    frames = list(large.stream(207, seed=3, preview_every=100))
    assert [frame.step for frame in frames][-2:] == [500, 576]
    assert frames[-1].image is not None and frames[-1].image.size == (96, 96)
    alone = frames[-1].codes
    others = list(large.draw([1, 207, 985], seed=2))
    assert np.array_equal(others[1], alone), "one seed, one picture"
    prefix = Request(large.row(207), large.sampling, 3, prefix=alone[:240].tolist())
    [again] = large.draw_all([prefix])
    assert np.array_equal(again, alone), "taken back by 14 lines"


@pytest.mark.parametrize("size", [96, "64", 40, 1])
def test_what_is_kept_smaller_is_bicubic_and_rounded_once(large: Pipeline, size: int | str) -> None:
    codes = np.arange(576) % 64
    kept = large.picture(codes, size)
    assert kept.size == (int(size), int(size))
    with torch.no_grad():
        drawn = large.tokenizer.decode(torch.from_numpy(codes)[None])
        if int(size) != 96:
            drawn = F.interpolate(drawn, (int(size),) * 2, mode="bicubic", align_corners=False)
    wanted = ((drawn[0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0)
    assert np.array_equal(np.asarray(kept), wanted.numpy())


@pytest.mark.parametrize("size", [97, 512, 0, -1, "512x256", "256 x 256", 64.0, True, "", [64, 32]])
def test_other_sizes_and_shapes_are_refused_with_what_is_drawn(size: object) -> None:
    with pytest.raises(InvalidInput, match=r"size is .*; this model draws squares of 96x96 pixels"):
        kept_size(size, LARGE)
    assert kept_size(None, LARGE) == 96
    assert kept_size(None, VQConfig()) == 256


def test_python_asks_for_a_size_as_the_command_does(large: Pipeline) -> None:
    [kept] = large.generate(207, seed=3, size=48)
    assert kept.size == (48, 48)
    for size in (192, "96x48"):
        with pytest.raises(InvalidInput, match="this model draws squares of 96x96 pixels"):
            large.generate(207, size=size)  # type: ignore[arg-type]


@pytest.mark.parametrize("side", [8, 32, 96])
def test_a_tokenizer_of_another_size_draws_nothing(tiny_pipeline: Pipeline, side: int) -> None:
    other = VQ(dataclasses.replace(TINY_VQ, image_size=side))
    message = r"draws 16 codes an image, its tokenizer reads a grid of .*; a model draws one size"
    with pytest.raises(InvalidInput, match=message):
        Pipeline(tiny_pipeline.model, other)
    with pytest.raises(InvalidInput, match="draws 64 codes, its tokenizer knows 32; a model draws"):
        Pipeline(tiny_pipeline.model, VQ(dataclasses.replace(TINY_VQ, codebook_size=32)))


def test_a_set_to_evaluate_is_reduced(tiny_pipeline: Pipeline, tmp_path: Path) -> None:
    def drawn(size: int | None) -> SampleSet:
        return SampleSet(tiny_pipeline, tmp_path / "set", 5, batch=5, size=size)

    images = drawn(8)
    images.open()
    assert images.draw() == 5
    assert images.settings()["size"] == 8
    assert {image.shape for image in images.arrays()} == {(8, 8, 3)}
    assert read.read_parameters(images.path(0))["size"] == 8
    with np.load(images.pack()) as packed:
        assert packed["arr_0"].shape == (5, 8, 8, 3)
    found = check(images)
    assert found["equal"] == found["redrawn"] > 0
    assert found["rounding_most"] <= 0.51
    assert drawn(8).missing(range(5)) == []
    with pytest.raises(InvalidInput, match="its size is 8, not None"):
        drawn(None).open()
    assert "size" not in drawn(16).settings(), "the size that is drawn is no setting"
