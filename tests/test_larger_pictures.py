"""A tokenizer that gives larger pictures than it takes: uploads are read at the size that goes in,
everything that is shown, saved or counted has the size that comes out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from aim.bench import speed
from aim.bench.race import race
from aim.bench.speed import bench
from aim.checkpoint import load_model, load_tokenizer, save_model, save_tokenizer
from aim.errors import CheckpointError
from aim.evaluation.check import check
from aim.evaluation.samples import SampleSet
from aim.images import read, write
from aim.models.aim.model import AiM
from aim.models.image_decoder import ImageDecoder
from aim.models.preview import Previewer
from aim.models.vq.model import VQ
from aim.pipeline import Pipeline
from aim.ui.about import _card
from aim.ui.settings.handlers import describe
from tests.files import assert_equal, rewrite

CODES = np.arange(16)


@pytest.fixture
def pipe(tiny_model: AiM, larger_vq: VQ) -> Iterator[Pipeline]:
    pipe = Pipeline(tiny_model, larger_vq, "tiny", "1")
    yield pipe
    pipe.close()


@torch.no_grad()
def pixels(vq: VQ, codes: np.ndarray) -> np.ndarray:
    made = write.to_bytes(vq.decode(torch.from_numpy(codes)[None]))[0]
    return made.permute(1, 2, 0).numpy()


def test_pictures_have_the_size_that_comes_out(pipe: Pipeline, larger_vq: VQ) -> None:
    assert np.array_equal(np.asarray(pipe.pictures([CODES])[0]), pixels(larger_vq, CODES))
    [image] = pipe.generate("goldfish", seed=3)
    assert image.size == (32, 32)
    [only] = ImageDecoder(larger_vq).images([CODES])
    assert only.shape == (32, 32, 3)


@pytest.mark.parametrize("rough", [False, True])
def test_a_preview_is_transparent_where_nothing_is_drawn(pipe: Pipeline, rough: bool) -> None:
    previewer = pipe._previewer
    previewer._rough = rough
    if rough:
        previewer.colours()
    preview = pipe.preview(CODES[:6])
    assert preview is not None and preview.size == (32, 32)
    opaque = np.asarray(preview)[..., 3] > 0
    wanted = np.zeros((32, 32), bool)
    wanted[:8], wanted[8:16, :16] = True, True  # a code is 8 pixels
    assert np.array_equal(opaque, wanted)


def test_a_rough_preview_has_a_colour_a_code(larger_vq: VQ) -> None:
    previewer = Previewer(larger_vq)
    colours = previewer.colours()
    previewer._rough = True
    with torch.inference_mode():
        drawn = previewer(torch.from_numpy(CODES[:5]))
    assert drawn.shape == (3, 16, 32)
    for code in range(5):
        line, column = divmod(code, 4)
        block = drawn[:, 8 * line : 8 * line + 8, 8 * column : 8 * column + 8]
        assert torch.equal(block, colours[code][:, None, None].expand(3, 8, 8))


def test_uploads_are_read_at_the_size_that_goes_in(pipe: Pipeline, larger_vq: VQ) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8))
    small = read.to_pixels(read.open_square(image, 16))[None]
    with torch.no_grad():
        wanted = larger_vq.encode(small)[0].numpy()
    assert np.array_equal(pipe.encode(image), wanted)
    *_, last = pipe.complete(image, 2, "goldfish", seed=1)
    assert last.codes[:8].tolist() == wanted[:8].tolist()
    assert last.image.size == (32, 32)


def test_evaluation_draws_them(pipe: Pipeline, tmp_path: Path) -> None:
    images = SampleSet(pipe, tmp_path / "set", 5, batch=5)
    images.open()
    assert images.draw() == 5
    assert images.missing(range(5)) == []
    assert all(image.shape == (32, 32, 3) for image in images.arrays())
    found = check(images)
    assert found["equal"] == found["redrawn"] > 0


def test_reports_and_the_page_say_so(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "copy_bandwidth", lambda device: 1e9)  # copies of half a GB
    assert bench(pipe, (1,), repeats=1, seconds=0).image_size == 32
    assert race([pipe, pipe], batch=1, bandwidth=1e9)[0].image_size == 32
    assert "32×32 pixels as 16 codes" in describe(pipe)
    assert "32×32 pixels, 4×4 codes out of 64" in _card(
        SimpleNamespace(get=lambda name: pipe, default="tiny")
    )


def test_the_file_says_how_large(
    larger_vq: VQ, tiny_vq: VQ, tiny_model: AiM, tmp_path: Path
) -> None:
    path = tmp_path / "larger.safetensors"
    save_tokenizer(path, larger_vq, {}, torch.float32)
    loaded = load_tokenizer(path)
    assert loaded.config == larger_vq.config
    assert_equal(loaded, larger_vq)
    save_model(tmp_path / "prior.safetensors", tiny_model, {"tokenizer": path.name})
    assert load_model(tmp_path / "prior.safetensors").tokenizer.config.output_size == 32
    rewrite(path, lambda _, m: m.update(config=m["config"].replace("[1, 1, 2, 2]", "[1, 2]")))
    with pytest.raises(CheckpointError, match=r"larger\.safetensors: decoder_ch_mult is \(1, 2\)"):
        load_tokenizer(path)


def test_a_file_from_before_loads_as_it_did(tiny_vq: VQ, tmp_path: Path) -> None:
    path = tmp_path / "old.safetensors"
    save_tokenizer(path, tiny_vq, {}, torch.float32)
    rewrite(path, lambda _, m: m.update(config=m["config"].replace('"decoder_ch_mult": [], ', "")))
    loaded = load_tokenizer(path)
    assert loaded.config == tiny_vq.config
    assert_equal(loaded, tiny_vq)
