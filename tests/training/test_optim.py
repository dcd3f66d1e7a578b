"""What decays, the learning rate, the running average."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from aim.config import GPTConfig
from aim.models.aim.model import AiM
from aim.models.gpt.model import GPT
from aim.models.vq.model import VQ
from aim.training.losses import PatchDiscriminator
from aim.training.optim import EMA, SCHEDULES, adamw, cosine, decay_groups, schedule, set_lr


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
    optimizer = adamw(nn.Linear(3, 3), 1.0, 0.1)
    set_lr(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]


def test_cosine() -> None:
    points = {0.0: 0.0, 0.05: 0.5, 0.1: 1.0, 0.55: 0.6, 1.0: 0.2, 1.5: 0.2}
    for progress, wanted in points.items():
        assert cosine(progress, warmup=0.1, floor=0.2) == pytest.approx(wanted)
    falling = [cosine(0.1 + 0.9 * i / 50, 0.1) for i in range(51)]
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] == pytest.approx(0)
    assert cosine(0.0, warmup=0.0) == 1.0


class TestEMA:
    def test_equals_the_formula(self) -> None:
        model = nn.Linear(2, 3)
        ema = EMA(model, decay=0.5)
        expected = {name: p.detach().clone() for name, p in model.named_parameters()}
        for n in range(1, 12):
            for p in model.parameters():
                p.data += torch.randn(p.shape)
            ema.update()
            decay = min(0.5, (1 + n) / (10 + n))  # the latter until n = 8
            expected = {
                name: decay * expected[name] + (1 - decay) * p.detach()
                for name, p in model.named_parameters()
            }
            for name, p in ema.model.named_parameters():
                torch.testing.assert_close(p, expected[name])

    def test_the_average_is_for_use_and_the_model_for_training(self) -> None:
        model = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).train()
        ema = EMA(model, 0.9)
        assert not ema.model.training
        assert not any(p.requires_grad for p in ema.model.parameters())
        assert model.training
        before = model[0].weight.detach().clone()
        ema.model[0].weight.zero_()
        ema.update()
        assert torch.equal(model[0].weight, before)

    def test_goes_on_after_loading(self) -> None:
        model = nn.Linear(2, 2)
        first = EMA(model, 0.9)
        for _ in range(3):
            model.weight.data += 1
            first.update()
        second = EMA(model, 0.9)
        second.load_state_dict(first.state_dict())
        assert second.updates == 3
        model.weight.data += 1
        for ema in (first, second):
            ema.update()
        assert torch.equal(first.model.weight, second.model.weight)
        assert not torch.equal(first.model.weight, model.weight)

    def test_counters_are_refused(self) -> None:
        with pytest.raises(AssertionError, match="counter"):
            EMA(nn.BatchNorm2d(3), 0.9)


def test_schedules() -> None:
    for kind in SCHEDULES:
        assert schedule(kind, 0.05, 0.1) == pytest.approx(0.5)
        assert schedule(kind, 0.1, 0.1) == pytest.approx(1)
    assert schedule("constant", 1, 0.1) == 1
    assert schedule("linear", 0.55, 0.1, 0.2) == pytest.approx(0.6)
    assert schedule("linear", 1, 0.1, 0.2) == pytest.approx(0.2)
    assert schedule("cosine", 0.3, 0.1) == cosine(0.3, 0.1)
