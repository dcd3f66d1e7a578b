"""Stage 1 where more comes out than goes in: images of both sizes, a classifier's features, LPIPS;
resumed, and on two processes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from aim.checkpoint import load_tokenizer
from aim.checkpoint.weights import read_metadata
from aim.config import VQConfig
from aim.errors import InvalidInput
from aim.models.vq.model import VQ
from aim.training.data.images import Batches, ImageSet, normalize, random_crops
from aim.training.perceptual import LPIPS
from aim.training.recipe import TokenizerRecipe
from aim.training.reconstruct import psnr, reconstruct
from aim.training.semantic import SemanticHead
from aim.training.tokenizer import TokenizerTrainer, batch_shares
from tests import launching

# 32x32 to a grid of 8x8 to 64x64
LARGER = VQConfig(
    image_size=32,
    codebook_size=64,
    z_channels=32,
    ch=32,
    ch_mult=(1, 1, 1),
    decoder_ch_mult=(1, 1, 1, 1),
    num_res_blocks=1,
)
FULL: dict[str, Any] = {
    "fine_share": 0.5,
    "pixel": "l1",
    "semantic": 0.3,
    "discriminator": "features",
    "adversarial_start": 0.0,
}


def image_set(smooth_images: Callable[..., Tensor], size: int, seed: int) -> ImageSet:
    return ImageSet(smooth_images(16, size, seed), torch.zeros(16, dtype=torch.long), ())


@pytest.fixture
def train(
    lpips_file: Path, smooth_images: Callable[..., Tensor], efficientnet: Path, out: Path
) -> Callable[..., TokenizerTrainer]:
    """A trainer of ``steps`` steps on 16 images of each size."""

    def make(steps: int, **changes: Any) -> TokenizerTrainer:
        torch.manual_seed(0)
        recipe = TokenizerRecipe(**{"seconds": 1e9, "batch": 4, "ema": 0.9, **FULL, **changes})
        small, fine = (image_set(smooth_images, size, seed) for size, seed in ((32, 0), (64, 1)))
        trainer = TokenizerTrainer(
            VQ(LARGER), LPIPS.load(lpips_file), small, small, recipe, out, fine=fine
        )
        trainer.run_state.steps = steps
        return trainer

    return make


def copied(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def logged(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_one_step_follows_the_sum_of_the_losses(train: Callable[..., TokenizerTrainer]) -> None:
    """Small images are compared at their size, those of the size that comes out at theirs; the
    discriminator sees the latter alone; code vectors and their head learn what a classifier sees.
    """
    trainer = train(100, min_scale=1.0)
    trainer.run_state.step = 50  # where the learning rate is not zero
    clip, got = torch.nn.utils.clip_grad_norm_, {}

    def spy(parameters: Any, limit: float) -> Tensor:
        for part in (trainer.model, trainer.head):
            got.update({(part, name): p.grad.clone() for name, p in part.named_parameters()})
        return clip(trainer.model.parameters(), limit)

    model, head, critic = VQ(LARGER), SemanticHead(LARGER.codebook_dim), trainer.discriminator
    model.load_state_dict(copied(trainer.model))
    head.load_state_dict(copied(trainer.head))
    judged: list[Tensor] = []
    critic.eval()  # its spectral norms rest
    critic.register_forward_hook(lambda module, inputs, output: judged.append(inputs[0].detach()))
    before = copied(critic)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.utils, "clip_grad_norm_", spy)
        figures = trainer._step(0.5)
    assert [tuple(images.shape) for images in judged] == [(2, 3, 64, 64)] * 3
    critic.load_state_dict(before)
    critic.requires_grad_(False)

    generator = torch.Generator().manual_seed(50)
    small, fine = (
        random_crops(trainer_set.images[next(Batches(16, 2, seed))], 1.0, generator)
        for seed, trainer_set in enumerate((trainer.data, trainer.fine))
    )
    torch.testing.assert_close(judged[1], fine)
    images = torch.cat([small, F.interpolate(fine, size=(32, 32), mode="area")])
    quantized = model.quantize_features(model.features(images))
    made = model.decode_vectors(quantized.vectors)
    reduced, kept = F.interpolate(made[:2], size=(32, 32), mode="area"), made[2:]
    total = ((reduced - small).abs().mean() + (kept - fine).abs().mean()) / 2
    lpips = trainer.loss_network
    total = total + (lpips(reduced, small).sum() + lpips(kept, fine).sum()) / 4
    total = total - 0.3 * figures["weight"] * critic(kept).mean()
    seen = trainer.classifier.semantics(images, 8)
    cosine = F.cosine_similarity(head.net(quantized.vectors), seen, dim=1)
    total = total + 0.3 * (1 - cosine.mean())
    (total + quantized.codebook_loss + 0.25 * quantized.commitment_loss).backward()
    wanted = {
        (part, name): p.grad
        for part, ours in ((trainer.model, model), (trainer.head, head))
        for name, p in ours.named_parameters()
    }
    assert got.keys() == wanted.keys()
    for key, grad in wanted.items():
        torch.testing.assert_close(got[key], grad, atol=1e-5, rtol=2e-3, msg=lambda m, k=key: k[1])


def test_a_resumed_run_ends_as_one_that_was_not_stopped(
    train: Callable[..., TokenizerTrainer], out: Path
) -> None:
    settings: dict[str, Any] = {"schedule": "constant", "warmup": 0.0}
    whole = train(4, **settings)
    whole.run()
    figures = logged(out)[-1]
    assert {"l1", "perceptual", "semantic", "discriminator", "weight"} <= figures.keys()
    (out / "state.pt").unlink()
    train(2, **settings).run()
    torch.manual_seed(99)
    resumed = train(4, **settings)
    assert resumed.run_state.step == 2
    resumed.run()
    for part in ("model", "discriminator", "head", "average"):
        ours, theirs = copied(getattr(resumed, part)), copied(getattr(whole, part))
        assert ours.keys() == theirs.keys()
        assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == [], part


def test_without_an_adversarial_loss_nothing_is_judged(
    train: Callable[..., TokenizerTrainer],
) -> None:
    trainer = train(1, semantic=0.0, discriminator="patch", adversarial=0.0)
    before = copied(trainer.discriminator)
    assert "discriminator" not in trainer._step(0.9)
    assert all(torch.equal(w, before[n]) for n, w in trainer.discriminator.state_dict().items())


def test_the_decoder_alone_needs_no_head(train: Callable[..., TokenizerTrainer]) -> None:
    trainer = train(1, decoder_only=True)
    encoder = copied(trainer.model.encoder)
    trainer.run()
    assert trainer.head is None
    assert all(torch.equal(t, encoder[n]) for n, t in trainer.model.encoder.state_dict().items())


@pytest.mark.parametrize(
    ("config", "changes", "fine", "message"),
    [
        (LARGER, {}, False, r"fine_share is 0\.5: it needs images as large as what comes out"),
        (VQConfig(image_size=32, ch_mult=(1, 1)), {}, True, "where that is more than goes in"),
        (LARGER, {"fine_share": 1.5}, True, r"fine_share is 1\.5; it must be in \[0, 1\]"),
        (LARGER, {"fine_share": -0.5}, True, r"fine_share is -0\.5; it must be in \[0, 1\]"),
        (LARGER, {"batch": 10}, True, "batch is 5; it must be a multiple of 2 processes"),
    ],
)
def test_shares_that_cannot_be_are_refused(
    config: VQConfig, changes: dict[str, Any], fine: bool, message: str
) -> None:
    images = ImageSet(torch.zeros(4, 3, 8, 8), torch.zeros(4), ()) if fine else None
    recipe = TokenizerRecipe(**{"batch": 8, "fine_share": 0.5, **changes})
    with pytest.raises(InvalidInput, match=message):
        batch_shares(config, recipe, 2, images)


def test_shares_of_a_batch() -> None:
    images = ImageSet(torch.zeros(4, 3, 8, 8), torch.zeros(4), ())

    def shares(fine_share: float) -> tuple[int, int]:
        return batch_shares(LARGER, TokenizerRecipe(batch=8, fine_share=fine_share), 2, images)

    assert [shares(share) for share in (0.0, 0.25, 1.0)] == [(8, 0), (6, 2), (0, 8)]


@torch.no_grad()
def test_reconstruct_gives_back_the_size_it_was_given(smooth_images: Callable[..., Tensor]) -> None:
    torch.manual_seed(0)
    model, fine = VQ(LARGER).eval(), smooth_images(3, 64)
    small = F.interpolate(fine.float(), size=(32, 32), mode="area").round().to(torch.uint8)
    made = model.decode(model.encode(normalize(small)))
    wanted = F.interpolate(made, size=(32, 32), mode="area").clamp(-1, 1).add(1).mul(127.5)
    got = reconstruct(model, small)
    assert (got.float() - wanted).abs().max() < 0.51
    assert reconstruct(model, fine).shape == fine.shape
    assert psnr(reconstruct(model, fine), fine) > 0


def test_two_processes_learn_what_one_does(
    smooth_images: Callable[..., Tensor], lpips_file: Path, efficientnet: Path, tmp_path: Path
) -> None:
    """Through the command, with all that it can be given."""
    for size in (32, 64):
        for i, pixels in enumerate(smooth_images(16, size, size)):
            kind = ("cats", "dogs")[i % 2]
            folder = tmp_path / ("small" if size == 32 else f"fine-{kind}") / kind
            path = folder / f"{i:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path)
    network = {"image_size": 32, "codebook_size": 64, "z_channels": 32, "ch": 32}
    network |= {"ch_mult": "[1,1,1]", "decoder_ch_mult": "[1,1,1,1]", "num_res_blocks": 1}
    settings = {f"model.{name}": value for name, value in network.items()} | FULL
    settings |= {
        "seconds": 0,
        "steps": 3,
        "batch": 4,
        "compile": "false",
        "log_every": 1,
        "adversarial": 0.5,
    }
    command = ["train", "tokenizer", str(tmp_path / "small"), "--config", "vq-s"]
    command += ["--fine-images", str(tmp_path / "fine-cats"), "--val", str(tmp_path / "small")]
    command += ["--fine-images", str(tmp_path / "fine-dogs")]
    command += ["--storage", "int8"]
    command += ["--loss-network", str(lpips_file), "--tracker", "none", "--device", "cpu"]
    command += [part for item in settings.items() for part in ("--set", "{}={}".format(*item))]
    for name, processes in (("one", 1), ("two", 2)):
        launching.run([*command, "--out", str(tmp_path / name)], processes)
    one, two = (logged(tmp_path / name) for name in ("one", "two"))
    assert len(one) == len(two) == 3
    for first, second in zip(one, two, strict=True):
        for name in ("l1", "perceptual", "semantic", "commitment", "discriminator", "weight"):
            assert second[name] == pytest.approx(first[name], rel=1e-3, abs=2e-5), name
    assert read_metadata(tmp_path / "two" / "vq.safetensors")["storage"] == "int8"
    trained = load_tokenizer(tmp_path / "two" / "vq.safetensors")
    assert (trained.config.image_size, trained.config.output_size) == (32, 64)
