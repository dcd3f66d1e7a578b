"""DiT through diffusers: the sampler against diffusers' own, weights that come and do not, and a
race against it.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aim.bench import diffusion, diffusion_run
from aim.bench.denoising import Denoiser, schedule
from aim.bench.diffusion import Diffusion, Sampler, load_diffusion, named, sampled_as
from aim.bench.race import gates, race, ratios
from aim.bench.runs import Stopped
from aim.bench.table import as_csv, as_json, race_table
from aim.errors import AimError, CheckpointError, InvalidInput
from aim.pipeline import Pipeline

TRANSFORMER = {
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 3,
    "sample_size": 2,
    "patch_size": 2,
    "num_embeds_ada_norm": 1000,
}
DECODER = {
    **diffusion.IMAGE_DECODER,
    "block_out_channels": (8, 8, 8, 8),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "sample_size": 16,
}
SEEDS = (5, 6, 7)


@pytest.fixture(scope="module")
def diffusers() -> Any:
    return pytest.importorskip("diffusers")


@pytest.fixture
def tiny(diffusers: Any, monkeypatch: pytest.MonkeyPatch) -> Diffusion:
    """A DiT of two small blocks that draws 16x16 pixels."""
    monkeypatch.setattr(diffusion, "TRANSFORMER", TRANSFORMER)
    monkeypatch.setattr(diffusion, "IMAGE_DECODER", DECODER)
    return load_diffusion("dit-xl-50", "cpu", "float32", random_weights=True)


def generators() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in SEEDS]


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_pictures_are_those_of_diffusers_pipeline(
    diffusers: Any, tiny: Diffusion, guidance: float
) -> None:
    pipe = diffusers.DiTPipeline(tiny.transformer, tiny.image_decoder, tiny.scheduler)
    pipe.set_progress_bar_config(disable=True)
    how = {"num_inference_steps": 50, "guidance_scale": guidance, "output_type": "np"}
    theirs = pipe([1, 2, 3], generator=generators(), **how).images
    denoiser = Denoiser(tiny, [1, 2, 3], guidance)
    steps: list[int] = []
    denoiser.denoise(SEEDS, lambda: steps.append(1))
    [ours] = denoiser.images()
    assert len(steps) == 50 and theirs.std() > 0.05
    assert np.abs(ours.numpy() / 255 - theirs).max() < 0.003  # which is rounding to bytes


def test_steps_are_those_of_diffusers_ddpm(diffusers: Any, tiny: Diffusion) -> None:
    """With the variance that the model learned, as its authors sample; DiTPipeline drops it."""
    model = sampled_as(tiny, "dit-xl-250")
    theirs = diffusers.DDPMScheduler.from_config(
        model.scheduler.config, variance_type="learned_range"
    )
    theirs.set_timesteps(250)
    sources, shape = generators(), (3, *model.latent)
    x = torch.cat([torch.randn(1, *shape[1:], generator=one) for one in sources])
    labels = torch.tensor([4, 5, 6])
    with torch.inference_mode():
        for at in theirs.timesteps:
            told = model.transformer(x, timestep=at.expand(3), class_labels=labels).sample
            x = theirs.step(told, at, x, generator=sources).prev_sample
    denoiser = Denoiser(model, [4, 5, 6], 1.0)
    denoiser.denoise(SEEDS, lambda: None)
    assert (denoiser.latents - x).abs().max() < 5e-5 * float(x.std())


def test_a_picture_depends_on_its_own_seed_alone(tiny: Diffusion) -> None:
    model = dataclasses.replace(tiny, sampler=Sampler("ddpm", 20))
    together, alone = Denoiser(model, [1, 1, 1], 2.0), Denoiser(model, [1], 2.0)
    together.denoise(SEEDS, lambda: None)
    alone.denoise(SEEDS[1:2], lambda: None)
    assert torch.allclose(together.latents[1], alone.latents[0], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(together.latents[0], together.latents[1])


@pytest.mark.parametrize(("name", "steps"), [("dit-xl-50", 50), ("dit-xl-250", 250)])
def test_noise_ends_at_a_clean_picture(tiny: Diffusion, name: str, steps: int) -> None:
    at, table = schedule(sampled_as(tiny, name))
    assert len(at) == steps and at[-1] == 0 and (at[:-1] > at[1:]).all()
    kept = tiny.scheduler.alphas_cumprod[0]
    a, b, low, _ = table[-1]
    assert a == pytest.approx(float(kept**-0.5)) and low == -1000
    assert b == pytest.approx(-float(((1 - kept) / kept) ** 0.5), rel=1e-3)


def test_arithmetic_is_counted_as_by_hand(tiny: Diffusion) -> None:
    width, tokens, blocks = 16, 1, 3
    a_token = 12 * width**2 + 2 * width * tokens + (4 * 4 + 4 * 8) * width / blocks
    a_row = 6 * width**2 + 256 * width + width**2
    embedding = 256 * width + width**2 + 2 * width**2  # once more for the last norm
    assert tiny.operations == pytest.approx(
        2 * (blocks * (tokens * a_token + a_row) + embedding), rel=0.01
    )


def test_blocks_are_compiled_once_for_all(tiny: Diffusion) -> None:
    """Or a model of 28 would be compiled 28 times, until PyTorch gives up."""
    from torch._dynamo.testing import CompileCounter

    counter = CompileCounter()
    for block in tiny.transformer.transformer_blocks:
        block.compile(backend=counter, dynamic=False)
    for batch in (1, 2):
        Denoiser(tiny, [1] * batch, 2.0).denoise(SEEDS[:batch], lambda: None)
    assert counter.frame_count == 2 * 2  # the first one's input lies otherwise in memory


class TestRace:
    def test_table_json_and_ratios(self, tiny: Diffusion, tiny_pipeline: Pipeline) -> None:
        entries = [tiny_pipeline, tiny, sampled_as(tiny, "dit-xl-250")]
        found, pictures = race(entries, batch=2, bandwidth=1e9)
        own, fifty, more = found.racers
        assert [racer.name for racer in found.racers[1:]] == ["dit-xl-50", "dit-xl-250"]
        assert (fifty.passes, more.passes) == (50, 250)
        assert [len(lap.code_seconds) for lap in more.laps] == [250] * 5
        for lap in more.laps:
            assert list(lap.code_seconds) == sorted(lap.code_seconds)
            assert lap.code_seconds[-1] <= lap.codes_seconds
        assert pictures[1].images.shape == pictures[0].images.shape == (2, 16, 16, 3)
        assert pictures[1].images.dtype == np.uint8 and pictures[1].codes is None
        line = json.loads(as_json(found))
        assert line["racers"][1]["codes_per_second"] is None
        assert line["racers"][1]["images_per_second"] == 2 / fifty.seconds.median
        assert as_csv(found).count("dit-xl-250") == 5
        assert race_table(found).row_count > 10
        first, second = ratios(found)
        assert first.startswith(f"{own.name} over dit-xl-50: codes and pictures ")
        assert "state or cache" not in second
        assert len(gates(found)) == 4

    def test_the_floor_is_what_its_arithmetic_takes(
        self, tiny: Diffusion, tiny_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(diffusion_run, "arithmetic_rate", lambda *_: 1e6)
        found, _ = race([tiny_pipeline, tiny], batch=2, bandwidth=1e12)
        dit = found.racers[1]
        assert dit.floor_ms == pytest.approx(1e3 * 4 * tiny.operations / 1e6)  # guidance: 4 rows
        mean = dit.codes_seconds.median / 50
        assert dit.floor_fraction == pytest.approx(dit.floor_ms / 1e3 / mean)

    def test_what_cannot_race_is_named(self, tiny: Diffusion, tiny_pipeline: Pipeline) -> None:
        with pytest.raises(InvalidInput, match="cannot be the first"):
            race([tiny, tiny_pipeline])
        tiny.transformer.register_to_config(sample_size=4)
        with pytest.raises(InvalidInput, match="size of a picture is 16 and 32"):
            race([tiny_pipeline, tiny])

    def test_it_is_stopped_between_steps(self, tiny: Diffusion, tiny_pipeline: Pipeline) -> None:
        said: list[str] = []
        with pytest.raises(Stopped):
            race(
                [tiny_pipeline, tiny],
                bandwidth=1e9,
                say=said.append,
                stop=lambda: any("dit" in text for text in said),
            )
        assert not any("lap" in text for text in said)


class TestWeights:
    def test_those_of_a_folder(self, diffusers: Any, tiny: Diffusion, tmp_path: Path) -> None:
        pipe = diffusers.DiTPipeline(tiny.transformer, tiny.image_decoder, tiny.scheduler)
        pipe.save_pretrained(tmp_path)
        found = load_diffusion(f"dit-xl-250={tmp_path}", "cpu", "bfloat16")
        assert (found.name, found.version, found.sampler.steps) == (
            "dit-xl-250",
            str(tmp_path),
            250,
        )
        assert found.dtype == torch.bfloat16
        own, read = (m.transformer.proj_out_2.weight for m in (tiny, found))
        assert torch.equal(own.bfloat16(), read)

    def test_pickled_ones_are_not_read(
        self, diffusers: Any, tiny: Diffusion, tmp_path: Path
    ) -> None:
        pipe = diffusers.DiTPipeline(tiny.transformer, tiny.image_decoder, tiny.scheduler)
        pipe.save_pretrained(tmp_path, safe_serialization=False)
        with pytest.raises(CheckpointError, match="no DiT in safetensors was read from"):
            load_diffusion(f"dit-xl-50={tmp_path}", "cpu", "float32")

    def test_a_name(self) -> None:
        assert named("gpt-xl") is None
        assert named("dit-xl-50=some/where") == (Sampler("ddim", 50), "some/where")
        with pytest.raises(InvalidInput, match="no 'dit-xl'; choose one of dit-xl-50, dit-xl-250"):
            named("dit-xl")

    def test_without_diffusers_the_extra_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(__import__("sys").modules, "diffusers", None)
        with pytest.raises(AimError, match=r"aim-mamba\[diffusion\]"):
            load_diffusion("dit-xl-50", "cpu", "float32", random_weights=True)


@pytest.mark.gpu
@pytest.mark.usefixtures("exact_float32")
@pytest.mark.parametrize("name", ["dit-xl-50", "dit-xl-250"])
def test_compiled_and_recorded_it_draws_the_same(
    diffusers: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(diffusion, "TRANSFORMER", TRANSFORMER)
    monkeypatch.setattr(diffusion, "IMAGE_DECODER", DECODER)
    model = load_diffusion(name, "cuda", "float32", random_weights=True)
    assert model.compiled and model.backend == "torch.compile, CUDA graph"
    plain, fast = (Denoiser(model, [1, 2, 3], 2.0) for _ in range(2))
    plain.denoise(SEEDS, lambda: None)
    [expected] = plain.images()
    fast.prepare()
    for _ in range(2):
        fast.denoise(SEEDS, lambda: None)
        spread = float(plain.latents.std())
        assert torch.allclose(fast.latents, plain.latents, rtol=1e-3, atol=1e-3 * spread)
        [found] = fast.images()
        assert (found.int() - expected.int()).abs().max() <= 2
