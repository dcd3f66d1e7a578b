"""Stage 1 on images that are easy: it learns, the discriminator comes in, it resumes; and the
measures of a tokenizer.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from aim.config import VQConfig
from aim.errors import AimError, InvalidInput
from aim.models.vq.model import VQ
from aim.training.classifier import VGG
from aim.training.data.images import Batches, ImageSet, normalize, random_crops
from aim.training.losses import perceptual_distance
from aim.training.recipe import TokenizerRecipe
from aim.training.reconstruct import psnr, reconstruct
from aim.training.run import Run
from aim.training.tokenizer import CodeUse, TokenizerTrainer

# a grid of 4x4
SMALL = VQConfig(
    image_size=16, codebook_size=64, z_channels=32, ch=32, ch_mult=(1, 1, 1), num_res_blocks=1
)


@pytest.fixture
def train(tiny_vgg: VGG, smooth: ImageSet, out: Path) -> Any:
    """A trainer of ``steps`` steps on 64 smooth images."""

    def make(steps: int, **changes: Any) -> TokenizerTrainer:
        torch.manual_seed(0)
        recipe = TokenizerRecipe(**{"seconds": 1e9, "batch": 8, "lr": 2e-3, "ema": 0.9, **changes})
        trainer = TokenizerTrainer(VQ(SMALL), tiny_vgg, smooth, smooth, recipe, out)
        trainer.run_state.steps = steps
        return trainer

    return make


def logged(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def copied(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def changed(module: torch.nn.Module, before: dict[str, torch.Tensor]) -> bool:
    return any(
        not torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items()
    )


def test_learns(train: Any, smooth: ImageSet, out: Path) -> None:
    # the networks are random: pixels come first
    trainer = train(200, seed=1, perceptual=0.1, adversarial=0.05, adversarial_start=0.8)
    discriminator = copied(trainer.discriminator)
    before = psnr(reconstruct(trainer.average, smooth.images), smooth.images)
    model = trainer.run()
    assert model is trainer.average
    assert not model.training
    pixels = smooth.images.float()
    grey = (
        (20 * torch.log10(255 / (pixels - pixels.mean()).square().mean((1, 2, 3)).sqrt()))
        .mean()
        .item()
    )
    assert psnr(reconstruct(model, smooth.images), smooth.images) > max(before + 2.5, grey + 0.8)
    [figures] = logged(out)
    assert figures["step"] == 200
    assert figures["psnr"] == pytest.approx(psnr(reconstruct(model, smooth.images), smooth.images))
    assert 0 < figures["used"] <= 1
    assert 0 < figures["weight"] <= 10
    assert figures["discriminator"] > 0
    assert changed(trainer.discriminator, discriminator)


def test_before_its_start_the_discriminator_rests(train: Any, out: Path) -> None:
    trainer = train(2, adversarial_start=2.0)
    before = copied(trainer.discriminator)
    trainer.run()
    assert not changed(trainer.discriminator, before)
    assert not logged(out)[-1].keys() & {"discriminator", "weight"}


def test_the_discriminator_gets_no_gradient_of_the_tokenizer_s_losses(train: Any) -> None:
    """Its own step must see its own loss alone."""
    trainer = train(2, adversarial_start=0.0)
    seen = []
    step = trainer._discriminator_step

    def spy(*images: torch.Tensor) -> torch.Tensor:
        seen.extend(p.grad for p in trainer.discriminator.parameters())
        return step(*images)

    trainer._discriminator_step = spy
    trainer.run()
    assert seen
    assert all(grad is None for grad in seen)


def test_one_step_follows_the_sum_of_the_losses(train: Any) -> None:
    """The gradients that meet at the image are those of the losses written out in one sum."""
    trainer = train(100, adversarial_start=0.0, min_scale=1.0)
    trainer.run_state.step = 50  # where the learning rate is not zero
    clip, got = torch.nn.utils.clip_grad_norm_, {}

    def spy(parameters: Any, limit: float) -> torch.Tensor:
        got.update({name: p.grad.clone() for name, p in trainer.model.named_parameters()})
        return clip(trainer.model.parameters(), limit)

    model, critic = VQ(trainer.model.config), trainer.discriminator
    model.load_state_dict(copied(trainer.model))
    scores = copied(critic)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.utils, "clip_grad_norm_", spy)
        figures = trainer._step(0.5)
    critic.load_state_dict(scores)
    critic.requires_grad_(False)
    pick = next(Batches(len(trainer.data), 8, trainer.recipe.seed))
    images = random_crops(trainer.data.images[pick], 1.0, torch.Generator().manual_seed(50))
    quantized = model.quantize_features(model.features(images))
    made = model.decode_vectors(quantized.vectors)
    total = (made - images).square().mean() + perceptual_distance(
        trainer.loss_network, made, images
    )
    total = total - 0.3 * figures["weight"] * critic(made).mean()
    (total + quantized.codebook_loss + 0.25 * quantized.commitment_loss).backward()
    assert got.keys() == dict(model.named_parameters()).keys()
    for name, p in model.named_parameters():
        torch.testing.assert_close(
            got[name], p.grad, atol=1e-5, rtol=1e-3, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("adversarial_start", [0.0, 2.0])
def test_less_memory_gives_the_same_gradient(
    train: Any, monkeypatch: pytest.MonkeyPatch, adversarial_start: float
) -> None:
    """Blocks computed again, loss networks that see 2 images at once; a batch in 2 parts, where no
    weight is balanced over it.
    """
    clip, found = torch.nn.utils.clip_grad_norm_, []

    def spy(parameters: Any, limit: float) -> torch.Tensor:
        parameters = list(parameters)
        found.append([p.grad.clone() for p in parameters])
        return clip(parameters, limit)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", spy)
    settings: dict[str, Any] = {"adversarial_start": adversarial_start, "pixel": "l1"}
    whole = train(100, **settings)
    figures = whole._step(0.5)
    monkeypatch.setattr("aim.training.reconstruct.AT_ONCE", 2 * 16**2)
    settings |= {"checkpoint_layers": True, "accumulate": 1 if adversarial_start == 0 else 2}
    parts = train(100, **settings)
    seen = []
    features = parts.loss_network.features

    def counted(images: torch.Tensor) -> Any:
        seen.append(len(images))
        return features(images)

    parts.loss_network.features = counted
    in_parts = parts._step(0.5)
    assert set(seen) == {2}
    assert in_parts.keys() == figures.keys()
    for name, value in figures.items():
        torch.testing.assert_close(in_parts[name], value, atol=1e-5, rtol=1e-4)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, atol=1e-6, rtol=1e-3)
    for one, other in zip(
        whole.discriminator.parameters(), parts.discriminator.parameters(), strict=True
    ):
        torch.testing.assert_close(other, one, atol=1e-4, rtol=0)


def test_blocks_computed_again_keep_less(train: Any) -> None:
    """Bytes that the graph of a decoded image holds."""

    def kept(trainer: TokenizerTrainer) -> int:
        sizes = {}
        keep = torch.autograd.graph.saved_tensors_hooks(
            lambda t: sizes.setdefault(t.data_ptr(), t.nbytes) and t, lambda t: t
        )
        with keep:
            trainer.model.decoder(torch.randn(8, 32, 4, 4))
        return sum(sizes.values())

    assert kept(train(1, checkpoint_layers=True)) < 0.5 * kept(train(1))


def test_a_batch_falls_into_equal_parts(train: Any) -> None:
    with pytest.raises(InvalidInput, match=r"batch is 8; .* multiple of 1 processes"):
        train(1, accumulate=3)


def test_resumes(train: Any, out: Path) -> None:
    first = train(4)
    first.run()
    second = train(6)
    torch.manual_seed(99)
    assert second.run_state.step == 4
    for part in ("model", "discriminator"):
        assert not changed(getattr(second, part), copied(getattr(first, part)))
    assert not changed(second.average, copied(first.average))
    assert torch.equal(second.use.counts, first.use.counts)
    assert second.use.counts.sum() == 4 * 8 * 16
    second.run()
    assert [line["step"] for line in logged(out)] == [4, 6]
    assert changed(second.model, copied(first.model))
    third = train(6)
    assert not changed(third.run(), copied(second.average)), "nothing is left to do"
    assert len(logged(out)) == 2


def test_a_resumed_run_ends_as_one_that_was_not_stopped(train: Any, out: Path) -> None:
    settings: dict[str, Any] = {"adversarial_start": 0.0, "schedule": "constant", "warmup": 0.0}
    whole = train(14, **settings)
    whole.run()  # dead codes are replaced at step 10
    (out / "state.pt").unlink()
    train(7, **settings).run()
    torch.manual_seed(99)
    resumed = train(14, **settings)
    resumed.run()
    for part in ("model", "discriminator"):
        assert not changed(getattr(resumed, part), copied(getattr(whole, part)))
    assert not changed(resumed.average, copied(whole.average))


def test_gradients_that_are_not_finite_are_not_taken(train: Any) -> None:
    trainer = train(5, patience=2)
    with torch.no_grad():
        trainer.model.decoder.conv_out.bias.fill_(math.nan)
    before = copied(trainer.model.encoder)
    trainer._step(0.5)
    assert not changed(trainer.model.encoder, before)
    with pytest.raises(
        AimError,
        match=r"2 steps in a row, up to step 0; go on from .*state\.pt with a lower lr than 0.002",
    ):
        trainer._step(0.5)


def test_unused_codes_come_back(train: Any) -> None:
    """At step 10 those that nothing was near to are overwritten."""
    trainer = train(100)
    for _ in range(10):
        trainer._step(0.1)
        trainer.run_state.advance()
    dead = trainer.use.counts == 0
    table = trainer.model.quantize.embedding.weight
    revive, seen = trainer.use.revive, []

    def spy(weight: torch.Tensor, features: torch.Tensor) -> None:
        seen.append((trainer.use.counts == 0, weight.detach().clone()))
        revive(weight, features)

    trainer.use.revive = spy
    trainer._step(0.1)
    [(still_dead, before)] = seen
    assert dead.any()
    assert (still_dead <= dead).all()
    assert torch.equal((table != before).any(1), still_dead)
    assert trainer.use.used() == 0, "a new count"
    trainer.run_state.step = 30
    trainer._step(0.6)
    assert len(seen) == 1, "not in the second half"


class TestCodeUse:
    def test_counts(self) -> None:
        use = CodeUse(5, torch.device("cpu"))
        assert use.used() == 0
        use.add(torch.tensor([[0, 3], [3, 3]]))
        use.add(torch.tensor([[4, 0]]))
        assert use.counts.tolist() == [2, 0, 0, 3, 1]
        assert use.used().item() == pytest.approx(0.6)

    def test_revive_replaces_exactly_what_is_unused(self) -> None:
        torch.manual_seed(0)
        use = CodeUse(6, torch.device("cpu"))
        use.add(torch.tensor([[0, 3, 4]]))
        table = torch.nn.Parameter(torch.randn(6, 4) * 3)
        before, length = table.detach().clone(), table.detach().norm(dim=1).median()
        features = torch.nn.functional.normalize(torch.randn(2, 4, 3, 5), dim=1)
        use.revive(table, features)
        vectors = features.permute(0, 2, 3, 1).reshape(-1, 4)
        for row in range(6):
            if row in (0, 3, 4):
                assert torch.equal(table[row], before[row])
            else:
                torch.testing.assert_close(table[row].norm(), length)
                assert torch.isclose(vectors, table[row] / length, atol=1e-5).all(1).any(), (
                    "one of the features"
                )
        assert use.counts.tolist() == [0] * 6

    def test_when_all_are_used_nothing_changes(self) -> None:
        use = CodeUse(2, torch.device("cpu"))
        use.add(torch.tensor([[0, 1]]))
        table = torch.randn(2, 4)
        before = table.clone()
        use.revive(table, torch.randn(1, 4, 2, 2))
        assert torch.equal(table, before)

    def test_is_part_of_a_run(self, out: Path) -> None:
        use = CodeUse(3, torch.device("cpu"))
        use.add(torch.tensor([[1, 1, 2]]))
        Run(out, {"use": use}, seconds=1).save()
        again = CodeUse(3, torch.device("cpu"))
        Run(out, {"use": again}, seconds=1)
        assert again.counts.tolist() == [0, 2, 1]


def test_reconstruct_and_psnr(tiny_vq: VQ, smooth: ImageSet) -> None:
    images = smooth.images[:7]
    made = reconstruct(tiny_vq, images)
    assert made.shape == images.shape
    assert made.dtype == torch.uint8
    wanted = tiny_vq.decode(tiny_vq.encode(normalize(images))).clamp(-1, 1).add(1).mul(127.5)
    assert (made.float() - wanted).abs().max() < 0.51
    ratios = []
    for a, b in zip(images.double().numpy(), made.double().numpy(), strict=True):
        ratios.append(10 * math.log10(255**2 / ((a - b) ** 2).mean()))
    assert psnr(made, images) == pytest.approx(sum(ratios) / 7, abs=1e-3)


def test_psnr_of_a_perfect_copy_is_finite(smooth: ImageSet) -> None:
    assert 100 < psnr(smooth.images, smooth.images) < math.inf


def test_the_decoder_alone_learns_and_codes_keep_their_meaning(
    train: Any, smooth: ImageSet
) -> None:
    trainer = train(40, decoder_only=True, perceptual=0.1, adversarial=0.05, adversarial_start=0.5)
    encoder, quantize, decoder = (
        copied(part)
        for part in (trainer.model.encoder, trainer.model.quantize, trainer.model.decoder)
    )
    codes = trainer.model.encode(normalize(smooth.images))
    before = psnr(reconstruct(trainer.average, smooth.images), smooth.images)
    model = trainer.run()
    assert not changed(trainer.model.encoder, encoder) and not changed(
        trainer.model.quantize, quantize
    )
    assert changed(trainer.model.decoder, decoder)
    assert torch.equal(model.encode(normalize(smooth.images)), codes)
    assert psnr(reconstruct(model, smooth.images), smooth.images) > before + 1
