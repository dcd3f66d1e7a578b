"""What decays, the learning rate, the running average."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from aim.config import GPTConfig
from aim.models.aim.model import AiM
from aim.models.gpt.model import GPT
from aim.models.vq.model import VQ
from aim.training.losses import PatchDiscriminator
from aim.training.optim import adamw, averaged, decay_groups, schedule, set_lr


def decayed(model: nn.Module) -> tuple[set[str], set[str]]:
    """Names of the parameters that decay and of those that do not."""
    names = {id(p): name for name, p in model.named_parameters()}
    yes, no = ([names[id(p)] for p in group["params"]] for group in decay_groups(model, 0.1))  # type: ignore[attr-defined]
    assert sorted(yes + no) == sorted(names.values()), "each once"
    return set(yes), set(no)


@pytest.mark.parametrize("adaln_group", [True, False])
def test_decay_of_the_prior(make_model: Callable[..., AiM], adaln_group: bool) -> None:
    yes, no = decayed(make_model(adaln_group=adaln_group).requires_grad_(True))
    mixers = {
        f"layers.{i}.mixer.{part}.weight" for i in range(2) for part in ("in_proj", "out_proj")
    }
    own = (
        {"adaln_group.1.weight"}
        if adaln_group
        else {f"layers.{i}.adaLN_modulation.1.weight" for i in range(2)}
    )
    assert yes == {"final_layer.adaLN_modulation.1.weight"} | mixers | own
    for kept in ("A_log", "dt_bias", "D", "conv1d.weight", "conv1d.bias", "norm.weight"):
        assert f"layers.0.mixer.{kept}" in no
    assert {
        "embeddings.word_embeddings.weight",
        "cls_embed.embedding_table.weight",
        "norm_f.weight",
    } <= no
    assert ("layers.0.scale_shift_table" in no) == adaln_group


def test_decay_of_the_transformer() -> None:
    yes, no = decayed(GPT(GPTConfig(32, 2, 2, vocab_size=64, num_classes=5, num_tokens=16)))
    parts = (
        "attention.wqkv",
        "attention.wo",
        "feed_forward.w1",
        "feed_forward.w2",
        "feed_forward.w3",
    )
    assert yes == {"output.weight"} | {
        f"layers.{i}.{part}.weight" for i in range(2) for part in parts
    }
    assert {
        "tok_embeddings.weight",
        "cls_embedding.embedding_table.weight",
        "norm.weight",
        "layers.0.ffn_norm.weight",
    } <= no


def test_decay_of_the_tokenizer(tiny_vq: VQ) -> None:
    model = VQ(tiny_vq.config)
    yes, no = decayed(model)
    assert yes == {name for name, p in model.named_parameters() if p.dim() == 4}
    assert "decoder.conv_out.weight" in yes
    assert {"quantize.embedding.weight", "encoder.norm_out.weight", "decoder.conv_out.bias"} <= no


def test_decay_of_the_discriminator() -> None:
    yes, _ = decayed(PatchDiscriminator(8))
    assert yes == {f"net.{i}.weight" for i in (0, 2, 5, 8)}


def test_frozen_parameters_are_left_out() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False))
    assert [len(group["params"]) for group in decay_groups(model, 0.1)] == [1, 1]  # type: ignore[arg-type]


def test_adamw_decays_what_it_should() -> None:
    model = nn.Linear(3, 3)
    before = model.weight.detach().clone(), model.bias.detach().clone()
    optimizer = adamw(model, lr=0.5, weight_decay=0.2, betas=(0.8, 0.9))
    assert optimizer.defaults["betas"] == (0.8, 0.9)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    torch.testing.assert_close(model.weight.detach(), before[0] * (1 - 0.5 * 0.2))
    assert torch.equal(model.bias, before[1])


def test_set_lr() -> None:
    optimizer = adamw(nn.Linear(3, 3), 0.5, 0.1)
    for factor in (0.25, 0.5):
        set_lr(optimizer, factor)
        assert [group["lr"] for group in optimizer.param_groups] == [0.5 * factor] * 2


@pytest.mark.parametrize(
    ("kind", "half", "end"), [("cosine", 0.6, 0.2), ("linear", 0.6, 0.2), ("constant", 1.0, 1.0)]
)
def test_schedules(kind: Any, half: float, end: float) -> None:
    points = {0.0: 0.0, 0.05: 0.5, 0.1: 1.0, 0.55: half, 1.0: end, 1.5: end}
    for progress, wanted in points.items():
        assert schedule(kind, progress, warmup=0.1, floor=0.2) == pytest.approx(wanted)
    falling = [schedule(kind, 0.1 + 0.9 * i / 50, 0.1) for i in range(51)]
    assert falling == sorted(falling, reverse=True)
    assert schedule(kind, 0.0, warmup=0.0) == 1.0


def test_a_cosine_is_slow_at_both_ends() -> None:
    assert schedule("cosine", 0.25, 0.0) == pytest.approx(0.5 + 0.5**1.5)


class TestAverage:
    def test_equals_the_formula(self) -> None:
        model = nn.Linear(2, 3)
        average = averaged(model, decay=0.5)
        expected = {name: p.detach().clone() for name, p in model.named_parameters()}
        for n in range(1, 12):
            for p in model.parameters():
                p.data += torch.randn(p.shape)
            average.update_parameters(model)
            decay = min(0.5, (1 + n) / (10 + n))  # the latter until n = 8
            expected = {
                name: decay * expected[name] + (1 - decay) * p.detach()
                for name, p in model.named_parameters()
            }
            for name, p in average.module.named_parameters():
                torch.testing.assert_close(p, expected[name])
        assert average.n_averaged == 12

    def test_the_average_is_for_use_and_the_model_for_training(self) -> None:
        model = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).train()
        average = averaged(model, 0.9)
        assert not average.module.training
        assert not any(p.requires_grad for p in average.parameters())
        assert model.training
        before = model[0].weight.detach().clone()
        average.module[0].weight.zero_()
        average.update_parameters(model)
        assert torch.equal(model[0].weight, before)

    def test_goes_on_after_loading(self) -> None:
        model = nn.Linear(2, 2)
        first = averaged(model, 0.9)
        for _ in range(3):
            model.weight.data += 1
            first.update_parameters(model)
        second = averaged(model, 0.9)
        second.load_state_dict(first.state_dict())
        model.weight.data += 1
        for average in (first, second):
            average.update_parameters(model)
            assert average.n_averaged == 5, "the start is the first"
        assert torch.equal(first.module.weight, second.module.weight)
        assert not torch.equal(first.module.weight, model.weight)

    def test_counters_are_refused(self) -> None:
        with pytest.raises(AssertionError, match="counter"):
            averaged(nn.BatchNorm2d(3), 0.9)
